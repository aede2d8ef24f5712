/*
 * tcp_echo.c - a server that sends back what it gets, for clients that the harness has: they are not in the tree.
 *
 * usage: tcp_echo DIRECTORY [4|6]. The file "port" has its port.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "live.h"

#define MOST 1100

static struct pollfd fds[MOST];
static int count;

static void begin_to_listen(bool is_six)
{
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_in four = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const struct sockaddr *address = is_six ? (struct sockaddr *)&six : (struct sockaddr *)&four;
	socklen_t size = is_six ? sizeof(six) : sizeof(four);
	int fd = socket(is_six ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
	char text[16];

	live_check(fd >= 0 && bind(fd, address, size) == 0 && listen(fd, MOST) == 0, "listen: %m");
	live_check(getsockname(fd, (struct sockaddr *)&six, &size) == 0, "getsockname: %m");
	snprintf(text, sizeof(text), "%u", ntohs(six.sin6_port)); /* of both families */
	live_note("port", text);
	fds[count++] = (struct pollfd){ .fd = fd, .events = POLLIN };
}

/* False: the client has closed the connection. */
static bool echo(int fd)
{
	char buffer[65536];
	ssize_t size = recv(fd, buffer, sizeof(buffer), 0);

	live_check(size >= 0, "recv: %m");
	for (ssize_t done = 0; done < size;) {
		ssize_t sent = send(fd, buffer + done, size - done, MSG_NOSIGNAL);

		live_check(sent > 0, "send: %m");
		done += sent;
	}
	return size > 0;
}

static void serve(void)
{
	if (poll(fds, count, 50) < 0 && errno != EINTR)
		live_fail("poll: %m");
	for (int i = count - 1; i > 0; i--)
		if (fds[i].revents && !echo(fds[i].fd)) {
			close(fds[i].fd);
			fds[i] = fds[--count];
		}
	if (fds[0].revents) {
		live_check(count < MOST, "too many clients");
		fds[count] = (struct pollfd){ .fd = accept(fds[0].fd, NULL, NULL), .events = POLLIN };
		live_check(fds[count++].fd >= 0, "accept: %m");
	}
	for (int i = 0; i < count; i++)
		fds[i].revents = 0;
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	begin_to_listen(argc > 2 && argv[2][0] == '6');
	live_ready();
	while (!live_stopping())
		serve();
	return live_finish();
}
