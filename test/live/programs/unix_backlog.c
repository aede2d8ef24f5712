/*
 * unix_backlog.c - connections that nobody has accepted, through which something was sent, or whose client was closed.
 */
#define _GNU_SOURCE
#include "unix_talk.h"

#define LARGE 200000
#define CROWD 200

enum end { OPEN, CLOSED, NO_MORE, NO_READING };

/* A client of a listener. */
static const struct client {
	size_t sizes[4]; /* of its messages; 0: no more, except for records */
	size_t count;
	enum end end;
	const char *name;
} clients[] = {
	{ { 1 }, 1, OPEN, NULL },
	{ { 0 }, 0, OPEN, NULL },
	{ { 7, LARGE, 5 }, 3, OPEN, NULL },
	{ { 4096, 3000, 1 }, 3, CLOSED, NULL },
	{ { 0 }, 0, CLOSED, NULL },
	{ { 40000 }, 1, NO_MORE, "bound-client" },
	{ { 0 }, 0, NO_MORE, NULL },
	{ { 12 }, 1, NO_READING, NULL },
	{ { LARGE }, 1, CLOSED, "closed-client" },
	{ { 70000, 2 }, 2, CLOSED, NULL },
};
#define CLIENTS (sizeof(clients) / sizeof(clients[0]))

static const char *const listeners[] = { "backlog", "\0backlog", NULL /* the kernel chooses its name */ };
#define LISTENERS (sizeof(listeners) / sizeof(listeners[0]))

static int type;
static int opened[LISTENERS][CLIENTS];

static char byte_of(size_t client, size_t message, size_t at)
{
	return (char)(client * 31 + message * 7 + at * 3 + at / 253);
}

static int new_client(const char *name)
{
	int fd = new_socket(type);
	const int space = 4 * LARGE;

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &space, sizeof(space));
	if (name) {
		bind_to(fd, name, strlen(name));
		unlink(name);
	}
	return fd;
}

static void connect_client(int fd, int listener)
{
	struct sockaddr_un address;
	socklen_t size = sizeof(address);

	live_check(getsockname(listener, (struct sockaddr *)&address, &size) == 0, "getsockname: %m");
	live_check(connect(fd, (struct sockaddr *)&address, size) == 0, "connect: %m");
}

static int connect_like(int listener)
{
	int fd = new_client(NULL);

	connect_client(fd, listener);
	return fd;
}

static void send_message(int fd, size_t client, size_t message, size_t size)
{
	char *bytes = malloc(size + 1);

	for (size_t i = 0; i < size; i++)
		bytes[i] = byte_of(client, message, i);
	live_check(send(fd, bytes, size, MSG_DONTWAIT) == (ssize_t)size, "send %zu bytes: %m", size);
	free(bytes);
}

static int open_client(int listener, const char *suffix, size_t number)
{
	const struct client *client = &clients[number];
	char name[32];
	int fd;

	snprintf(name, sizeof(name), "%s%s", client->name ?: "", suffix);
	fd = new_client(client->name ? name : NULL);
	connect_client(fd, listener);
	for (size_t i = 0; i < client->count; i++)
		send_message(fd, number, i, client->sizes[i]);
	if (client->end == NO_MORE || client->end == NO_READING)
		live_check(shutdown(fd, client->end == NO_MORE ? SHUT_WR : SHUT_RD) == 0, "shutdown: %m");
	if (client->end == CLOSED)
		close(fd);
	return client->end == CLOSED ? -1 : fd;
}

static int make_listener(const char *name)
{
	const sa_family_t family = AF_UNIX;
	int fd = new_socket(type | SOCK_NONBLOCK);

	if (name)
		bind_to(fd, name, *name ? strlen(name) : 8);
	else
		live_check(bind(fd, (struct sockaddr *)&family, sizeof(family)) == 0, "bind: %m");
	live_check(listen(fd, CLIENTS) == 0, "listen: %m");
	return fd;
}

