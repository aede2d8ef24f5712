/*
 * unix_ends.c - unix sockets: pairs and connections, ends that are closed or shut down, connections that nobody has
 * accepted, ends that the harness has, and processes that wait for one.
 *
 * usage: unix_ends DIRECTORY PART [stream|dgram|seqpacket [PATH]]
 */
#define _GNU_SOURCE
#include "unix_talk.h"

static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };

/* ---- pairs ---- */

static void set_up_pairs(void)
{
	for (int i = 0; i < 3; i++)
		live_check(socketpair(AF_UNIX, types[i], 0, fds + 2 * i) == 0, "socketpair: %m");
	/* one with an unread word in each direction */
	live_check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds + 6) == 0,
		   "socketpair: %m");
	live_check(write(fds[6], "there", 5) == 5 && write(fds[7], "back", 4) == 4, "write: %m");
	live_check(dup2(fds[7], 200) == 200, "dup2: %m");
	fds[8] = new_socket(SOCK_STREAM); /* connected to nothing */
}

static void verify_pairs(void)
{
	char buffer[8];

	for (int i = 0; i < 3; i++)
		talk_both(fds[2 * i], fds[2 * i + 1], "a pair");
	check_name(fds[0], "", 0, "a pair");
	check_peer_name(fds[0], "", 0, "a pair");
	live_check(read(200, buffer, 8) == 5 && !memcmp(buffer, "there", 5), "what was sent there is lost");
	live_check(read(fds[6], buffer, 8) == 4 && !memcmp(buffer, "back", 4), "what was sent back is lost");
	live_check((fcntl(fds[6], F_GETFL) & O_NONBLOCK) && fcntl(fds[6], F_GETFD) == FD_CLOEXEC,
		   "the flags have changed");
	check_error(send(fds[8], "x", 1, MSG_NOSIGNAL), ENOTCONN, "an unconnected socket");
	live_check(write(fds[6], "there", 5) == 5 && write(fds[7], "back", 4) == 4, "write: %m");
}

/* ---- listeners and connections ---- */

static char absolute[108];

/* 0 listener, 1 client, 2 accepted; 3 bound client, 4 accepted; 5, 6 by a listener that was closed; 7 seqpacket … */
static void set_up_connected(void)
{
	fds[0] = listen_at(SOCK_STREAM, "listener", 7);
	fds[1] = connected_to(SOCK_STREAM, "listener");
	fds[2] = accept_from(fds[0]);
	fds[3] = new_socket(SOCK_STREAM);
	bind_to(fds[3], absolute, strlen(absolute));
	connect_to(fds[3], "listener", 8);
	fds[4] = accept_from(fds[0]);
	fds[20] = listen_at(SOCK_STREAM, "closed", 1);
	fds[5] = connected_to(SOCK_STREAM, "closed");
	fds[6] = accept_from(fds[20]);
	close(fds[20]);
	fds[7] = new_socket(SOCK_SEQPACKET);
	bind_to(fds[7], "\0odd\0name\xff\n", 11);
	live_check(listen(fds[7], 0) == 0, "listen: %m");
	fds[8] = new_socket(SOCK_SEQPACKET);
	connect_to(fds[8], "\0odd\0name\xff\n", 11);
	fds[9] = accept_from(fds[7]);
	/* the name of a listener that was closed belongs to another one now */
	fds[20] = listen_at(SOCK_STREAM, "replaced", 1);
	fds[10] = connected_to(SOCK_STREAM, "replaced");
	fds[11] = accept_from(fds[20]);
	close(fds[20]);
	unlink("replaced");
	fds[12] = listen_at(SOCK_STREAM, "replaced", 2);
	/* and one whose path was deleted while it listens */
	fds[13] = listen_at(SOCK_STREAM, "deleted", 2);
	fds[14] = connected_to(SOCK_STREAM, "deleted");
	fds[15] = accept_from(fds[13]);
	unlink("deleted");
}

static void check_listener(int listener, const char *name)
{
	int client = connected_to(SOCK_STREAM, name), accepted = accept_from(listener);

	talk_both(client, accepted, name);
	close(client);
	close(accepted);
}

