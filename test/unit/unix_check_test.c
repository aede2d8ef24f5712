/*
 * unix_check_test.c - unix sockets in images: forged ones are errors that name the file, and what belongs together is
 * found, in the right order.
 */
#include "unit.h"
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"
#include "image/image.h"
#include "image/message.h"
#include "sk-packet.pb-c.h"
#include "sockets/queue.h"
#include "sockets/unix.h"

static struct snapshot snapshot;

static int begin(void **state unused)
{
	failure_clear();
	log_level = 0;
	snapshot_init(&snapshot);
	return image_store_open_memory(&snapshot.images);
}

static int end(void **state unused)
{
	file_kind_unix.close(&snapshot);
	image_store_close(snapshot.images);
	snapshot_free(&snapshot);
	return 0;
}

/* The file has the number `ino`, too. */
static UnixSkEntry *add(uint32_t ino, uint32_t type, uint32_t state, uint32_t peer, const char *name)
{
	struct file *file = snapshot_add_file(&snapshot, ino);
	UnixSkEntry *entry = message_new(UnixSkEntry, unix_sk_entry);

	file->entry = message_new(FileEntry, file_entry);
	file->entry->type = FD_TYPES__UNIXSK;
	file->entry->id = entry->id = entry->ino = ino;
	file->entry->usk = entry;
	entry->type = type;
	entry->state = state;
	entry->peer = peer;
	entry->fown = message_new(FownEntry, fown_entry);
	entry->opts = message_new(SkOptsEntry, sk_opts_entry);
	entry->name.len = name ? strlen(name) + 1 : 0;
	entry->name.data = name ? (uint8_t *)copy_text(name) : NULL;
	file_set_kind(&snapshot, file, &file_kind_unix);
	return entry;
}

static struct unix_socket *find(uint32_t ino)
{
	return index_find(&unix_sockets_of(&snapshot)->by_inode, ino);
}

static void wait_for(UnixSkEntry *listener, uint32_t first, uint32_t second)
{
	message_array(listener, waiting, 2);
	listener->waiting[0] = first;
	listener->waiting[1] = second;
}

/* ---- forged ---- */

static void of_other_type(void)
{
	add(1, SOCK_STREAM, TCP_ESTABLISHED, 2, NULL);
	add(2, SOCK_SEQPACKET, TCP_ESTABLISHED, 1, NULL);
}

static void not_mutual(void)
{
	add(1, SOCK_STREAM, TCP_ESTABLISHED, 2, NULL);
	add(2, SOCK_STREAM, TCP_ESTABLISHED, 3, NULL);
	add(3, SOCK_STREAM, TCP_ESTABLISHED, 2, NULL);
}

static void circle(void)
{
	add(1, SOCK_DGRAM, TCP_ESTABLISHED, 2, "a");
	add(2, SOCK_DGRAM, TCP_ESTABLISHED, 3, "b");
	add(3, SOCK_DGRAM, TCP_ESTABLISHED, 1, "c");
}

static void born_twice(void)
{
	add(1, SOCK_DGRAM, TCP_ESTABLISHED, 2, "a");
	add(2, SOCK_DGRAM, TCP_ESTABLISHED, 3, NULL);
	add(3, SOCK_DGRAM, TCP_CLOSE, 0, NULL);
}

static void waits_twice(void)
{
	wait_for(add(1, SOCK_STREAM, TCP_LISTEN, 0, "a"), 2, 2);
	add(2, SOCK_STREAM, TCP_ESTABLISHED, 1, NULL);
}

static void waits_elsewhere(void)
{
	wait_for(add(1, SOCK_STREAM, TCP_LISTEN, 0, "a"), 2, 3);
	add(2, SOCK_STREAM, TCP_ESTABLISHED, 1, NULL);
	add(3, SOCK_STREAM, TCP_ESTABLISHED, 4, NULL);
	add(4, SOCK_STREAM, TCP_ESTABLISHED, 3, NULL);
}

/* With what is known of it. */
static UnixWaitingEntry *closed_connection(UnixSkEntry *listener)
{
	UnixWaitingEntry *added = message_new(UnixWaitingEntry, unix_waiting_entry);

	*grow(&listener->connections, &listener->n_connections) = added;
	return added;
}

static void queue_of(UnixWaitingEntry *connection, uint32_t id)
{
	message_set(connection, queue, id);
}

static UnixSkEntry *listener_of_closed(void)
{
	UnixSkEntry *listener = add(1, SOCK_STREAM, TCP_LISTEN, 0, "a");

	wait_for(listener, 0, 0);
	return listener;
}

