/*
 * socket_queue_test.c - queues of real sockets: what is peeked, saved, loaded and sent again is read as the original
 * would have been, with any size of reads; the original is as before. Invalid images are errors that name the image.
 */
#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"
#include "image/image.h"
#include "image/message.h"
#include "kernel_constants.h"
#include "sk-packet.pb-c.h"
#include "sockets/queue.h"
#include "sockets/sender.h"

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
	socket_queues_let_go(&snapshot);
	socket_queues_close(&snapshot);
	files_forget_identities(&snapshot);
	image_store_close(snapshot.images);
	snapshot_free(&snapshot);
	return 0;
}

/* ---- sending and receiving ---- */

#define NOBODY 1
#define MYSELF 2

/* Sends with credentials of this process, and with a number of descriptors: memfds of other sizes. */
static void send_message(int fd, const char *bytes, size_t size, int sender, int descriptors)
{
	char control[CMSG_SPACE(253 * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))] = "";
	struct iovec vector = { (void *)bytes, size };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control };
	struct cmsghdr *header = (struct cmsghdr *)control;
	const struct ucred self = { getpid(), getuid(), getgid() };
	int fds[253];

	if (sender == MYSELF) {
		*header = (struct cmsghdr){ CMSG_LEN(sizeof(self)), SOL_SOCKET, SCM_CREDENTIALS };
		memcpy(CMSG_DATA(header), &self, sizeof(self));
		message.msg_controllen += CMSG_SPACE(sizeof(self));
		header = (struct cmsghdr *)(control + message.msg_controllen);
	}
	for (int i = 0; i < descriptors; i++) {
		fds[i] = memfd_create("flight", 0);
		assert_int_equal(ftruncate(fds[i], 1000 + i), 0);
	}
	if (descriptors) {
		*header = (struct cmsghdr){ CMSG_LEN(descriptors * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(header), fds, descriptors * sizeof(int));
		message.msg_controllen += CMSG_SPACE(descriptors * sizeof(int));
	}
	assert_int_equal(sendmsg(fd, &message, 0), size);
	for (int i = 0; i < descriptors; i++)
		close(fds[i]);
}

static void describe_control(const struct cmsghdr *control, FILE *out)
{
	const int *fds = (const int *)CMSG_DATA(control);
	const struct ucred *sender = (const struct ucred *)CMSG_DATA(control);

	if (control->cmsg_type == SCM_CREDENTIALS)
		fprintf(out, " from %d %u %u", sender->pid, sender->uid, sender->gid);
	for (size_t i = 0; control->cmsg_type == SCM_RIGHTS && i < (control->cmsg_len - CMSG_LEN(0)) / 4;
	     i++) {
		struct stat found;

		assert_int_equal(fstat(fds[i], &found), 0);
		fprintf(out, " fd %ld:%ld", (long)found.st_ino, (long)found.st_size);
		close(fds[i]);
	}
}

/* Reads everything that a socket has, at most `size` bytes at a time, and describes it. To be freed. */
static char *read_queue(int fd, size_t size, bool wants_sender)
{
	char *text, bytes[100000], control[4096];
	struct sockaddr_un name;
	size_t length;
	ssize_t got;
	FILE *out = open_memstream(&text, &length);

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &(int){ wants_sender }, sizeof(int)), 0);
	for (;;) {
		struct iovec vector = { bytes, size };
		struct msghdr message = { &name, sizeof(name), &vector, 1, control, sizeof(control), 0 };
		uint32_t sum = 0;

		got = recvmsg(fd, &message, MSG_DONTWAIT);
		if (got < 0 || (!got && !message.msg_controllen && wants_sender))
			break;
		for (ssize_t i = 0; i < got; i++)
			sum = sum * 31 + (unsigned char)bytes[i];
		fprintf(out, "%zd %x flags %x", got, sum, message.msg_flags);
		if (message.msg_namelen > 2)
			fprintf(out, " name %d %s", message.msg_namelen, name.sun_path + !name.sun_path[0]);
		for (struct cmsghdr *at = CMSG_FIRSTHDR(&message); at; at = CMSG_NXTHDR(&message, at))
			describe_control(at, out);
		fprintf(out, "\n");
	}
	fclose(out);
	return text;
}

/* ---- dump and restore ---- */