static void verify_connected(void)
{
	struct sockaddr_un address;

	for (int i = 1; i < 6; i += 2)
		talk_both(fds[i], fds[i + 1], "a connection");
	talk_both(fds[8], fds[9], "a connection of packets");
	talk_both(fds[10], fds[11], "a connection whose listener was replaced");
	talk_both(fds[14], fds[15], "a connection whose path was deleted");
	check_name(fds[0], "listener", 9, "a listener");
	check_name(fds[2], "listener", 9, "an accepted socket");
	check_peer_name(fds[1], "listener", 9, "its client");
	check_peer_name(fds[2], "", 0, "an accepted socket");
	check_peer_name(fds[4], absolute, strlen(absolute) + 1, "an accepted socket");
	check_name(fds[6], "closed", 7, "an accepted socket of a closed listener");
	check_name(fds[9], "\0odd\0name\xff\n", 11, "an accepted socket with an abstract name");
	check_name(fds[13], "deleted", 8, "a deleted listener");
	check_listener(fds[0], "listener");
	check_listener(fds[12], "replaced");
	check_error(connect(fds[20] = new_socket(SOCK_STREAM), (struct sockaddr *)&address,
			    fill_name(&address, "deleted", 7)),
		    ENOENT, "a deleted path");
	/* nobody has this file any more: it may have been removed while the process was away */
	live_check(connect(fds[20], (struct sockaddr *)&address, fill_name(&address, "closed", 6)) < 0,
		   "somebody listens at the path of a closed listener");
	close(fds[20]);
	check_error(accept4(fds[12], NULL, NULL, 0), EAGAIN, "nobody waits");
}

/* ---- connections that wait ---- */

#define WAITING 4

/* 0 listener; from 1 on clients, in another order than they connect; one has shut down its side, one is bound. */
static void set_up_waiting(void)
{
	fds[0] = listen_at(SOCK_STREAM, "listener", WAITING - 1);
	for (int i = 0; i < WAITING; i++)
		fds[1 + i] = new_socket(SOCK_STREAM | SOCK_NONBLOCK);
	for (int i = WAITING; i > 0; i--) {
		char name[16];

		snprintf(name, sizeof(name), "client-%d", i);
		if (i > 1)
			bind_to(fds[i], name, strlen(name));
		connect_to(fds[i], "listener", 8);
	}
	live_check(shutdown(fds[2], SHUT_WR) == 0, "shutdown: %m");
	/* after more of them, fewer may wait */
	live_check(listen(fds[0], 1) == 0, "listen: %m");
	fds[10] = new_socket(SOCK_SEQPACKET);
	bind_to(fds[10], "\0packets", 8);
	live_check(listen(fds[10], 5) == 0, "listen: %m");
	fds[11] = new_socket(SOCK_SEQPACKET);
	connect_to(fds[11], "\0packets", 8);
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
}

static void verify_waiting(void)
{
	struct sockaddr_un address;
	int more = new_socket(SOCK_STREAM | SOCK_NONBLOCK), accepted[WAITING];

	live_check(events_of(fds[0]) == POLLIN && events_of(fds[1]) == POLLOUT, "their events are %x and %x",
		   events_of(fds[0]), events_of(fds[1]));
	check_error(connect(more, (struct sockaddr *)&address, fill_name(&address, "listener", 8)), EAGAIN,
		    "the queue of the listener is full");
	close(more);
	for (int i = WAITING; i > 0; i--) {
		char name[16], buffer[4];
		struct ucred named;
		socklen_t size = sizeof(named);

		snprintf(name, sizeof(name), "client-%d", i);
		accepted[i - 1] = accept_from(fds[0]);
		if (i > 1)
			check_peer_name(accepted[i - 1], name, strlen(name) + 1, "an accepted connection");
		live_check(getsockopt(accepted[i - 1], SOL_SOCKET, SO_PEERCRED, &named, &size) == 0 &&
				   named.pid == getpid() && named.uid == getuid(),
			   "an accepted connection is of process %d", named.pid);
		talk(accepted[i - 1], fds[i], "an accepted connection");
		if (i == 2)
			live_check(read(accepted[1], buffer, 4) == 0, "its client is not shut down");
		else
			talk(fds[i], accepted[i - 1], "an accepted connection");
	}
	check_error(accept(fds[0], NULL, NULL), EAGAIN, "more wait than before");
	talk_both(fds[11], accept_from(fds[10]), "packets");
}

/* ---- ends that were closed or shut down ---- */

