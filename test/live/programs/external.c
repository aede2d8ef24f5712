/*
 * external.c - files from outside of the tree: answers every line of its standard input on its standard output, and
 * looks at both, which a child shares.
 *
 * usage: external DIRECTORY flags|any|terminal     (flags: those of both files stay; terminal: both are one)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "live.h"

#define LARGE 0100000 /* O_LARGEFILE, which each open() of 64 bits has */

static int flags[2], copy;
static struct termios settings;
static pid_t child;

static void idle(void)
{
	signal(SIGTERM, live_stop_child);
	for (;;)
		pause();
}

static void look_at_terminal(void)
{
	struct termios now = { 0 };
	struct winsize size;

	live_check(tcgetattr(0, &now) == 0 && !memcmp(&now, &settings, sizeof(now)), "other settings: %m");
	live_check(ioctl(0, TIOCGWINSZ, &size) == 0 && size.ws_row == 33 && size.ws_col == 111,
		   "the size is %d x %d", size.ws_row, size.ws_col);
	live_check(tcgetsid(0) == getsid(0) && tcgetpgrp(0) == getpgrp(),
		   "the terminal does not control the session: %m");
}

static void look(const char *kind)
{
	for (int fd = 0; fd < 2; fd++) {
		live_check(strcmp(kind, "flags") || (fcntl(fd, F_GETFL) & ~LARGE) == (flags[fd] & ~LARGE),
			   "file %d has flags %#o, not %#o", fd, fcntl(fd, F_GETFL), flags[fd]);
		live_check(syscall(SYS_kcmp, getpid(), child, KCMP_FILE, fd, fd) == 0,
			   "the child does not share file %d", fd);
	}
	live_check(syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, 1, copy) == 0, "%d is no copy of 1",
		   copy);
	live_check(fcntl(copy, F_GETFD) == FD_CLOEXEC && fcntl(1, F_GETFD) == 0, "wrong FD_CLOEXEC");
	if (!strcmp(kind, "terminal"))
		look_at_terminal();
}

static void set_up(const char *kind)
{
	if (!strcmp(kind, "flags"))
		live_check(fcntl(1, F_SETFL, fcntl(1, F_GETFL) | O_NONBLOCK) == 0, "F_SETFL: %m");
	if (!strcmp(kind, "terminal")) {
		live_check(tcgetattr(0, &settings) == 0, "tcgetattr: %m");
		settings.c_lflag &= ~ECHO;
		settings.c_cc[VINTR] = 7;
		live_check(tcsetattr(0, TCSANOW, &settings) == 0 && tcgetattr(0, &settings) == 0,
			   "tcsetattr: %m");
	}
	for (int fd = 0; fd < 2; fd++)
		flags[fd] = fcntl(fd, F_GETFL);
	copy = fcntl(1, F_DUPFD_CLOEXEC, 30);
	child = live_fork(idle);
}

/* Byte by byte: a line of a regular file ends where the next read begins. */
static bool read_line(char *line, size_t size)
{
	size_t length = 0;
	char letter;

	while (!live_stopping()) {
		ssize_t got;

		if (!length)
			poll(&(struct pollfd){ .events = POLLIN }, 1, 50);
		got = live_stopping() ? 0 : read(0, &letter, 1);
		if (got <= 0) {
			live_check(got == 0 || errno == EAGAIN || errno == EINTR, "read: %m");
			live_sleep(0.01);
			continue;
		}
		live_check(length + 1 < size, "a long line");
		line[length++] = letter;
		if (letter != '\n')
			continue;
		line[length] = '\0';
		return true;
	}
	return false;
}

int main(int argc, char **argv)
{
	char line[100], answer[120];
	int number = 0;

	live_begin(argc, argv);
	live_check(argc == 3, "usage: external DIRECTORY flags|any|terminal");
	set_up(argv[2]);
	live_ready();
	while (read_line(line, sizeof(line))) {
		int length = snprintf(answer, sizeof(answer), "%d %s", ++number, line);

		look(argv[2]);
		live_check(write(copy, answer, length) == length, "write: %m");
	}
	look(argv[2]);
	live_join(child);
	return live_finish();
}