static void be_socket(struct file *file)
{
	file->kind = &file_kind_pipe;
	if (!file->entry)
		file->entry = message_new(FileEntry, file_entry);
	file->entry->type = FD_TYPES__UNIXSK;
}

static struct file *add_socket(int fd)
{
	struct file *file;

	assert_int_equal(files_identify(&snapshot, fcntl(fd, F_DUPFD_CLOEXEC, 0), &file), 0);
	be_socket(file);
	return file;
}

static void is_fine(int result)
{
	if (result < 0)
		fail_msg("%s", failure_text());
}

static int type_of(int fd)
{
	int type = 0;
	socklen_t size = sizeof(type);

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 ? -1 : type;
}

static void save(int fd, struct file **file)
{
	*file = add_socket(fd);
	is_fine(socket_queue_note(&snapshot, *file, fd, type_of(fd)));
	is_fine(socket_queues_hold(&snapshot));
	is_fine(socket_queues_save(&snapshot));
	/* As on restore: the files are open, and of a kind. */
	for (size_t i = 0; i < snapshot.file_count; i++) {
		struct file *flight = snapshot.files[i];

		flight->kind = &file_kind_pipe;
		flight->fd = flight->seen->fd;
	}
}

static void restore(struct file *file, struct socket_delivery *delivery, int type)
{
	struct socket_queue *queue;

	is_fine(socket_queues_load(&snapshot));
	is_fine(socket_queue_check(&snapshot, file->id, type));
	queue = socket_queue_find(&snapshot, file->id);
	delivery->receiver = file;
	if (queue)
		is_fine(socket_queue_fill(&snapshot, queue, delivery));
}

static int get_int(int fd, int option)
{
	int value = 0;
	socklen_t size = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &size) < 0 ? -77 : value;
}

/* Sends to a pair, and compares what its receiver reads with what a restored one reads. */
static void is_restored(int type, void (*send_all)(int fd), size_t size, bool wants_sender, bool has_sender)
{
	struct socket_delivery delivery = { .address_size = 0 };
	int ends[2], again[2];
	autofree char *text = NULL, *text_again = NULL;
	struct file *file;

	begin(NULL);
	assert_int_equal(socketpair(AF_UNIX, type, 0, ends), 0);
	assert_int_equal(socketpair(AF_UNIX, type, 0, again), 0);
	if (has_sender)
		assert_int_equal(setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &(int){ 1 }, sizeof(int)), 0);
	assert_int_equal(setsockopt(ends[1], SOL_SOCKET, SO_PEEK_OFF, &(int){ 3 }, sizeof(int)), 0);
	send_all(ends[0]);
	save(ends[1], &file);
	assert_int_equal(get_int(ends[1], SO_PEEK_OFF), 3);
	assert_int_equal(get_int(ends[1], SO_PASSCRED), has_sender);
	delivery.peer = again[0];
	restore(file, &delivery, type);
	text = read_queue(ends[1], size, wants_sender);
	text_again = read_queue(again[1], size, wants_sender);
	assert_true(text[0]);
	assert_string_equal(text_again, text);
	for (int i = 0; i < 2; i++) {
		close(ends[i]);
		close(again[i]);
	}
	end(NULL);
}

static void try_all(int type, void (*send_all)(int fd))
{
	static const size_t sizes[] = { 1, 3, 4096 };

	for (size_t i = 0; i < array_size(sizes) * 4; i++)
		is_restored(type, send_all, sizes[i / 4], i & 1, i & 2);
}

static void send_some(int fd)
{
	char large[50000];

	for (size_t i = 0; i < sizeof(large); i++)
		large[i] = i * 7 >> 3;
	send_message(fd, "a", 1, NOBODY, 0);
	send_message(fd, "bbb", 3, NOBODY, 1);
	send_message(fd, "cc", 2, MYSELF, 0);
	send_message(fd, "dddddd", 6, MYSELF, 253);
	send_message(fd, "e", 1, NOBODY, 0);
	send_message(fd, "f", 1, NOBODY, 2);
	send_message(fd, "g", 1, NOBODY, 3);
	send_message(fd, large, 10000, MYSELF, 0);
	send_message(fd, large, sizeof(large), NOBODY, 0);
}

/* The sender has ended before its message is saved. */
static void send_by_another(int fd)
{
	for (int i = 0; i < 2; i++) {
		pid_t child = fork();

		if (!child) {
			send_message(fd, "by another", 10, MYSELF, 0);
			send_message(fd, "and again", 9, MYSELF, 1);
			send_message(fd, "and anonymously", 15, NOBODY, 1);
			_exit(0);
		}
		assert_int_equal(waitpid(child, NULL, 0), child);
	}
}