/* Closed with something unread: by itself, and with something that can still be read. */
static void set_up_reset(void)
{
	for (int i = 4; i < 6; i++)
		live_check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds + 2 * i) == 0,
			   "socketpair: %m");
	live_check(write(fds[8], "lost", 4) == 4 && close(fds[9]) == 0, "write: %m");
	live_check(write(fds[11], "left", 4) == 4 && write(fds[10], "lost", 4) == 4 && close(fds[11]) == 0,
		   "write: %m");
}

static void verify_reset(void)
{
	char buffer[8];

	live_check(events_of(fds[8]) & POLLERR, "a reset has events %x", events_of(fds[8]));
	check_error(read(fds[8], buffer, 8), ECONNRESET, "a reset");
	live_check(read(fds[8], buffer, 8) == 0, "after a reset: %m");
	live_check(read(fds[10], buffer, 8) == 4, "what was left before a reset: %m");
	check_error(read(fds[10], buffer, 8), ECONNRESET, "a reset");
}

static void set_up_ended(void)
{
	for (int i = 0; i < 8; i++)
		live_check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds + 2 * i) == 0,
			   "socketpair: %m");
	live_check(shutdown(fds[0], SHUT_RD) == 0 && shutdown(fds[2], SHUT_WR) == 0 &&
			   shutdown(fds[4], SHUT_RDWR) == 0,
		   "shutdown: %m");
	live_check(write(fds[7], "left", 4) == 4 && close(fds[7]) == 0,
		   "write: %m"); /* its end can still be read */
	live_check(write(fds[12], "half", 4) == 4 && shutdown(fds[12], SHUT_WR) == 0, "shutdown: %m");
	live_check(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fds + 16) == 0 &&
			   write(fds[17], "left", 4) == 4 && close(fds[17]) == 0,
		   "a datagram pair: %m");
	live_check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, fds + 18) == 0 &&
			   close(fds[19]) == 0,
		   "a pair of packets: %m");
	/* both ends of connections, whose other ends were closed */
	fds[20] = listen_at(SOCK_STREAM, "listener", 7);
	fds[21] = connected_to(SOCK_STREAM, "listener");
	fds[22] = accept_from(fds[20]);
	fds[23] = connected_to(SOCK_STREAM, "listener");
	fds[24] = accept_from(fds[20]);
	live_check(write(fds[22], "left", 4) == 4 && close(fds[22]) == 0 && close(fds[23]) == 0, "close: %m");
	/* a datagram socket that sends to one that was closed */
	fds[25] = new_socket(SOCK_DGRAM);
	bind_to(fds[25], "gone", 4);
	fds[26] = new_socket(SOCK_DGRAM | SOCK_NONBLOCK);
	connect_to(fds[26], "gone", 4);
	close(fds[25]);
}

static void verify_ended(void)
{
	static const short events[] = { POLLIN | POLLOUT | POLLRDHUP,
					POLLOUT,
					POLLOUT,
					POLLIN | POLLOUT | POLLRDHUP,
					POLLIN | POLLOUT | POLLRDHUP | POLLHUP,
					POLLIN | POLLOUT | POLLRDHUP | POLLHUP };
	char buffer[8];

	for (int i = 0; i < 6; i++)
		live_check(events_of(fds[i]) == events[i], "end %d has events %x, not %x", i,
			   events_of(fds[i]), events[i]);
	check_error(send(fds[1], "x", 1, MSG_NOSIGNAL), EPIPE, "to an end that does not read");
	check_error(send(fds[2], "x", 1, MSG_NOSIGNAL), EPIPE, "from an end that does not write");
	talk(fds[0], fds[1], "the other direction");
	talk(fds[3], fds[2], "the other direction");
	live_check(read(fds[6], buffer, 8) == 4 && read(fds[6], buffer, 8) == 0,
		   "what a closed end left: %m");
	check_error(send(fds[6], "x", 1, MSG_NOSIGNAL), EPIPE, "to a closed end");
	live_check(read(fds[13], buffer, 8) == 4 && read(fds[13], buffer, 8) == 0, "a half closed end: %m");
	live_check(read(fds[16], buffer, 8) == 4, "a datagram: %m");
	check_error(send(fds[16], "x", 1, MSG_NOSIGNAL), ECONNREFUSED, "a datagram to a closed socket");
	check_error(send(fds[16], "x", 1, MSG_NOSIGNAL), ENOTCONN, "another datagram");
	live_check(read(fds[18], buffer, 8) == 0, "the end of packets: %m");
	check_peer_name(fds[21], "listener", 9, "a client whose server is gone");
	live_check(read(fds[21], buffer, 8) == 4 && read(fds[21], buffer, 8) == 0, "what a server left: %m");
	check_name(fds[24], "listener", 9, "an accepted socket whose client is gone");
	live_check(read(fds[24], buffer, 8) == 0, "the end of a client: %m");
	check_listener(fds[20], "listener");
	check_peer_name(fds[26], "gone", 5, "a datagram socket whose receiver is gone");
	check_error(send(fds[26], "x", 1, MSG_NOSIGNAL), ECONNREFUSED, "a receiver that is gone");
}

