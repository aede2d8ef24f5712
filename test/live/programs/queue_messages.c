/*
 * queue_messages.c - unread messages of unix sockets: their bytes and borders, names and credentials of their senders,
 * and descriptors in flight.
 *
 * usage: queue_messages DIRECTORY stream|datagrams|packets|empty|named|users|half|many|deep|self|alone|reaped|late
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

#define LARGE 40000

/* A message as it was sent, or is expected. */
struct message {
	size_t size;
	uint64_t seed;	   /* of its bytes */
	pid_t pid;	   /* 0: no credentials */
	uid_t uid;	   /* expected with them */
	const char *name;  /* expected: a path, '@' and an abstract name, or "" */
	int fds[3];	   /* in flight; 0: none */
	const char *files; /* what they are: e eventfd, r regular file, p pipe, s stream socket */
};

static char large[4 * LARGE];

static void pair(int type, int *ends)
{
	live_check(socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, ends) == 0, "socketpair: %m");
}

static void set(int fd, int option, int value)
{
	live_check(setsockopt(fd, SOL_SOCKET, option, &value, sizeof(value)) == 0, "socket option %d: %m",
		   option);
}

static void *add_control(struct msghdr *message, int type, const void *data, size_t size)
{
	struct cmsghdr *control = (void *)((char *)message->msg_control + message->msg_controllen);

	*control = (struct cmsghdr){ CMSG_LEN(size), SOL_SOCKET, type };
	message->msg_controllen += CMSG_SPACE(size);
	return memcpy(CMSG_DATA(control), data, size);
}

static void send_it(int fd, const struct message *sent, const struct sockaddr_un *to, socklen_t to_size)
{
	char control[200] = "";
	struct iovec bytes = { large, sent->size };
	struct msghdr message = { (void *)to, to_size, &bytes, 1, control, 0, 0 };
	struct ucred self = { getpid(), geteuid(), getegid() };
	int count = 0;

	live_fill(large, (sent->size + 7) & ~7UL, sent->seed);
	if (sent->pid)
		add_control(&message, SCM_CREDENTIALS, &self, sizeof(self));
	while (count < 3 && sent->fds[count])
		count++;
	if (count)
		add_control(&message, SCM_RIGHTS, sent->fds, count * sizeof(int));
	if (!message.msg_controllen)
		message.msg_control = NULL;
	live_check(sendmsg(fd, &message, 0) == (ssize_t)sent->size, "sendmsg: %m");
}

/* A child sends, and is gone. Returns its pid. */
static pid_t send_from_child(int fd, const struct message *sent, size_t count, uid_t uid)
{
	pid_t child = fork();

	live_check(child >= 0, "fork: %m");
	if (!child) {
		if (uid)
			live_check(setgroups(0, NULL) == 0 && setresgid(uid, uid, uid) == 0 &&
					   setresuid(uid, uid, uid) == 0,
				   "setresuid: %m");
		for (size_t i = 0; i < count; i++)
			send_it(fd, &sent[i], NULL, 0);
		_exit(0);
	}
	live_check(waitpid(child, NULL, 0) == child, "waitpid: %m");
	return child;
}

/* The letter of the kind of a file that was received; it is used and closed. */
static char try_file(int fd)
{
	struct stat found;
	uint64_t counter;
	char byte;

	live_check(fstat(fd, &found) == 0, "a received descriptor: %m");
	if (S_ISREG(found.st_mode)) {
		live_check(lseek(fd, 0, SEEK_CUR) == 5, "the file in flight is at %ld",
			   (long)lseek(fd, 0, SEEK_CUR));
		live_check(read(fd, &byte, 1) == 1 && byte == '5', "the file in flight has another content");
		lseek(fd, 5, SEEK_SET);
		return close(fd) ? '?' : 'r';
	}
	if (S_ISFIFO(found.st_mode))
		return close(fd) ? '?' : 'p';
	if (S_ISSOCK(found.st_mode))
		return close(fd) ? '?' : 's';
	live_check(read(fd, &counter, 8) == 8 && counter == 7 && write(fd, &counter, 8) == 8, "eventfd: %m");
	return close(fd) ? '?' : 'e';
}