static void send_empty(int fd)
{
	send_message(fd, "", 0, NOBODY, 0);
	send_message(fd, "", 0, MYSELF, 0);
	send_message(fd, "x", 1, NOBODY, 0);
	send_message(fd, "", 0, NOBODY, 1);
	send_message(fd, "", 0, MYSELF, 2);
	send_message(fd, "yy", 2, NOBODY, 0);
	send_message(fd, "", 0, NOBODY, 0);
}

static void send_only_empty(int fd)
{
	send_message(fd, "", 0, NOBODY, 0);
}

/* More than what is peeked at once: the packet with descriptors begins before that limit, and ends behind it. */
static void send_large(int fd)
{
	static char large[600000];
	const int size = 4 << 20;

	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
		assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)), 0);
	for (size_t i = 0; i < sizeof(large); i++)
		large[i] = i * 31 >> 5;
	send_message(fd, large, (256 << 10) - 3, NOBODY, 0);
	send_message(fd, large, 9, NOBODY, 2);
	send_message(fd, large, 10, NOBODY, 0);
	send_message(fd, large, sizeof(large), MYSELF, 1);
	send_message(fd, large, 11, NOBODY, 0);
}

static void stream(void **state unused)
{
	is_restored(SOCK_STREAM, send_large, 100000, false, false);
	is_restored(SOCK_STREAM, send_large, 777, true, true);
	try_all(SOCK_STREAM, send_some);
	if (!getuid())
		try_all(SOCK_STREAM, send_by_another);
}

static void datagrams(void **state unused)
{
	try_all(SOCK_DGRAM, send_some);
	try_all(SOCK_DGRAM, send_empty);
	try_all(SOCK_DGRAM, send_only_empty);
	is_restored(SOCK_DGRAM, send_large, 100000, true, false);
	if (!getuid())
		try_all(SOCK_DGRAM, send_by_another);
}

static void packets(void **state unused)
{
	try_all(SOCK_SEQPACKET, send_some);
	if (!getuid())
		try_all(SOCK_SEQPACKET, send_by_another);
	/* A read of 0 bytes looks like the end, if it shows no sender. */
	is_restored(SOCK_SEQPACKET, send_empty, 10, true, true);
	is_restored(SOCK_SEQPACKET, send_only_empty, 10, true, false);
}

/* ---- more than one sender ---- */

static struct sockaddr_un address_of(const char *name, socklen_t *size)
{
	struct sockaddr_un address = { AF_UNIX, "" };

	memcpy(address.sun_path, name, strlen(name));
	if (name[0] == '@')
		address.sun_path[0] = '\0';
	*size = offsetof(struct sockaddr_un, sun_path) + strlen(name) + (name[0] != '@');
	return address;
}

static int bound(const char *name)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	socklen_t size;
	struct sockaddr_un address = address_of(name, &size);

	if (name[0])
		assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
	return fd;
}

static int living, asked;

static int find_living(void *context unused, const void *name, size_t size)
{
	asked++;
	return size == 7 && !memcmp(name, "\0living", 7) ? living : -1;
}

/* A receiver with a path; senders with a path that is gone, one that another has now, abstract, and without a name. */
static void names(void **state unused)
{
	static const char *const senders[] = { "/tmp/queue-test-gone", "@gone", "", "@living",
					       "/tmp/queue-test-used", "@gone" };
	struct socket_delivery delivery = { .peer = -1, .find_sender = find_living };
	int receiver = bound("@queue-test-receiver"), again = bound("@queue-test-again");
	autofree char *text = NULL, *text_again = NULL;
	struct sockaddr_un to;
	struct file *file;
	socklen_t size;

	if (getuid())
		skip();
	to = address_of("@queue-test-receiver", &size);
	for (size_t i = 0; i < array_size(senders); i++) {
		int sender = bound(senders[i]);

		assert_int_equal(sendto(sender, senders[i], i + 1, 0, (struct sockaddr *)&to, size), i + 1);
		close(sender);
		if (senders[i][0] == '/')
			unlink(senders[i]);
	}
	save(receiver, &file);
	living = bound("@living");
	close(bound("/tmp/queue-test-used")); /* a file stays at the path */
	to = address_of("@queue-test-again", &delivery.address_size);
	memcpy(&delivery.address, &to, sizeof(to));
	asked = 0;
	restore(file, &delivery, SOCK_DGRAM);
	unlink("/tmp/queue-test-used");
	assert_int_equal(access("/tmp/queue-test-gone", F_OK), -1);
	assert_int_equal(asked, 5);
	assert_true(socket_unread_by_others(living) > 0);
	text = read_queue(receiver, 100, false);
	text_again = read_queue(again, 100, false);
	assert_non_null(strstr(text, "living"));
	assert_string_equal(text_again, text);
	close(living);
	close(receiver);
	close(again);
}

