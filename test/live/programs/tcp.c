/*
 * tcp.c - connections of TCP within one process: both ends are dumped and restored.
 *
 * usage: tcp DIRECTORY PART [4|6|mapped]
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "live.h"

static const char *family = "4";

struct pair {
	int client, server;
	uint64_t sent[2], received[2]; /* by the client, by the server: bytes, which are numbered */
};

union address {
	struct sockaddr any;
	struct sockaddr_in four;
	struct sockaddr_in6 six;
};

static socklen_t loopback(union address *address)
{
	memset(address, 0, sizeof(*address));
	if (family[0] == '4') {
		address->four.sin_family = AF_INET;
		address->four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		return sizeof(address->four);
	}
	address->six.sin6_family = AF_INET6;
	inet_pton(AF_INET6, family[0] == '6' ? "::1" : "::ffff:127.0.0.1", &address->six.sin6_addr);
	return sizeof(address->six);
}

static int new_socket(void)
{
	int fd = socket(family[0] == '4' ? AF_INET : AF_INET6, SOCK_STREAM, 0);

	live_check(fd >= 0, "socket: %m");
	return fd;
}

static int listen_here(int backlog)
{
	union address address;
	socklen_t size = loopback(&address);
	int fd = new_socket();

	live_check(bind(fd, &address.any, size) == 0 && listen(fd, backlog) == 0, "listen: %m");
	return fd;
}

static struct pair connect_to(int listener)
{
	union address address;
	socklen_t size = sizeof(address);
	struct pair pair = { .client = new_socket() };

	live_check(getsockname(listener, &address.any, &size) == 0, "getsockname: %m");
	live_check(connect(pair.client, &address.any, size) == 0, "connect: %m");
	pair.server = accept(listener, NULL, NULL);
	live_check(pair.server >= 0, "accept: %m");
	return pair;
}

static int state_of(int fd)
{
	struct tcp_info info;
	socklen_t size = sizeof(info);

	live_check(getsockopt(fd, SOL_TCP, TCP_INFO, &info, &size) == 0, "TCP_INFO: %m");
	return info.tcpi_state;
}

static char byte_at(uint64_t position)
{
	return (char)(position * 31 + (position >> 8) * 7);
}

/* Sends so many bytes; returns how many were accepted. */
static size_t send_some(struct pair *pair, int from, size_t size, int flags)
{
	static char buffer[65536];
	size_t done = 0;

	while (done < size) {
		size_t count = size - done < sizeof(buffer) ? size - done : sizeof(buffer);
		ssize_t sent;

		for (size_t i = 0; i < count; i++)
			buffer[i] = byte_at(pair->sent[from] + i);
		sent = send(from ? pair->server : pair->client, buffer, count, flags | MSG_NOSIGNAL);
		if (sent < 0 && errno == EAGAIN)
			break;
		live_check(sent > 0, "send: %m");
		done += sent;
		pair->sent[from] += sent;
	}
	return done;
}

/* Receives all that was sent so far. */
static void receive_all(struct pair *pair, int by, const char *what)
{
	static char buffer[65536];

	while (pair->received[by] < pair->sent[!by]) {
		ssize_t count = recv(by ? pair->server : pair->client, buffer, sizeof(buffer), 0);

		live_check(count > 0, "%s: recv: %zd, %m", what, count);
		for (ssize_t i = 0; i < count; i++)
			live_check(buffer[i] == byte_at(pair->received[by] + i), "%s: wrong byte at %llu",
				   what, (unsigned long long)(pair->received[by] + i));
		pair->received[by] += count;
	}
	live_check(pair->received[by] == pair->sent[!by], "%s: too many bytes", what);
}

static void talk(struct pair *pair, const char *what)
{
	for (int from = 0; from < 2; from++) {
		send_some(pair, from, 1000, 0);
		receive_all(pair, !from, what);
	}
}