/* Reads up to `size` bytes, and returns how many there were. Control messages must be as expected. */
static size_t receive(int fd, const struct message *expected, void *buffer, size_t size, bool is_begin)
{
	char control[300], *files = (char[8]){ "" };
	struct sockaddr_un name = { 0 };
	struct iovec bytes = { buffer, size };
	struct msghdr message = { &name, sizeof(name), &bytes, 1, control, sizeof(control), 0 };
	struct ucred sender = { 0 };
	ssize_t got = recvmsg(fd, &message, 0);
	int count = 0;

	live_check(got >= 0, "recvmsg, %zu bytes of %ld: %m", expected->size, (long)expected->seed);
	live_check(!(message.msg_flags & (MSG_CTRUNC | MSG_TRUNC)), "a message was truncated: %x",
		   message.msg_flags);
	for (struct cmsghdr *at = CMSG_FIRSTHDR(&message); at; at = CMSG_NXTHDR(&message, at)) {
		if (at->cmsg_type == SCM_CREDENTIALS)
			memcpy(&sender, CMSG_DATA(at), sizeof(sender));
		for (size_t i = 0; at->cmsg_type == SCM_RIGHTS && i < (at->cmsg_len - CMSG_LEN(0)) / 4; i++)
			files[count++] = try_file(((int *)CMSG_DATA(at))[i]);
	}
	live_check(!strcmp(files, is_begin && expected->files ? expected->files : ""),
		   "message %ld has descriptors '%s', not '%s'", (long)expected->seed, files,
		   expected->files);
	live_check(sender.pid == expected->pid && (!sender.pid || (sender.uid == expected->uid)),
		   "message %ld is of process %d, user %d, not of process %d, user %d", (long)expected->seed,
		   sender.pid, sender.uid, expected->pid, expected->uid);
	if (expected->name) {
		if (!name.sun_path[0] && message.msg_namelen > 2)
			name.sun_path[0] = '@';
		live_check(!strcmp(name.sun_path, expected->name), "message %ld is from '%s', not '%s'",
			   (long)expected->seed, name.sun_path, expected->name);
	}
	return got;
}

/* A stream is read in pieces of some bytes at most; other sockets message by message. */
static void receive_all(int fd, const struct message *expected, size_t count, size_t piece)
{
	static char buffer[4 * LARGE];

	for (size_t i = 0; i < count; i++) {
		size_t got = 0;

		do {
			size_t want = piece ? (piece < expected[i].size - got ? piece :
										expected[i].size - got) :
					      sizeof(buffer);
			size_t more = receive(fd, &expected[i], buffer + got, want, !got);

			live_check(!piece || more == want, "message %zu: %zu bytes, not %zu", i, more, want);
			got += more;
		} while (piece && got < expected[i].size);
		live_check(got == expected[i].size, "message %zu has %zu bytes, not %zu", i, got,
			   expected[i].size);
		live_compare(buffer, got & ~7UL, expected[i].seed, "a message");
	}
	live_check(recv(fd, buffer, 1, 0) <= 0, "one message too many");
}

/* ---- one sender, or some that are gone ---- */

static int ends[8][2], regular, event, fifo[2];
static struct message plan[40];
static size_t planned, piece;

static void make_files(void)
{
	char path[4096];

	live_path(path, sizeof(path), "flight");
	regular = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	live_check(regular >= 0 && write(regular, "0123456789", 10) == 10 && lseek(regular, 5, SEEK_SET) == 5,
		   "%s: %m", path);
	event = eventfd(7, 0);
	live_check(pipe(fifo) == 0, "pipe: %m");
}