/* A socket in flight in its own queue, and two in those of each other. */
static void cycle(void **state unused)
{
	struct socket_delivery delivery = { .address_size = 0 };
	int ends[2], again[2];
	char control[CMSG_SPACE(sizeof(int))] = "";
	struct cmsghdr *header = (struct cmsghdr *)control;
	struct iovec vector = { "self", 4 };
	struct msghdr message = {
		.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
	};
	autofree char *text = NULL;
	struct file *file;

	socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
	socketpair(AF_UNIX, SOCK_STREAM, 0, again);
	*header = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(header), &ends[1], sizeof(int));
	assert_int_equal(sendmsg(ends[0], &message, 0), 4);
	save(ends[1], &file);
	assert_int_equal(snapshot.file_count, 1);
	assert_true(file->is_in_flight);
	file->fd = again[1];
	delivery.peer = again[0];
	restore(file, &delivery, SOCK_STREAM);
	text = read_queue(again[1], 10, false);
	assert_non_null(strstr(text, " fd "));
	for (int i = 0; i < 2; i++) {
		close(ends[i]);
		close(again[i]);
	}
}

/* ---- what is refused ---- */

static void is_refused(int fd, const char *word)
{
	struct file *file = add_socket(fd);
	int result = socket_queue_note(&snapshot, file, fd, type_of(fd)) ?: socket_queues_hold(&snapshot);
	char text[1000];

	assert_int_equal(unless_refused(result), 0);
	failure_report(text, sizeof(text), NULL, NULL);
	if (!strstr(text, word))
		fail_msg("no '%s': %s", word, text);
	failure_clear();
}

static void refusals_of_queues(void **state unused)
{
	int ends[2];

	socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
	assert_int_equal(send(ends[0], "abc", 3, MSG_OOB), 3);
	is_refused(ends[1], "urgent data");
	socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends);
	assert_int_equal(send(ends[0], "abc", 3, 0) + send(ends[1], "d", 1, 0), 4);
	close(ends[0]);
	assert_true(socket_has_error(ends[1]));
	is_refused(ends[1], "an error");
	assert_true(socket_has_error(ends[1]));
	socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
	if (setsockopt(ends[1], SOL_SOCKET, SO_PASSPIDFD, &(int){ 1 }, sizeof(int)) == 0) {
		send_message(ends[0], "abc", 3, MYSELF, 0);
		is_refused(ends[1], "SO_PASSPIDFD");
	}
	if (setsockopt(ends[0], SOL_SOCKET, SCM_INQ, &(int){ 1 }, sizeof(int)) == 0) {
		send_message(ends[1], "abc", 3, NOBODY, 0);
		is_refused(ends[0], "SO_INQ");
	}
}

/* A stream that was closed with unread data has an error, which a dump does not clear. */
static void error_stays(void **state unused)
{
	struct file *file;
	int ends[2];

	socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
	assert_int_equal(send(ends[0], "abc", 3, 0) + send(ends[1], "d", 1, 0), 4);
	close(ends[0]);
	save(ends[1], &file);
	assert_true(socket_has_error(ends[1]));
	close(ends[1]);
}

/* ---- forged images ---- */

static struct file *receiver_in_image(void)
{
	struct file *file = snapshot_add_file(&snapshot, snapshot.file_count + 1);

	be_socket(file);
	return file;
}

static void write_image(const SkPacketEntry *entry, size_t bytes)
{
	struct image *image;
	char zeros[100] = "";

	assert_int_equal(image_create(snapshot.images, &image, IMAGE_SK_QUEUES, 0), 0);
	assert_int_equal(image_write(image, &entry->base), 0);
	assert_int_equal(image_write_bytes(image, zeros, bytes), 0);
	assert_int_equal(image_close(image), 0);
}