static void closed_unknown(void)
{
	listener_of_closed();
}

static void connections_too_few(void)
{
	closed_connection(listener_of_closed());
}

static void connections_elsewhere(void)
{
	closed_connection(add(1, SOCK_STREAM, TCP_CLOSE, 0, NULL));
}

static void connection_named(void)
{
	UnixSkEntry *listener = listener_of_closed();
	UnixWaitingEntry *second;

	closed_connection(listener);
	second = closed_connection(listener);
	second->has_name = true;
	second->name.len = 110;
	second->name.data = allocate(110);
	memset(second->name.data, 'x', 109);
}

static void queue_of_file(void)
{
	UnixSkEntry *listener = listener_of_closed();

	closed_connection(listener);
	queue_of(closed_connection(listener), 1);
}

static void queue_of_two(void)
{
	UnixSkEntry *listener = listener_of_closed();

	queue_of(closed_connection(listener), 9);
	queue_of(closed_connection(listener), 9);
}

static void long_name(void)
{
	UnixSkEntry *entry = add(1, SOCK_STREAM, TCP_CLOSE, 0, NULL);

	entry->name.len = 110;
	entry->name.data = allocate(110);
	memset(entry->name.data, 'x', 109);
}

static void split_name(void)
{
	UnixSkEntry *entry = add(1, SOCK_STREAM, TCP_CLOSE, 0, "a/b");

	entry->name.data[1] = '\0';
}

static void unknown_type(void)
{
	add(1, SOCK_RAW, TCP_CLOSE, 0, NULL);
}

static void unknown_state(void)
{
	add(1, SOCK_STREAM, TCP_SYN_SENT, 0, NULL);
}

static void listens_without_name(void)
{
	add(1, SOCK_STREAM, TCP_LISTEN, 0, NULL);
}

static void listens_to_datagrams(void)
{
	add(1, SOCK_DGRAM, TCP_LISTEN, 0, "a");
}

static void no_peer(void)
{
	add(1, SOCK_STREAM, TCP_ESTABLISHED, 7, NULL);
}

static void same_number(void)
{
	add(1, SOCK_STREAM, TCP_CLOSE, 0, NULL);
	add(2, SOCK_STREAM, TCP_CLOSE, 0, NULL)->ino = 1;
}

static void relative_directory(void)
{
	add(1, SOCK_STREAM, TCP_CLOSE, 0, "a")->name_dir = copy_text("run");
}

static void forged(void **state)
{
	static const struct {
		void (*make)(void);
		const char *words;
	} cases[] = {
		{ of_other_type, "file 1 is a unix socket that is connected to one of another type" },
		{ not_mutual, "file 1 is a unix socket whose peer is not connected to it" },
		{ circle, "file 1 is a unix socket in a circle of connections" },
		{ born_twice, "file 2 is a unix socket that was born twice" },
		{ waits_twice, "file 1 is a unix socket with an unknown connection that waits" },
		{ waits_elsewhere, "file 1 is a unix socket with an unknown connection that waits" },
		{ closed_unknown, "file 1 is a unix socket with an unknown connection that waits" },
		{ connections_too_few, "file 1 is a unix socket with connections that wait, and cannot" },
		{ connections_elsewhere, "file 1 is a unix socket with connections that wait, and cannot" },
		{ connection_named, "file 1 is a unix socket with an impossible connection that waits" },
		{ queue_of_file, "file 1 has a connection that waits, with a queue of another socket" },
		{ queue_of_two, "file 1 has a connection that waits, with a queue of another socket" },
		{ long_name, "file 1 is a unix socket with an impossible name" },
		{ split_name, "file 1 is a unix socket with an impossible name" },
		{ unknown_type, "file 1 is a unix socket of an unknown type" },
		{ unknown_state, "file 1 is a unix socket in an unknown state" },
		{ listens_without_name, "file 1 is a unix socket that cannot listen" },
		{ listens_to_datagrams, "file 1 is a unix socket that cannot listen" },
		{ no_peer, "the peer of file 1 (a unix socket) is missing" },
		{ same_number, "file 2 is a unix socket with the number of another one" },
		{ relative_directory, "file 1 is a unix socket whose directory is not absolute" },
	};

	for (size_t i = 0; i < array_size(cases); i++) {
		cases[i].make();
		assert_true(file_kind_unix.load(&snapshot) < 0);
		if (!strstr(failure_text(), cases[i].words))
			fail_msg("%s; not %s", failure_text(), cases[i].words);
		end(state);
		begin(state);
	}
}