static void plan_it(size_t size, bool has_sender, const char *files)
{
	struct message *message = &plan[planned++];

	*message = (struct message){ .size = size,
				     .seed = planned,
				     .pid = has_sender ? getpid() : 0,
				     .uid = geteuid(),
				     .files = files };
	for (size_t i = 0; files && files[i]; i++)
		message->fds[i] = files[i] == 'r' ? regular : files[i] == 'e' ? event : fifo[files[i] == 'p'];
}

/* With credentials that differ, so that no two are read as one. */
static void set_up_pair(int type, size_t least)
{
	make_files();
	pair(type, ends[0]);
	set(ends[0][1], SO_PASSCRED, 1); /* all of this process's messages have a sender */
	for (int i = 0; i < 3; i++) {
		size_t first;

		plan_it(8 + least, true, NULL);
		plan_it(least, true, "r");
		plan_it(i * 1000 + 24, true, NULL);
		plan_it(16, true, "eer");
		for (size_t j = planned - 4; j < planned; j++)
			send_it(ends[0][0], &plan[j], NULL, 0);
		first = planned;
		plan_it(LARGE / 3 * i + 8, true, NULL);
		plan_it(32, true, "p");
		plan[first].pid = plan[first + 1].pid = send_from_child(ends[0][0], &plan[first],
									planned - first, 0);
	}
}

static void set_up_stream(void)
{
	piece = 7;
	set_up_pair(SOCK_STREAM, 8);
}

static void set_up_datagrams(void)
{
	set_up_pair(SOCK_DGRAM, 8);
}

static void set_up_packets(void)
{
	set_up_pair(SOCK_SEQPACKET, 8);
}

/* A read that returns 0 is no end. */
static void set_up_empty(void)
{
	make_files();
	for (int i = 0; i < 2; i++) {
		pair(i ? SOCK_SEQPACKET : SOCK_DGRAM, ends[i]);
		set(ends[i][1], SO_PASSCRED, 1);
	}
	plan_it(0, true, NULL);
	plan_it(0, true, "r");
	plan_it(8, true, NULL);
	plan_it(0, true, NULL);
	plan_it(0, true, "er");
	for (size_t i = 0; i < 2 * planned; i++)
		send_it(ends[i / planned][0], &plan[i % planned], NULL, 0);
}

static void check_empty(void)
{
	for (int i = 0; i < 2; i++)
		receive_all(ends[i][1], plan, planned, 0);
}

static void check_pair(void)
{
	receive_all(ends[0][1], plan, planned, piece);
}

/* ---- users ---- */

static void set_up_users(void)
{
	pair(SOCK_SEQPACKET, ends[0]);
	set(ends[0][1], SO_PASSCRED, 1);
	for (int i = 0; i < 4; i++) {
		plan_it(8 + i, true, NULL);
		plan[i].uid = 1000 + i / 2;
		plan[i].pid = send_from_child(ends[0][0], &plan[i], 1, plan[i].uid);
	}
	/* Before anybody wanted to know the sender. */
	set(ends[0][1], SO_PASSCRED, 0);
	plan_it(9, false, NULL);
	plan[4].pid = 0;
	plan[4].uid = 65534;
	send_it(ends[0][0], &plan[4], NULL, 0);
	set(ends[0][1], SO_PASSCRED, 1);
}

/* ---- names ---- */

static int server;
static char server_path[100], own_path[100], gone_path[100];
static int clients[3];

static socklen_t make_address(struct sockaddr_un *address, const char *name)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	strcpy(address->sun_path, name);
	if (name[0] == '@')
		address->sun_path[0] = '\0';
	return offsetof(struct sockaddr_un, sun_path) + strlen(name) + (name[0] != '@');
}

static int bound(const char *name)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	struct sockaddr_un address;
	socklen_t size = make_address(&address, name);

	live_check(fd >= 0 && (!name[0] || bind(fd, (struct sockaddr *)&address, size) == 0), "bind %s: %m",
		   name);
	return fd;
}

static void send_named(int fd, const char *name, size_t size)
{
	struct sockaddr_un address;
	socklen_t address_size = make_address(&address, server_path);

	plan_it(size, false, NULL);
	plan[planned - 1].name = name;
	send_it(fd, &plan[planned - 1], &address, address_size);
}

