/*
 * messages.c - copies the messages of a queue without taking them.
 *
 * msgrcv(2) copies one by its index (MSG_COPY: Linux 3.8, CONFIG_CHECKPOINT_RESTORE). The kernel looks for it from the
 * first message on, so n messages take n²/2 steps. If a queue has many, they are read in the kernel's memory
 * (kernel/message_queue.h), unless that is not permitted or the kernel is not known. To prepare that takes 10 ms, which
 * a dump does before the freeze. In milliseconds of a CPU, on Linux 6.18:
 *
 *	empty messages			256	512	1,024	2,048	4,096	16,384
 *	each copied by a call		0.8	3	11	43	209	4,400
 *	read in the kernel's memory	0.2	0.4	1	2	6	21
 */
#include <errno.h>
#include <string.h>
#include <sys/msg.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "ipc/ipc.h"
#include "kernel/message_queue.h"

#define LARGEST_MESSAGE (64UL << 10) /* of the buffer at first: the default limit is 8 KiB */
#define WORTH_A_READER	1000	     /* messages */

static bool can_open_reader(const struct snapshot *snapshot)
{
	struct ipc_items *items = ipc_items_of(snapshot);

	if (!items->reader && !items->has_no_reader) {
		items->has_no_reader = attempted(message_queue_open(&items->reader));
		if (items->has_no_reader)
			log_debug("messages are not read in the kernel's memory; each is copied by a call");
	}
	return items->reader;
}

void ipc_end_copying(const struct snapshot *snapshot)
{
	struct ipc_items *items = ipc_items_of(snapshot);

	message_queue_close(steal_pointer(&items->reader));
}

static bool is_user(const struct ipc_object *queue, const pid_t *pids, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (queue->users[0] == pids[i] || queue->users[1] == pids[i])
			return true;
	return false;
}

void ipc_look_ahead(const struct snapshot *snapshot, const pid_t *pids, size_t count)
{
	struct ipc_list list;
	bool is_done = attempted(ipc_list_read(IPC_QUEUE, &list));

	for (size_t i = 0; !is_done && i < list.count; i++)
		if (list.items[i].amount >= WORTH_A_READER && is_user(&list.items[i], pids, count)) {
			can_open_reader(snapshot);
			is_done = true;
		}
	free(list.items);
}

/* ---- by calls ---- */

struct buffer {
	struct msgbuf *message;
	size_t size;
};

/* 1: there is none at `index`. */
static int copy_message(int id, size_t index, struct buffer *buffer, struct queue_message *message)
{
	ssize_t size;

	for (;;) {
		size = msgrcv(id, buffer->message, buffer->size, index, MSG_COPY | IPC_NOWAIT);
		if (size >= 0 || errno != E2BIG)
			break;
		buffer->size *= 2;
		free(buffer->message);
		buffer->message = allocate(sizeof(long) + buffer->size);
	}
	if (size < 0 && errno == ENOMSG)
		return 1;
	if (size < 0)
		return fail(errno, "cannot copy a message of %s %d", ipc_types[IPC_QUEUE].name, id);
	message->type = buffer->message->mtype;
	message->size = size;
	message->bytes = copy_bytes(buffer->message->mtext, size);
	return 0;
}

static int copy_by_calls(int id, struct queue_message **messages, size_t *count)
{
	struct buffer buffer = { allocate(sizeof(long) + LARGEST_MESSAGE), LARGEST_MESSAGE };
	int result = 0;

	while (!result) {
		struct queue_message message = { 0 };

		result = copy_message(id, *count, &buffer, &message);
		if (!result)
			*grow(messages, count) = message;
	}
	free(buffer.message);
	return min(result, 0);
}

int ipc_copy_messages(const struct snapshot *snapshot, const struct ipc_object *queue,
		      struct queue_message **messages, size_t *count)
{
	*messages = NULL;
	*count = 0;
	if (queue->amount >= WORTH_A_READER && can_open_reader(snapshot) &&
	    !attempted(message_queue_read(ipc_items_of(snapshot)->reader, queue->id, messages, count)))
		return 0;
	return copy_by_calls(queue->id, messages, count);
}

/* ---- restore ---- */

static bool is_same_message(const struct queue_message *message, const struct queue_message *wanted)
{
	return message->type == wanted->type && message->size == wanted->size &&
	       !memcmp(message->bytes, wanted->bytes, wanted->size);
}

int ipc_has_same_messages(const struct snapshot *snapshot, const struct ipc_item *item,
			  const struct ipc_object *found)
{
	struct queue_message *messages;
	size_t count;
	int result;

	if (found->amount != item->message_count)
		return false;
	result = ipc_copy_messages(snapshot, found, &messages, &count);
	if (!result) {
		result = count == item->message_count;
		for (size_t i = 0; result && i < count; i++)
			result = is_same_message(&messages[i], &item->messages[i]);
	}
	queue_messages_free(messages, count);
	return result;
}