static void is_invalid(const SkPacketEntry *entry, size_t bytes, int type, const char *word)
{
	write_image(entry, bytes);
	assert_true((socket_queues_load(&snapshot) ?:
			     socket_queue_check(&snapshot, snapshot.files[0]->id, type)) < 0);
	if (!strstr(failure_text(), "sk-queues.img") || !strstr(failure_text(), word))
		fail_msg("no '%s': %s", word, failure_text());
	socket_queues_close(&snapshot);
	failure_clear();
}

static void forged(void **state unused)
{
	SkPacketEntry entry;
	SkSenderEntry sender = SK_SENDER_ENTRY__INIT;
	unsigned char name[200] = "";

	receiver_in_image();
	receiver_in_image()->entry->type = FD_TYPES__PIPE;
#define possible                       \
	sk_packet_entry__init(&entry); \
	entry.id_for = 1;              \
	entry.length = 5
	possible;
	entry.id_for = 9;
	is_invalid(&entry, 5, SOCK_DGRAM, "no socket");
	entry.id_for = 2;
	is_invalid(&entry, 5, SOCK_DGRAM, "no socket");
	possible;
	is_invalid(&entry, 4, SOCK_DGRAM, "torn");
	entry.length = UINT32_MAX;
	is_invalid(&entry, 5, SOCK_DGRAM, "torn");
	entry.length = 0;
	is_invalid(&entry, 0, SOCK_STREAM, "empty");
	possible;
	entry.has_name = true;
	is_invalid(&entry, 5, SOCK_DGRAM, "name");
	entry.name = (ProtobufCBinaryData){ sizeof(name), name };
	is_invalid(&entry, 5, SOCK_DGRAM, "name");
	entry.name.len = 3;
	is_invalid(&entry, 5, SOCK_SEQPACKET, "names its sender");
	possible;
	entry.sender = &sender;
	is_invalid(&entry, 5, SOCK_DGRAM, "sender");
	sender.pid = 1U << 31;
	is_invalid(&entry, 5, SOCK_DGRAM, "sender");
	sender.pid = 1;
	sender.gid = UINT32_MAX;
	is_invalid(&entry, 5, SOCK_DGRAM, "sender");
}

static void forged_rights(void **state unused)
{
	SkPacketEntry entry;
	ScmEntry rights = SCM_ENTRY__INIT, *scm[2] = { &rights, &rights };
	uint32_t ids[254];

	receiver_in_image();
	receiver_in_image()->kind = &file_kind_epoll;
	for (size_t i = 0; i < array_size(ids); i++)
		ids[i] = 1;
	possible;
	entry.scm = scm;
	entry.n_scm = 1;
	is_invalid(&entry, 5, SOCK_DGRAM, "control message");
	rights.type = SCM_RIGHTS;
	rights.rights = ids;
	rights.n_rights = 254;
	is_invalid(&entry, 5, SOCK_DGRAM, "254 descriptors");
	rights.n_rights = 1;
	entry.n_scm = 2;
	is_invalid(&entry, 5, SOCK_DGRAM, "2 control messages");
	entry.n_scm = 1;
	ids[0] = 77;
	is_invalid(&entry, 5, SOCK_DGRAM, "descriptor of file 77");
	ids[0] = 2;
	is_invalid(&entry, 5, SOCK_DGRAM, "descriptor of file 2");
	ids[0] = 1;
	write_image(&entry, 5);
	assert_int_equal(socket_queues_load(&snapshot), 0);
	snapshot.files[0]->is_only_path = true; /* that is known later */
	assert_true(socket_queue_check(&snapshot, snapshot.files[0]->id, SOCK_DGRAM) < 0);
	assert_non_null(strstr(failure_text(), "never opened"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stream),
		cmocka_unit_test(datagrams),
		cmocka_unit_test(packets),
		cmocka_unit_test_setup_teardown(names, begin, end),
		cmocka_unit_test_setup_teardown(cycle, begin, end),
		cmocka_unit_test_setup_teardown(refusals_of_queues, begin, end),
		cmocka_unit_test_setup_teardown(error_stays, begin, end),
		cmocka_unit_test_setup_teardown(forged, begin, end),
		cmocka_unit_test_setup_teardown(forged_rights, begin, end),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