static void set_up_named(void)
{
	static char lives[40], lost[40];

	live_path(server_path, sizeof(server_path), "server");
	live_path(own_path, sizeof(own_path), "own");
	live_path(gone_path, sizeof(gone_path), "gone");
	snprintf(lives, sizeof(lives), "@queue lives %d", getpid());
	snprintf(lost, sizeof(lost), "@queue lost %d", getpid());
	server = bound(server_path);
	clients[0] = bound(own_path);
	clients[1] = bound("");
	clients[2] = bound(lives);
	for (int i = 0; i < 2; i++) {
		int gone = bound(gone_path), abstract = bound(lost);

		send_named(clients[0], own_path, 8);
		send_named(gone, gone_path, 16);
		send_named(clients[1], "", 24);
		send_named(abstract, lost, 0);
		send_named(clients[2], lives, 40);
		close(gone);
		close(abstract);
		unlink(gone_path);
	}
}

static void check_named(void)
{
	int left = -1;

	live_check(access(gone_path, F_OK) < 0, "a file was left at %s", gone_path);
	live_check(ioctl(clients[0], TIOCOUTQ, &left) == 0 && left > 0,
		   "the living sender has nothing in flight");
	receive_all(server, plan, planned, 0);
	live_check(ioctl(clients[0], TIOCOUTQ, &left) == 0 && left == 0, "the living sender has %d in flight",
		   left);
	live_check(listen(server, 1) < 0, "it listens");
	planned = 0;
	send_named(clients[2], plan[4].name, 48);
	receive_all(server, plan, 1, 0);
}

/* ---- ends that were shut down, or closed ---- */

static void set_up_half(void)
{
	static const int types[] = { SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM };

	make_files();
	plan_it(24, false, "r");
	plan_it(LARGE, false, NULL);
	for (int i = 0; i < 6; i++) {
		pair(types[i % 3], ends[i]);
		for (int j = 0; j < 2; j++)
			send_it(ends[i][0], &plan[j], NULL, 0);
		if (i < 3)
			live_check(shutdown(ends[i][0], SHUT_WR) == 0, "shutdown: %m");
		else
			close(ends[i][0]);
	}
	pair(SOCK_STREAM, ends[6]);
	send_it(ends[6][0], &plan[1], NULL, 0);
	live_check(shutdown(ends[6][1], SHUT_RDWR) == 0, "shutdown: %m"); /* what is there can be read */
}

static void check_half(void)
{
	char byte;

	for (int i = 0; i < 6; i++) {
		receive_all(ends[i][1], plan, 2, i % 3 ? 0 : 4096);
		live_check(i % 3 == 2 || recv(ends[i][1], &byte, 1, 0) == 0, "pair %d has not ended: %m", i);
		live_check(i % 3 == 2 || send(ends[i][i < 3 ? 0 : 1], "x", 1, MSG_NOSIGNAL) < 0,
			   "it can be sent");
	}
	receive_all(ends[6][1], plan + 1, 1, 4096);
	live_check(recv(ends[6][1], &byte, 1, 0) == 0, "the socket that was shut down has not ended: %m");
}

/* ---- full queues ---- */

static int sent_datagrams, sent_bytes;

static void set_up_many(void)
{
	struct sockaddr_un address;
	socklen_t size;

	live_path(server_path, sizeof(server_path), "server");
	server = bound(server_path);
	size = make_address(&address, server_path);
	clients[0] = bound("");
	for (sent_datagrams = 0;; sent_datagrams++)
		if (sendto(clients[0], &sent_datagrams, 4, 0, (struct sockaddr *)&address, size) != 4)
			break;
	live_check(errno == EAGAIN, "sendto: %m");
	pair(SOCK_STREAM, ends[0]);
	set(ends[0][0], SO_SNDBUF, 1 << 20);
	for (sent_bytes = 0;; sent_bytes += 4)
		if (send(ends[0][0], &sent_bytes, 4, 0) != 4)
			break;
	live_check(errno == EAGAIN && sent_bytes > 1000, "send, %d bytes: %m", sent_bytes);
	pair(SOCK_DGRAM, ends[1]);
	for (sent_bytes /= 4, planned = 0; send(ends[1][0], large, 3000, 0) == 3000;)
		planned++;
	sent_bytes *= 4;
}