/* All clients of all listeners, one of each listener after the other. */
static void set_up_all(void)
{
	for (size_t i = 0; i < LISTENERS; i++)
		fds[i] = make_listener(listeners[i]);
	for (size_t j = 0; j < CLIENTS; j++)
		for (size_t i = 0; i < LISTENERS; i++)
			opened[i][j] = open_client(fds[i], i == 0 ? "-a" : i == 1 ? "-b" : "-c", j);
}

static void check_bytes(const char *bytes, size_t client, size_t message, size_t size)
{
	for (size_t i = 0; i < size; i++)
		live_check(bytes[i] == byte_of(client, message, i), "client %zu, message %zu: byte %zu",
			   client, message, i);
}

static void check_messages(int fd, size_t number)
{
	const struct client *client = &clients[number];
	char *bytes = malloc(2 * LARGE);

	for (size_t i = 0; i < client->count; i++) {
		size_t size = client->sizes[i], at = 0;

		do {
			ssize_t length = recv(fd, bytes + at, type == SOCK_STREAM ? size - at : 2 * LARGE,
					      MSG_DONTWAIT);

			live_check(length > 0, "client %zu, message %zu: %zd, %m", number, i, length);
			at += (size_t)length;
		} while (type == SOCK_STREAM && at < size);
		live_check(at == size, "client %zu, message %zu has %zu bytes, not %zu", number, i, at, size);
		check_bytes(bytes, number, i, size);
	}
	free(bytes);
}

static void check_end(int fd, int other, size_t number)
{
	enum end end = clients[number].end;
	char byte;

	if (end == CLOSED || end == NO_MORE)
		live_check(recv(fd, &byte, 1, MSG_DONTWAIT) == 0, "client %zu has not ended", number);
	else
		check_error(recv(fd, &byte, 1, MSG_DONTWAIT), EAGAIN, "nothing more has come");
	if (end == CLOSED || end == NO_READING)
		check_error(send(fd, "word", 4, MSG_NOSIGNAL), EPIPE, "the client does not read");
	else
		talk(fd, other, "to the client");
	if (end == OPEN || end == NO_READING)
		talk(other, fd, "to the accepted end");
}

static void check_maker(int fd)
{
	struct ucred named;
	socklen_t size = sizeof(named);

	live_check(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &named, &size) == 0 && named.pid == getpid() &&
			   named.uid == getuid() && named.gid == getgid(),
		   "SO_PEERCRED names process %d", named.pid);
}

static void verify_all(void)
{
	for (size_t i = 0; i < LISTENERS; i++) {
		for (size_t j = 0; j < CLIENTS; j++) {
			int fd = accept_from(fds[i]);

			check_maker(fd);
			if (clients[j].name) {
				char name[32];

				snprintf(name, sizeof(name), "%s-%c", clients[j].name, (char)('a' + i));
				check_peer_name(fd, name, strlen(name) + 1, "an accepted connection");
			}
			check_messages(fd, j);
			check_end(fd, opened[i][j], j);
			close(fd);
		}
		check_error(accept(fds[i], NULL, NULL), EAGAIN, "no more wait");
	}
}

/* ---- who has sent it ---- */

#define ANOTHER 4321 /* a user and a group */

static pid_t gone[2];

static pid_t do_in_child(void (*work)(void))
{
	pid_t pid = fork();

	if (pid == 0) {
		work();
		_exit(0);
	}
	live_check(pid > 0 && waitpid(pid, NULL, 0) == pid, "fork: %m");
	return pid;
}

static uid_t user_of_child(void)
{
	return getuid() ? getuid() : ANOTHER;
}

static void send_too(void)
{
	const gid_t groups[] = { 7, 8 };

	if (getuid() == 0)
		live_check(setgroups(2, groups) == 0 && setregid(ANOTHER, ANOTHER) == 0 &&
				   setreuid(ANOTHER, ANOTHER) == 0,
			   "setreuid: %m");
	live_check(send(fds[1], "its", 3, 0) == 3, "send: %m");
}

static void connect_too(void)
{
	fds[3] = connect_like(fds[0]);
	live_check(send(fds[3], "alone", 5, 0) == 5, "send: %m");
	send_too();
}

