/*
 * message_queue_test.c - reads the messages of a queue in the kernel's memory, and compares them with those that were
 * sent. Needs root's capabilities; the queues are in an ipc namespace of their own.
 */
#include "unit.h"
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/msg.h>
#include "base/error.h"
#include "base/io.h"
#include "kernel/message_queue.h"

#define LONGEST 8192
#define QUEUES	200
#define COUNT	2000

struct message {
	long type;
	char bytes[LONGEST];
};

/* The message with this number. Returns its size: there are all near the ends of the kernel's parts. */
static size_t prepare(struct message *message, size_t number)
{
	static const size_t bases[] = { 0, 4040, 8130, LONGEST - 15 };
	size_t size = bases[number % array_size(bases)] + number / array_size(bases) % 16;

	message->type = (long)number * 1234567891011 + 1;
	for (size_t i = 0; i < size; i++)
		message->bytes[i] = (char)(i * 7 + i / 255 + number);
	return size;
}

static int make_queue(void)
{
	int id = msgget(IPC_PRIVATE, 0600);

	assert_true(id >= 0);
	return id;
}

static void compare(const struct message_queue_reader *reader, int id, size_t first, size_t expected)
{
	static struct message message;
	struct queue_message *messages;
	size_t count;

	assert_int_equal(message_queue_read(reader, id, &messages, &count), 0);
	assert_int_equal(count, expected);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(messages[i].size, prepare(&message, first + i));
		assert_int_equal(messages[i].type, message.type);
		assert_memory_equal(messages[i].bytes, message.bytes, messages[i].size);
	}
	queue_messages_free(messages, count);
}

static void as_sent(void **state unused)
{
	static struct message message;
	struct message_queue_reader *reader;
	struct queue_message *messages;
	int ids[QUEUES];
	size_t count;

	failure_clear();
	if (message_queue_open(&reader) || unshare(CLONE_NEWIPC) < 0 ||
	    write_text_at(-1, "/proc/sys/kernel/msgmnb", "20000000"))
		skip();
	for (size_t i = 0; i < QUEUES; i++)
		ids[i] = make_queue();
	for (size_t i = 0; i < COUNT; i++)
		assert_int_equal(msgsnd(ids[100], &message, prepare(&message, i), IPC_NOWAIT), 0);
	assert_int_equal(msgsnd(ids[0], &message, prepare(&message, 5), IPC_NOWAIT), 0);
	assert_int_equal(msgsnd(ids[QUEUES - 1], &message, prepare(&message, 6), IPC_NOWAIT), 0);
	compare(reader, ids[100], 0, COUNT);
	compare(reader, ids[0], 5, 1);
	compare(reader, ids[QUEUES - 1], 6, 1);
	compare(reader, ids[1], 0, 0);
	for (size_t i = 0; i < COUNT / 2; i++)
		assert_true(msgrcv(ids[100], &message, LONGEST, 0, IPC_NOWAIT) >= 0);
	compare(reader, ids[100], COUNT / 2, COUNT / 2);
	assert_int_equal(msgctl(ids[100], IPC_RMID, NULL), 0);
	assert_int_equal(message_queue_read(reader, ids[100], &messages, &count), -ENOENT);
	assert_null(messages);
	assert_int_equal(message_queue_read(reader, ids[0] + (1 << 15), &messages, &count), -ENOENT);
	failure_clear();
	message_queue_close(reader);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(as_sent) };

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