static void check_many(void)
{
	int number = 0;
	socklen_t size = sizeof(number);

	live_check(getsockopt(ends[0][1], SOL_SOCKET, SO_PEEK_OFF, &number, &size) == 0 && number == -1,
		   "SO_PEEK_OFF is %d", number);
	live_check(getsockopt(ends[0][1], SOL_SOCKET, SO_PASSCRED, &number, &size) == 0 && number == 0,
		   "SO_PASSCRED is %d", number);
	for (int i = 0; i < sent_datagrams; i++)
		live_check(recv(server, &number, 4, 0) == 4 && number == i, "datagram %d is %d: %m", i,
			   number);
	live_check(recv(server, &number, 4, 0) < 0, "one datagram too many");
	for (int i = 0; i < sent_bytes; i += 4)
		live_check(recv(ends[0][1], &number, 4, 0) == 4 && number == i, "byte %d: %d: %m", i, number);
	live_check(recv(ends[0][1], &number, 4, 0) < 0, "bytes too many");
	for (size_t i = 0; i < planned; i++)
		live_check(recv(ends[1][1], large, 4000, 0) == 3000, "datagram %zu: %m", i);
	live_check(recv(ends[1][1], large, 4000, 0) < 0, "datagrams too many");
	live_check(send(ends[0][0], "x", 1, 0) == 1 && send(ends[1][0], "x", 1, 0) == 1, "send: %m");
}

/* ---- sockets in flight ---- */

static void send_fd(int fd, int flight, const char *bytes)
{
	char control[CMSG_SPACE(4)] = "";
	struct iovec vector = { (void *)bytes, strlen(bytes) };
	struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control };

	add_control(&message, SCM_RIGHTS, &flight, sizeof(flight));
	live_check(sendmsg(fd, &message, 0) == (ssize_t)strlen(bytes), "sendmsg: %m");
}

static int receive_fd(int fd, const char *expected)
{
	char control[CMSG_SPACE(4)], bytes[64];
	struct iovec vector = { bytes, sizeof(bytes) };
	struct msghdr message = {
		.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
	};
	ssize_t got = recvmsg(fd, &message, 0);

	live_check(got == (ssize_t)strlen(expected) && !memcmp(bytes, expected, got), "'%s' is '%.*s': %m",
		   expected, (int)got, bytes);
	live_check(message.msg_controllen == CMSG_LEN(4) || message.msg_controllen == CMSG_SPACE(4),
		   "'%s' has no descriptor", expected);
	return *(int *)CMSG_DATA(CMSG_FIRSTHDR(&message));
}

/* Each receiver is in flight in the next one, and no process has it open. */
static void set_up_deep(void)
{
	make_files();
	for (int i = 0; i < 4; i++)
		pair(i & 1 ? SOCK_STREAM : SOCK_SEQPACKET, ends[i]);
	send_fd(ends[0][0], regular, "the file");
	for (int i = 1; i < 4; i++) {
		send_fd(ends[i][0], ends[i - 1][1], "a socket");
		close(ends[i - 1][1]);
	}
}

static void check_deep(void)
{
	int fd = ends[3][1];

	for (int i = 0; i < 3; i++)
		fd = receive_fd(fd, "a socket");
	fd = receive_fd(fd, "the file");
	live_check(try_file(fd) == 'r', "it is no file");
}

static void set_up_self(void)
{
	for (int i = 0; i < 3; i++)
		pair(SOCK_STREAM, ends[i]);
	send_fd(ends[0][0], ends[0][1], "itself");
	send_fd(ends[0][0], ends[0][0], "its peer");
	send_fd(ends[1][0], ends[2][1], "the other");
	send_fd(ends[2][0], ends[1][1], "and back");
}