static void check_names(const struct pair *pair, const char *what)
{
	union address own, other;
	socklen_t size = sizeof(own), other_size = sizeof(other);

	live_check(getsockname(pair->client, &own.any, &size) == 0 &&
			   getpeername(pair->server, &other.any, &other_size) == 0,
		   "%s: the addresses: %m", what);
	live_check(size == other_size && !memcmp(&own, &other, size), "%s: the addresses differ", what);
}

/* ---- ends: connected, with data, half closed ---- */

enum { PLAIN, UNREAD, CLIENT_ENDED, SERVER_ENDED, ENDED_UNREAD, READ_SHUT, PAIRS };
static struct pair pairs[PAIRS];
static int listener;

static void await_state(int fd, int state, const char *what)
{
	live_await(state_of(fd) == state, "%s: state %d, not %d", what, state_of(fd), state);
}

static void set_up_ends(void)
{
	listener = listen_here(7);
	for (int i = 0; i < PAIRS; i++)
		pairs[i] = connect_to(listener);
	send_some(&pairs[UNREAD], 0, 5000, 0);
	send_some(&pairs[UNREAD], 1, 70000, 0);
	live_check(shutdown(pairs[CLIENT_ENDED].client, SHUT_WR) == 0, "shutdown: %m");
	live_check(shutdown(pairs[SERVER_ENDED].server, SHUT_WR) == 0, "shutdown: %m");
	send_some(&pairs[ENDED_UNREAD], 0, 3000, 0);
	live_check(shutdown(pairs[ENDED_UNREAD].client, SHUT_WR) == 0, "shutdown: %m");
	live_check(shutdown(pairs[READ_SHUT].client, SHUT_RD) == 0, "shutdown: %m");
	await_state(pairs[CLIENT_ENDED].client, TCP_FIN_WAIT2, "before");
	await_state(pairs[ENDED_UNREAD].client, TCP_FIN_WAIT2, "before");
}

static void check_end(int fd, const char *what)
{
	char byte;

	live_check(recv(fd, &byte, 1, MSG_DONTWAIT) == 0, "%s: no end: %m", what);
}

static void check_cannot_send(int fd, const char *what)
{
	live_check(send(fd, "x", 1, MSG_NOSIGNAL) < 0 && errno == EPIPE, "%s: can still send: %m", what);
}

/* One direction is closed, the other one goes on. */
static void verify_half(struct pair *pair, int ended, const char *what)
{
	int closed = ended ? pair->server : pair->client, open = ended ? pair->client : pair->server;

	receive_all(pair, !ended, what);
	check_end(open, what);
	check_cannot_send(closed, what);
	send_some(pair, !ended, 4000, 0);
	receive_all(pair, ended, what);
	live_check(state_of(closed) == TCP_FIN_WAIT2 && state_of(open) == TCP_CLOSE_WAIT, "%s: states %d, %d",
		   what, state_of(closed), state_of(open));
	check_names(pair, what);
}

static void verify_listener(int fd)
{
	struct pair pair = connect_to(fd);
	struct tcp_info info;
	socklen_t size = sizeof(info);

	talk(&pair, "a new connection");
	close(pair.client);
	close(pair.server);
	live_check(getsockopt(fd, SOL_TCP, TCP_INFO, &info, &size) == 0 && info.tcpi_sacked == 7,
		   "the backlog is %u", info.tcpi_sacked);
}

static void verify_ends(void)
{
	talk(&pairs[PLAIN], "a connection");
	check_names(&pairs[PLAIN], "a connection");
	receive_all(&pairs[UNREAD], 0, "unread by the client");
	receive_all(&pairs[UNREAD], 1, "unread by the server");
	talk(&pairs[UNREAD], "a connection with unread bytes");
	verify_half(&pairs[CLIENT_ENDED], 0, "shut down by the client");
	verify_half(&pairs[SERVER_ENDED], 1, "shut down by the server");
	verify_half(&pairs[ENDED_UNREAD], 0, "shut down, and not read");
	check_end(pairs[READ_SHUT].client, "shut down for reading");
	send_some(&pairs[READ_SHUT], 0, 100, 0);
	receive_all(&pairs[READ_SHUT], 1, "shut down for reading");
	verify_listener(listener);
}