/* ---- right ---- */

/* Datagram sockets are connected before what they are connected to is. */
static void order_of_datagrams(void **state unused)
{
	add(1, SOCK_DGRAM, TCP_ESTABLISHED, 0, "end");
	add(2, SOCK_DGRAM, TCP_ESTABLISHED, 1, "middle");
	add(3, SOCK_DGRAM, TCP_ESTABLISHED, 2, NULL);
	add(4, SOCK_DGRAM, TCP_ESTABLISHED, 4, "itself");
	add(5, SOCK_DGRAM, TCP_ESTABLISHED, 6, "a");
	add(6, SOCK_DGRAM, TCP_ESTABLISHED, 5, "b");
	add(7, SOCK_DGRAM, TCP_ESTABLISHED, 5, "c");
	assert_int_equal(file_kind_unix.load(&snapshot), 0);
	assert_true(find(3)->distance > find(2)->distance && find(2)->distance > find(1)->distance);
	assert_true(find(7)->distance > find(5)->distance);
	assert_int_equal(find(4)->distance, 1);
}

/* In the order of the listener; those that it does not name, as in images of criu 4.2.1, in that of the files. */
static void order_of_waiting(void **state unused)
{
	struct unix_sockets *sockets = unix_sockets_of(&snapshot);

	wait_for(add(1, SOCK_STREAM, TCP_LISTEN, 0, "a"), 4, 2);
	for (uint32_t ino = 2; ino <= 4; ino++)
		add(ino, SOCK_STREAM, TCP_ESTABLISHED, 1, NULL);
	assert_int_equal(file_kind_unix.load(&snapshot), 0);
	assert_int_equal(sockets->waiting_count, 3);
	assert_ptr_equal(sockets->waiting[0].client, find(4));
	assert_ptr_equal(sockets->waiting[1].client, find(2));
	assert_ptr_equal(sockets->waiting[2].client, find(3));
	assert_int_equal(find(1)->waiting_count, 3);
}

/* Clients that were closed have their places between the others. */
static void closed_between(void **state unused)
{
	struct unix_sockets *sockets = unix_sockets_of(&snapshot);
	UnixSkEntry *listener = add(1, SOCK_STREAM, TCP_LISTEN, 0, "a");

	wait_for(listener, 0, 2);
	queue_of(closed_connection(listener), 9);
	closed_connection(listener);
	add(2, SOCK_STREAM, TCP_ESTABLISHED, 1, NULL);
	assert_int_equal(file_kind_unix.load(&snapshot), 0);
	assert_int_equal(sockets->waiting_count, 2);
	assert_null(sockets->waiting[0].client);
	assert_int_equal(sockets->waiting[0].entry->queue, 9);
	assert_ptr_equal(sockets->waiting[1].client, find(2));
	assert_int_equal(file_kind_unix.keeps(&snapshot), 2);
}

static void write_message(uint32_t queue)
{
	SkPacketEntry *entry = message_new(SkPacketEntry, sk_packet_entry);
	struct image *image;

	entry->id_for = queue;
	entry->length = 4;
	assert_int_equal(image_create(snapshot.images, &image, IMAGE_SK_QUEUES, 0), 0);
	assert_int_equal(image_write(image, &entry->base), 0);
	assert_int_equal(image_write_bytes(image, "word", 4), 0);
	assert_int_equal(image_close(image), 0);
	image_free(entry);
}

/* What a connection that waits has received is in a queue that belongs to no file. */
static void queue_of_connection(void **state)
{
	for (uint32_t queue = 8; queue <= 9; queue++) {
		UnixSkEntry *listener = listener_of_closed();

		queue_of(closed_connection(listener), 9);
		closed_connection(listener);
		write_message(queue);
		if (queue == 9) {
			assert_int_equal(file_kind_unix.load(&snapshot), 0);
			assert_non_null(socket_queue_find(&snapshot, 9));
			assert_int_equal(socket_queue_check(&snapshot, 9, SOCK_STREAM), 0);
		} else {
			assert_true(file_kind_unix.load(&snapshot) < 0);
			assert_non_null(strstr(failure_text(), "file 8 is no socket"));
		}
		end(state);
		begin(state);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(forged, begin, end),
		cmocka_unit_test_setup_teardown(order_of_datagrams, begin, end),
		cmocka_unit_test_setup_teardown(order_of_waiting, begin, end),
		cmocka_unit_test_setup_teardown(closed_between, begin, end),
		cmocka_unit_test_setup_teardown(queue_of_connection, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