static void check_self(void)
{
	int self = receive_fd(ends[0][1], "itself"), peer = receive_fd(self, "its peer");
	int other = receive_fd(ends[1][1], "the other"), back = receive_fd(other, "and back");
	char text[6];

	live_check(send(peer, "self!", 5, 0) == 5 && recv(ends[0][1], text, 6, 0) == 5, "another peer: %m");
	live_check(send(ends[1][0], "back!", 5, 0) == 5 && recv(back, text, 6, 0) == 5, "another socket: %m");
}

/* No process has these files open. */
static void set_up_alone(void)
{
	uint64_t large_number = 1UL << 40;
	int end[2];

	make_files();
	pair(SOCK_DGRAM, ends[0]);
	send_fd(ends[0][0], regular, "a file");
	close(regular);
	live_check(pipe2(end, O_NONBLOCK) == 0 && write(end[1], "in the pipe", 11) == 11, "pipe: %m");
	send_fd(ends[0][0], end[0], "a pipe");
	close(end[0]);
	close(end[1]);
	live_check(write(event, &large_number, 8) == 8, "eventfd: %m");
	fcntl(event, F_SETFL, O_NONBLOCK);
	send_fd(ends[0][0], event, "an eventfd");
	close(event);
	end[0] = memfd_create("alone", MFD_ALLOW_SEALING);
	live_check(write(end[0], "memory", 6) == 6 && fcntl(end[0], F_ADD_SEALS, F_SEAL_GROW) == 0,
		   "memfd: %m");
	send_fd(ends[0][0], end[0], "memory");
	close(end[0]);
	pair(SOCK_STREAM, end);
	live_check(send(end[0], "unread", 6, 0) == 6, "send: %m");
	send_fd(ends[0][0], end[1], "a socket");
	close(end[0]);
	close(end[1]);
}

static void check_alone(void)
{
	char text[20];
	uint64_t number;
	int fd = receive_fd(ends[0][1], "a file");

	live_check(try_file(fd) == 'r', "it is no file");
	fd = receive_fd(ends[0][1], "a pipe");
	live_check(read(fd, text, 20) == 11 && read(fd, text, 20) == 0, "the pipe has another content: %m");
	fd = receive_fd(ends[0][1], "an eventfd");
	live_check(read(fd, &number, 8) == 8 && number == (1UL << 40) + 7 && read(fd, &number, 8) < 0,
		   "eventfd: %m");
	fd = receive_fd(ends[0][1], "memory");
	live_check(pread(fd, text, 20, 0) == 6 && !memcmp(text, "memory", 6) && lseek(fd, 0, SEEK_CUR) == 6 &&
			   fcntl(fd, F_GET_SEALS) == F_SEAL_GROW &&
			   (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR,
		   "the memory is another: %m");
	fd = receive_fd(ends[0][1], "a socket");
	live_check(recv(fd, text, 20, 0) == 6 && recv(fd, text, 20, 0) == 0, "the socket in flight: %m");
}

/* ---- only in flight: two pidfds of a process that has been reaped ---- */

static void end_at_once(void)
{
}

static void set_up_reaped(void)
{
	pid_t child = live_fork(end_at_once);

	pair(SOCK_DGRAM, ends[0]);
	for (int i = 0; i < 2; i++) {
		int fd = syscall(SYS_pidfd_open, child, 0);

		live_check(fd >= 0, "pidfd_open: %m");
		send_fd(ends[0][0], fd, "a pidfd");
		close(fd);
	}
	live_check(waitpid(child, NULL, 0) == child, "waitpid: %m");
}

static void check_reaped(void)
{
	for (int i = 0; i < 2; i++) {
		int fd = receive_fd(ends[0][1], "a pidfd");

		live_check(poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, 0) == 1 &&
				   syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) < 0 && errno == ESRCH,
			   "it is not of a process that has ended: %m");
	}
}