/* ---- ended: by both, one after the other, or by a reset ---- */

static void set_up_ended(void)
{
	const struct linger now = { 1, 0 };

	listener = listen_here(7);
	for (int i = 0; i < 2; i++)
		pairs[i] = connect_to(listener);
	live_check(shutdown(pairs[0].client, SHUT_WR) == 0, "shutdown: %m");
	await_state(pairs[0].server, TCP_CLOSE_WAIT, "before");
	live_check(shutdown(pairs[0].server, SHUT_WR) == 0, "shutdown: %m");
	await_state(pairs[0].server, TCP_CLOSE, "before");
	await_state(pairs[0].client, TCP_CLOSE, "before");
	live_check(setsockopt(pairs[1].client, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) == 0 &&
			   close(pairs[1].client) == 0,
		   "close: %m");
	await_state(pairs[1].server, TCP_CLOSE, "before");
}

static void verify_ended(void)
{
	char byte;

	for (int i = 0; i < 2; i++) {
		int fd = i ? pairs[0].server : pairs[0].client;

		check_end(fd, "shut down by both");
		check_cannot_send(fd, "shut down by both");
	}
	live_check(recv(pairs[1].server, &byte, 1, 0) < 0 && errno == ECONNRESET, "a reset connection: %m");
	check_end(pairs[1].server, "a reset connection");
	check_cannot_send(pairs[1].server, "a reset connection");
	verify_listener(listener);
}

/* ---- full: the queues of both ends are as long as they can be ---- */

static void set_up_full(void)
{
	listener = listen_here(7);
	pairs[0] = connect_to(listener);
	for (int from = 0; from < 2; from++)
		send_some(&pairs[0], from, SIZE_MAX, MSG_DONTWAIT);
}

static void verify_full(void)
{
	live_check(pairs[0].sent[0] > 100000 && pairs[0].sent[1] > 100000,
		   "only %llu and %llu bytes were sent", (unsigned long long)pairs[0].sent[0],
		   (unsigned long long)pairs[0].sent[1]);
	receive_all(&pairs[0], 0, "the client of full queues");
	receive_all(&pairs[0], 1, "the server of full queues");
	talk(&pairs[0], "a connection with full queues");
}

/* ---- stream: a child sends all the time ---- */

static void send_for_ever(void)
{
	close(pairs[0].client);
	signal(SIGTERM, SIG_IGN);
	while (send_some(&pairs[0], 1, 4096, 0) && !live_stopping())
		;
}

static pid_t child;

static void set_up_stream(void)
{
	listener = listen_here(7);
	pairs[0] = connect_to(listener);
	child = fork();
	live_check(child >= 0, "fork: %m");
	if (!child) {
		send_for_ever();
		_exit(0);
	}
	close(pairs[0].server);
}

static void receive_stream(void)
{
	static char buffer[4096];
	ssize_t count = recv(pairs[0].client, buffer, sizeof(buffer), 0);

	if (count < 0 && errno == EINTR)
		return;
	live_check(count > 0, "the stream has ended: %zd, %m", count);
	for (ssize_t i = 0; i < count; i++)
		live_check(buffer[i] == byte_at(pairs[0].received[0] + i),
			   "the stream has a wrong byte at %llu",
			   (unsigned long long)(pairs[0].received[0] + i));
	pairs[0].received[0] += count;
}

static const struct live_part parts[] = {
	{ "ends", set_up_ends, verify_ends },
	{ "ended", set_up_ended, verify_ended },
	{ "full", set_up_full, verify_full },
};

int main(int argc, char **argv)
{
	if (argc > 3)
		family = argv[3];
	if (argc > 2 && !strcmp(argv[2], "stream")) {
		live_begin(argc, argv);
		set_up_stream();
		live_ready();
		while (!live_stopping())
			receive_stream();
		kill(child, SIGKILL);
		return live_finish();
	}
	return live_run_one(argc, argv, parts);
}