/* 0 listener; 1 a client of this process, through which two children have sent, too; the second was a client itself. */
static void set_up_senders(void)
{
	const int yes = 1;

	fds[0] = listen_at(SOCK_STREAM, "backlog", 5);
	chmod("backlog", 0777);
	fds[2] = listen_at(SOCK_SEQPACKET, "packets", 5);
	live_check(setsockopt(fds[2], SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes)) == 0, "SO_PASSCRED: %m");
	type = SOCK_SEQPACKET;
	fds[4] = connect_like(fds[2]);
	live_check(send(fds[4], "record", 6, 0) == 6 && send(fds[4], "", 0, 0) == 0, "send: %m");
	type = SOCK_STREAM;
	fds[1] = connect_like(fds[0]);
	live_check(send(fds[1], "mine", 4, 0) == 4, "send: %m");
	gone[0] = do_in_child(send_too);
	gone[1] = do_in_child(connect_too);
}

static void check_told(int fd, const char *bytes, pid_t pid, uid_t user)
{
	struct told told = receive_told(fd);

	live_check(told.size == (ssize_t)strlen(bytes) && !memcmp(told.bytes, bytes, (size_t)told.size),
		   "%zd bytes, not '%s'", told.size, bytes);
	live_check(told.has_sender && told.sender.pid == pid && told.sender.uid == user,
		   "'%s' is of process %d, user %u; not %d, %u", bytes, told.sender.pid, told.sender.uid, pid,
		   user);
}

/* The first one asks for credentials only now: the kernel has noted them all the same. */
static void verify_senders(void)
{
	const int yes = 1;
	int mine = accept_from(fds[0]), its = accept_from(fds[0]), records = accept_from(fds[2]);
	struct ucred named;
	socklen_t size = sizeof(named);
	gid_t groups[8];
	socklen_t groups_size = sizeof(groups);

	live_check(setsockopt(mine, SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes)) == 0, "SO_PASSCRED: %m");
	check_told(mine, "mine", getpid(), getuid());
	check_told(mine, "its", gone[0], user_of_child());
	check_told(mine, "its", gone[1], user_of_child());
	check_told(records, "record", getpid(), getuid());
	check_told(records, "", getpid(), getuid());
	live_check(getsockopt(its, SOL_SOCKET, SO_PEERCRED, &named, &size) == 0 && named.pid == gone[1] &&
			   named.uid == getuid(),
		   "SO_PEERCRED names process %d, user %u", named.pid, named.uid);
	live_check(getsockopt(its, SOL_SOCKET, SO_PEERGROUPS, groups, &groups_size) == 0 &&
			   groups_size == sizeof(gid_t) * (size_t)getgroups(0, NULL),
		   "SO_PEERGROUPS has %u bytes: %m", groups_size);
	live_check(setsockopt(its, SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes)) == 0, "SO_PASSCRED: %m");
	check_told(its, "alone", gone[1], getuid());
}

/* ---- descriptors in flight ---- */

/* 0 listener; 1 client; 2, 3 a pipe; 4 a file; 5 a listener of which only a message that waits for it has a client. */
static void set_up_rights(void)
{
	type = SOCK_STREAM;
	fds[0] = listen_at(SOCK_STREAM, "backlog", 5);
	fds[1] = connect_like(fds[0]);
	live_check(pipe(fds + 2) == 0, "pipe: %m");
	fds[4] = open("file", O_RDWR | O_CREAT, 0600);
	live_check(fds[4] >= 0 && write(fds[4], "content", 7) == 7, "file: %m");
	live_check(send(fds[1], "before", 6, 0) == 6, "send: %m");
	send_with(fds[1], "pipe", fds + 2, 2);
	send_with(fds[1], "file", fds + 4, 1);
	send_with(fds[1], "self", fds, 2);
	int closed = connect_like(fds[0]);

	send_with(closed, "closed", fds + 3, 1);
	close(closed);
}

static void check_pipe(int reader, int writer)
{
	char byte;

	live_check(write(writer, "x", 1) == 1 && read(reader, &byte, 1) == 1 && byte == 'x', "the pipe: %m");
}