/* ---- late: what exists only when the processes do: pidfds, files of /proc; from an end that was closed, too ---- */

static pid_t subject;

static void wait_for_end(void)
{
	signal(SIGTERM, live_stop_child);
	for (;;)
		pause();
}

static void send_pidfd(int socket, pid_t pid)
{
	int fd = syscall(SYS_pidfd_open, pid, 0);

	live_check(fd >= 0, "pidfd_open: %m");
	send_fd(socket, fd, "a pidfd");
	close(fd);
}

static void set_up_late(void)
{
	int file = open("/proc/self/status", O_RDONLY);

	subject = live_fork(wait_for_end);
	pair(SOCK_DGRAM, ends[0]);
	pair(SOCK_STREAM, ends[1]);
	pair(SOCK_SEQPACKET, ends[2]);
	pair(SOCK_STREAM, ends[3]);
	send_pidfd(ends[0][0], subject);
	send_fd(ends[0][0], file, "a file");
	close(file);
	send_pidfd(ends[1][0], getpid());
	send_it(ends[1][0], &(struct message){ .size = 100, .seed = 3 }, NULL, 0);
	live_check(shutdown(ends[1][0], SHUT_WR) == 0, "shutdown: %m");
	send_pidfd(ends[2][0], subject);
	close(ends[2][0]);
	send_fd(ends[3][0], ends[2][1], "a socket");
	close(ends[2][1]);
}

static void check_pidfd(int socket, pid_t wanted)
{
	int fd = receive_fd(socket, "a pidfd");
	char place[64], text[1024] = "", words[32];

	live_check(syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0) == 0,
		   "it is of a process that has ended: %m");
	snprintf(place, sizeof(place), "/proc/self/fdinfo/%d", fd);
	snprintf(words, sizeof(words), "\nPid:\t%d\n", wanted);
	fd = open(place, O_RDONLY);
	live_check(read(fd, text, sizeof(text) - 1) > 0 && strstr(text, words),
		   "it is of another process: %s", text);
	close(fd);
}

static void check_late(void)
{
	char text[4096] = "", words[32];
	int fd;

	check_pidfd(ends[0][1], subject);
	fd = receive_fd(ends[0][1], "a file");
	snprintf(words, sizeof(words), "\nPid:\t%d\n", getpid());
	live_check(pread(fd, text, sizeof(text) - 1, 0) > 0 && strstr(text, words), "another file: %s", text);
	check_pidfd(ends[1][1], getpid());
	live_check(recv(ends[1][1], text, sizeof(text), 0) == 100, "what follows: %m");
	live_check(recv(ends[1][1], text, sizeof(text), 0) == 0, "it was not shut down: %m");
	fd = receive_fd(ends[3][1], "a socket");
	check_pidfd(fd, subject);
	live_check(recv(fd, text, sizeof(text), 0) == 0, "its peer was not closed: %m");
	live_join(subject);
}

static const struct part {
	const char *name;
	void (*set_up)(void);
	void (*check)(void);
} parts[] = {
	{ "stream", set_up_stream, check_pair },   { "datagrams", set_up_datagrams, check_pair },
	{ "packets", set_up_packets, check_pair }, { "empty", set_up_empty, check_empty },
	{ "users", set_up_users, check_pair },	   { "named", set_up_named, check_named },
	{ "half", set_up_half, check_half },	   { "many", set_up_many, check_many },
	{ "deep", set_up_deep, check_deep },	   { "self", set_up_self, check_self },
	{ "alone", set_up_alone, check_alone },	   { "reaped", set_up_reaped, check_reaped },
	{ "late", set_up_late, check_late },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	const struct part *part = live_choose(parts, argv[2]);

	part->set_up();
	live_ready();
	live_wait_stop();
	part->check();
	if (server_path[0])
		unlink(server_path);
	if (own_path[0])
		unlink(own_path);
	return live_finish();
}