/* Abstract names of datagram sockets that were closed: of two clients, and one that has a new owner. */
static void set_up_left(void)
{
	for (int i = 0; i < 2; i++) {
		fds[4 + i] = new_socket(SOCK_DGRAM);
		bind_to(fds[4 + i], i ? "\0criu-live-left-1" : "\0criu-live-left-0", 17);
	}
	for (int i = 0; i < 3; i++) {
		fds[i] = new_socket(SOCK_DGRAM | SOCK_NONBLOCK);
		connect_to(fds[i], i == 2 ? "\0criu-live-left-1" : "\0criu-live-left-0", 17);
	}
	close(fds[4]);
	close(fds[5]);
	fds[3] = new_socket(SOCK_DGRAM | SOCK_NONBLOCK);
	bind_to(fds[3], "\0criu-live-left-1", 17);
}

static void verify_left(void)
{
	char buffer[8];

	for (int i = 0; i < 2; i++)
		check_peer_name(fds[i], "\0criu-live-left-0", 17, "a closed socket");
	for (int i = 0; i < 3; i++)
		check_error(send(fds[i], "x", 1, MSG_NOSIGNAL), ECONNREFUSED, "to a closed socket");
	check_error(recv(fds[3], buffer, 8, 0), EAGAIN, "the new owner of the name");
	connect_to(fds[2], "\0criu-live-left-1", 17);
	talk(fds[2], fds[3], "to the new owner of the name");
}

/* ---- processes that wait ---- */

static void accept_one(void)
{
	int fd = accept(fds[0], NULL, NULL);
	char buffer[8];

	live_check(fd >= 0, "accept: %m");
	live_check(recv(fd, buffer, 8, 0) == 4 && send(fd, "back", 4, 0) == 4, "in the child: %m");
}

static void read_one(void)
{
	char buffer[8];

	live_check(recv(fds[2], buffer, 8, 0) == 4, "recv: %m");
}

/* Until the other end has read something, there is no space. */
static void write_one(void)
{
	live_check(send(fds[4], "last", 4, 0) == 4, "send: %m");
}

static void connect_one(void)
{
	int fd = new_socket(SOCK_STREAM);

	connect_to(fd, "full", 4);
	live_check(send(fd, "word", 4, 0) == 4, "send: %m");
}

static pid_t waiters[4];
static size_t filled;

static void set_up_blocked(void)
{
	void (*const children[])(void) = { accept_one, read_one, write_one, connect_one };

	fds[0] = listen_at(SOCK_STREAM, "listener", 3);
	live_check(socketpair(AF_UNIX, SOCK_STREAM, 0, fds + 2) == 0 &&
			   socketpair(AF_UNIX, SOCK_STREAM, 0, fds + 4) == 0,
		   "socketpair: %m");
	while (send(fds[4], "full", 4, MSG_DONTWAIT) == 4)
		filled += 4;
	fds[6] = listen_at(SOCK_STREAM, "full", 0);
	fds[7] = connected_to(SOCK_STREAM, "full");
	for (int i = 0; i < 4; i++) {
		waiters[i] = live_fork(children[i]);
		live_wait_asleep(waiters[i]);
	}
}

static void await_child(pid_t pid, const char *what)
{
	int status;

	live_check(waitpid(pid, &status, 0) == pid && status == 0, "%s: %x", what, status);
}

