/*
 * terminal_lost.c - a job of a shell that is restored without a terminal: it has /dev/null in its place.
 *
 * usage: terminal_lost DIRECTORY standard|tty|epoll     (on a terminal; tty: it has /dev/tty open, too; epoll: it
 * watches its input)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "live.h"

static int second, controlling = -1, epoll = -1, ends[2];

static bool is_null(int fd)
{
	struct stat found;

	return fstat(fd, &found) == 0 && found.st_rdev == makedev(1, 3);
}

static void set_up(const char *kind)
{
	second = open(ttyname(0), O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	live_check(second >= 0, "open: %m");
	if (strcmp(kind, "tty") == 0) {
		controlling = open("/dev/tty", O_RDWR);
		live_check(controlling >= 0, "/dev/tty: %m");
	}
	if (strcmp(kind, "epoll") == 0) {
		struct epoll_event input = { .events = EPOLLIN, .data.u32 = 1 };
		struct epoll_event other = { .events = EPOLLIN, .data.u32 = 2 };

		epoll = epoll_create1(0);
		live_check(pipe(ends) == 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &input) == 0 &&
				   epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &other) == 0,
			   "epoll: %m");
	}
}

static void look(void)
{
	char byte;

	for (int fd = 0; fd < 3; fd++)
		live_check(is_null(fd) && !isatty(fd), "descriptor %d is not /dev/null", fd);
	live_check(is_null(second) && is_null(controlling < 0 ? 0 : controlling),
		   "the descriptor of the other terminal is not /dev/null");
	live_check(read(0, &byte, 1) == 0, "something was read");
	live_check(write(1, "x", 1) == 1 && write(second, "x", 1) == 1, "write: %m");
	live_check((fcntl(second, F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == (O_WRONLY | O_NONBLOCK) &&
			   fcntl(second, F_GETFD) == FD_CLOEXEC,
		   "wrong flags");
	if (epoll >= 0) {
		struct epoll_event told;

		live_check(epoll_wait(epoll, &told, 1, 0) == 0, "epoll reports an event");
		live_check(write(ends[1], "x", 1) == 1 && epoll_wait(epoll, &told, 1, 0) == 1 &&
				   told.data.u32 == 2,
			   "epoll does not report the pipe");
	}
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	set_up(argv[2]);
	live_ready();
	live_wait_stop();
	look();
	return live_finish();
}