static void verify_rights(void)
{
	int first = accept_from(fds[0]), second = accept_from(fds[0]);
	char bytes[8];
	struct told told;

	live_check(recv(first, bytes, 6, 0) == 6 && !memcmp(bytes, "before", 6), "recv: %m");
	told = receive_told(first);
	live_check(told.fd_count == 2 && told.size == 4, "%zu descriptors, not those of the pipe",
		   told.fd_count);
	check_pipe(told.fds[0], fds[3]);
	check_pipe(fds[2], told.fds[1]);
	told = receive_told(first);
	live_check(told.fd_count == 1 && lseek(told.fds[0], 0, SEEK_CUR) == 7 &&
			   lseek(fds[4], 3, SEEK_SET) == 3 && lseek(told.fds[0], 0, SEEK_CUR) == 3,
		   "the file is another one");
	told = receive_told(first);
	live_check(told.fd_count == 2 && told.size == 4, "%zu descriptors, not the sockets", told.fd_count);
	connected_to(SOCK_STREAM, "backlog");
	accept_from(told.fds[0]);
	talk_both(told.fds[1], first, "the client in its own queue");
	told = receive_told(second);
	live_check(told.fd_count == 1 && told.size == 6, "%zu descriptors of a closed client", told.fd_count);
	check_pipe(fds[2], told.fds[0]);
}

/* ---- many ---- */

static void set_up_many(void)
{
	type = SOCK_STREAM;
	fds[0] = listen_at(SOCK_STREAM, "backlog", CROWD);
	for (size_t i = 0; i < CROWD; i++) {
		int fd = connect_like(fds[0]);

		send_message(fd, i, 0, 1 + i * 50);
		if (i % 4 == 0)
			close(fd);
	}
}

static void verify_many(void)
{
	for (size_t i = 0; i < CROWD; i++) {
		int fd = accept_from(fds[0]);
		size_t size = 1 + i * 50, at = 0;
		char *bytes = malloc(size + 1);
		ssize_t length;

		while ((length = recv(fd, bytes + at, size + 1 - at, MSG_DONTWAIT)) > 0)
			at += (size_t)length;
		live_check(at == size && (i % 4 ? length < 0 && errno == EAGAIN : length == 0),
			   "connection %zu: %zu bytes, then %zd, %m", i, at, length);
		check_bytes(bytes, i, 0, size);
		free(bytes);
		close(fd);
	}
}

/* ---- what cannot be saved ---- */

static void set_up_urgent(void)
{
	type = SOCK_STREAM;
	fds[0] = listen_at(SOCK_STREAM, "backlog", 5);
	fds[1] = connect_like(fds[0]);
	live_check(send(fds[1], "!", 1, MSG_OOB) == 1, "send: %m");
}

static void set_up_lost(void)
{
	int ends[2];

	type = SOCK_STREAM;
	fds[0] = listen_at(SOCK_STREAM, "backlog", 5);
	fds[1] = connect_like(fds[0]);
	live_check(pipe(ends) == 0, "pipe: %m");
	send_with(fds[1], "lost", ends, 1);
	close(ends[0]);
	close(ends[1]);
}

static void verify_refused(void)
{
	struct told told;
	int fd = accept_from(fds[0]);
	char byte;

	if (recv(fd, &byte, 1, MSG_OOB | MSG_DONTWAIT) == 1)
		return;
	told = receive_told(fd);
	live_check(told.size == 4 && told.fd_count == 1, "%zd bytes, %zu descriptors", told.size,
		   told.fd_count);
}

static const struct part {
	const char *name;
	void (*set_up)(void);
	void (*verify)(void);
} parts[] = {
	{ "stream", set_up_all, verify_all },	       { "packets", set_up_all, verify_all },
	{ "senders", set_up_senders, verify_senders }, { "rights", set_up_rights, verify_rights },
	{ "many", set_up_many, verify_many },	       { "urgent", set_up_urgent, verify_refused },
	{ "lost", set_up_lost, verify_refused },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	const struct part *part = live_choose(parts, argv[2]);

	live_check(chdir(live_directory) == 0, "chdir: %m");
	type = strcmp(part->name, "packets") ? SOCK_STREAM : SOCK_SEQPACKET;
	part->set_up();
	live_ready();
	live_wait_stop();
	part->verify();
	unlink("backlog");
	unlink("packets");
	return live_finish();
}