static void verify_blocked(void)
{
	int client = connected_to(SOCK_STREAM, "listener");
	char buffer[8];

	live_check(send(client, "word", 4, 0) == 4 && recv(client, buffer, 8, 0) == 4, "the listener: %m");
	await_child(waiters[0], "the process that accepts");
	live_check(send(fds[3], "word", 4, 0) == 4, "send: %m");
	await_child(waiters[1], "the process that reads");
	for (size_t i = 0; i < filled; i += 4)
		live_check(recv(fds[5], buffer, 4, 0) == 4 && !memcmp(buffer, "full", 4), "word %zu: %m", i);
	live_check(recv(fds[5], buffer, 4, 0) == 4 && !memcmp(buffer, "last", 4), "the last word: %m");
	await_child(waiters[2], "the process that writes");
	accept_from(fds[6]);
	live_check(recv(accept_from(fds[6]), buffer, 4, 0) == 4, "the connection that came later: %m");
	await_child(waiters[3], "the process that connects");
}

/* ---- the other end is outside: the harness has it ---- */

static const char *outside_type, *outside_name;

static void set_up_outside(void)
{
	int type = !strcmp(outside_type, "stream") ? SOCK_STREAM :
		   !strcmp(outside_type, "dgram")  ? SOCK_DGRAM :
						     SOCK_SEQPACKET;

	fds[0] = outside_name[0] == '@' ? new_socket(type) : connected_to(type, outside_name);
	if (outside_name[0] == '@') {
		char name[108];

		snprintf(name, sizeof(name), "%s", outside_name);
		name[0] = '\0';
		connect_to(fds[0], name, strlen(outside_name));
	}
	live_check(dup2(fds[0], 77) == 77, "dup2: %m");
}

static void verify_outside(void)
{
	char buffer[8];

	live_check(send(77, "word", 4, MSG_NOSIGNAL) == 4, "send: %m");
	live_check(outside_type[0] == 'd' || recv(fds[0], buffer, 8, 0) == 4, "recv: %m");
}

/* The standard input is a socket of the harness: a listener, or an end of a pair. */
static void set_up_given(void)
{
	live_check(dup2(STDIN_FILENO, 77) == 77, "dup2: %m");
}

static void verify_given(void)
{
	int accepted = accept(77, NULL, NULL);
	char buffer[8];

	live_check(accepted >= 0 || errno == EINVAL, "accept: %m");
	accepted = accepted < 0 ? STDIN_FILENO : accepted;
	live_check(send(accepted, "word", 4, MSG_NOSIGNAL) == 4 && recv(accepted, buffer, 8, 0) == 4,
		   "talk: %m");
}

/* ---- many ---- */

#define MANY 400

static int many[MANY * 2];

static void set_up_many(void)
{
	int listener = listen_at(SOCK_STREAM, "listener", 5);

	for (int i = 0; i < MANY; i++) {
		if (i % 2) {
			live_check(socketpair(AF_UNIX, SOCK_STREAM, 0, many + 2 * i) == 0, "socketpair: %m");
			continue;
		}
		many[2 * i] = connected_to(SOCK_STREAM, "listener");
		many[2 * i + 1] = accept_from(listener);
	}
}

static void verify_many(void)
{
	for (int i = 0; i < MANY; i++)
		talk_both(many[2 * i], many[2 * i + 1], "one of many");
}

static const struct part {
	const char *name;
	void (*set_up)(void);
	void (*verify)(void);
} parts[] = {
	{ "pairs", set_up_pairs, verify_pairs },       { "connected", set_up_connected, verify_connected },
	{ "waiting", set_up_waiting, verify_waiting }, { "ended", set_up_ended, verify_ended },
	{ "left", set_up_left, verify_left },	       { "reset", set_up_reset, verify_reset },
	{ "blocked", set_up_blocked, verify_blocked }, { "outside", set_up_outside, verify_outside },
	{ "given", set_up_given, verify_given },       { "many", set_up_many, verify_many },
};

/* Only what it has created: anything else is the fault of criu. */
static void remove_files(void)
{
	const char *const names[] = { "listener", "closed",   "replaced", "absolute", "client-2",
				      "client-3", "client-4", "gone",	  "full" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unlink(names[i]);
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	const struct part *part = live_choose(parts, argv[2]);
	live_path(absolute, sizeof(absolute), "absolute");
	live_check(chdir(live_directory) == 0, "chdir: %m");
	outside_type = argc > 3 ? argv[3] : "";
	outside_name = argc > 4 ? argv[4] : "server";
	part->set_up();
	if (part->verify == verify_connected)
		fcntl(fds[12], F_SETFL, O_NONBLOCK);
	live_ready();
	live_wait_stop();
	part->verify();
	remove_files();
	return live_finish();
}
