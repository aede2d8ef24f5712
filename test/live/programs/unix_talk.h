/*
 * unix_talk.h - what the programs about unix sockets share: they create, connect and ask them.
 */
#ifndef TEST_UNIX_TALK_H
#define TEST_UNIX_TALK_H

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

#define MOST 64
static int fds[MOST];

static inline int new_socket(int type)
{
	int fd = socket(AF_UNIX, type, 0);

	live_check(fd >= 0, "socket: %m");
	return fd;
}

static inline socklen_t fill_name(struct sockaddr_un *address, const char *name, size_t size)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(address->sun_path, name, size);
	return offsetof(struct sockaddr_un, sun_path) + size;
}

/* `size`: of the name, without a final 0 byte. */
static inline void bind_to(int fd, const char *name, size_t size)
{
	struct sockaddr_un address;

	live_check(bind(fd, (struct sockaddr *)&address, fill_name(&address, name, size)) == 0, "bind %s: %m",
		   name);
}

static inline void connect_to(int fd, const char *name, size_t size)
{
	struct sockaddr_un address;

	live_check(connect(fd, (struct sockaddr *)&address, fill_name(&address, name, size)) == 0,
		   "connect to %s: %m", name);
}

static inline int listen_at(int type, const char *name, int backlog)
{
	int fd = new_socket(type);

	bind_to(fd, name, strlen(name));
	live_check(listen(fd, backlog) == 0, "listen: %m");
	return fd;
}

static inline int connected_to(int type, const char *name)
{
	int fd = new_socket(type);

	connect_to(fd, name, strlen(name));
	return fd;
}

static inline int accept_from(int listener)
{
	int fd = accept(listener, NULL, NULL);

	live_check(fd >= 0, "accept: %m");
	return fd;
}

/* `size`: of the name, with a final 0 byte if it is a path. */
static inline void check_name(int fd, const char *name, size_t size, const char *what)
{
	char address[sizeof(struct sockaddr_un) + 1];
	socklen_t length = sizeof(address), start = offsetof(struct sockaddr_un, sun_path);

	live_check(getsockname(fd, (struct sockaddr *)address, &length) == 0, "getsockname: %m");
	live_check(length == start + size && !memcmp(address + start, name, size),
		   "%s: the name has %d bytes (%.*s), not %zu", what, (int)(length - start),
		   (int)(length - start), address + start, size);
}

static inline void check_peer_name(int fd, const char *name, size_t size, const char *what)
{
	char address[sizeof(struct sockaddr_un) + 1];
	socklen_t length = sizeof(address), start = offsetof(struct sockaddr_un, sun_path);

	live_check(getpeername(fd, (struct sockaddr *)address, &length) == 0, "%s: getpeername: %m", what);
	live_check(length == start + size && !memcmp(address + start, name, size),
		   "%s: the name of the peer has %d bytes, not %zu", what, (int)(length - start), size);
}

static inline void talk(int from, int to, const char *what)
{
	char buffer[8];

	live_check(send(from, "word", 4, MSG_NOSIGNAL | MSG_DONTWAIT) == 4, "%s: send: %m", what);
	live_check(recv(to, buffer, sizeof(buffer), MSG_DONTWAIT) == 4 && !memcmp(buffer, "word", 4),
		   "%s: recv: %m", what);
}

static inline void talk_both(int a, int b, const char *what)
{
	talk(a, b, what);
	talk(b, a, what);
}

static inline short events_of(int fd)
{
	struct pollfd asked = { .fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP };

	live_check(poll(&asked, 1, 0) >= 0, "poll: %m");
	return asked.revents;
}

static inline void check_error(ssize_t result, int error, const char *what)
{
	live_check(result < 0 && errno == error, "%s: %zd, %m; not %s", what, result, strerror(error));
}

/* ---- what comes with bytes ---- */

struct told {
	struct ucred sender;
	bool has_sender;
	int fds[4];
	size_t fd_count;
	char bytes[64];
	ssize_t size;
};

static inline struct told receive_told(int fd)
{
	struct told told = { 0 };
	char control[256] __attribute__((aligned(8)));
	struct iovec bytes = { told.bytes, sizeof(told.bytes) };
	struct msghdr message = {
		.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
	};

	told.size = recvmsg(fd, &message, MSG_DONTWAIT);
	live_check(told.size >= 0, "recvmsg: %m");
	for (struct cmsghdr *one = CMSG_FIRSTHDR(&message); one; one = CMSG_NXTHDR(&message, one)) {
		if (one->cmsg_type == SCM_CREDENTIALS) {
			memcpy(&told.sender, CMSG_DATA(one), sizeof(told.sender));
			told.has_sender = true;
		}
		if (one->cmsg_type == SCM_RIGHTS) {
			told.fd_count = (one->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(told.fds, CMSG_DATA(one), told.fd_count * sizeof(int));
		}
	}
	return told;
}

static inline void send_with(int fd, const char *bytes, const int *sent, size_t count)
{
	char control[CMSG_SPACE(4 * sizeof(int))] __attribute__((aligned(8))) = "";
	struct cmsghdr *header = (struct cmsghdr *)control;
	struct iovec part = { (void *)bytes, strlen(bytes) };
	struct msghdr message = { .msg_iov = &part,
				  .msg_iovlen = 1,
				  .msg_control = control,
				  .msg_controllen = CMSG_SPACE(count * sizeof(int)) };

	*header = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
				    .cmsg_type = SCM_RIGHTS,
				    .cmsg_len = CMSG_LEN(count * sizeof(int)) };
	memcpy(CMSG_DATA(header), sent, count * sizeof(int));
	live_check(sendmsg(fd, &message, 0) == (ssize_t)part.iov_len, "sendmsg: %m");
}

#endif
