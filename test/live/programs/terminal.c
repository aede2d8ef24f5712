/*
 * terminal.c - a job of a shell: it answers every line that is typed, and checks its terminal at the end.
 *
 * usage: terminal DIRECTORY standard|tty     (on a terminal; tty: it also has /dev/tty open)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "live.h"

static struct termios settings;
static int second, controlling = -1;

static void look(const char *when)
{
	struct termios now = { 0 };
	struct winsize size;

	for (int fd = 0; fd < 3; fd++)
		live_check(isatty(fd), "%s: descriptor %d is no terminal", when, fd);
	live_check(tcgetattr(0, &now) == 0 && memcmp(&now, &settings, sizeof(now)) == 0, "%s: other settings",
		   when);
	live_check(ioctl(0, TIOCGWINSZ, &size) == 0 && size.ws_row == 33 && size.ws_col == 111,
		   "%s: %d rows, %d columns", when, size.ws_row, size.ws_col);
	live_check(fcntl(second, F_GETFL) & O_NONBLOCK && !(fcntl(0, F_GETFL) & O_NONBLOCK),
		   "%s: wrong O_NONBLOCK", when);
	live_check((fcntl(second, F_GETFL) & O_ACCMODE) == O_WRONLY && fcntl(second, F_GETFD) == FD_CLOEXEC,
		   "%s: wrong flags", when);
	live_check(tcgetpgrp(0) == getpgrp(), "%s: in the background: group %d, not %d", when, tcgetpgrp(0),
		   getpgrp());
	if (controlling >= 0)
		live_check(tcgetpgrp(controlling) == getpgrp() && tcgetsid(controlling) == getsid(0),
			   "%s: /dev/tty: %m", when);
}

static void set_up(const char *kind)
{
	live_check(tcgetattr(0, &settings) == 0, "tcgetattr: %m");
	settings.c_lflag &= ~ECHO;
	settings.c_iflag |= IUTF8;
	settings.c_cc[VINTR] = 7;
	live_check(tcsetattr(0, TCSANOW, &settings) == 0 && tcgetattr(0, &settings) == 0, "tcsetattr: %m");
	second = open(ttyname(0), O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	live_check(second >= 0, "open: %m");
	if (strcmp(kind, "tty") == 0) {
		controlling = open("/dev/tty", O_RDWR);
		live_check(controlling >= 0, "/dev/tty: %m");
	}
}

int main(int argc, char **argv)
{
	char line[100];
	int number = 0;

	live_begin(argc, argv);
	set_up(argv[2]);
	look("at first");
	live_ready();
	while (!live_stopping()) {
		ssize_t length = read(0, line, sizeof(line) - 1);

		if (length < 0 && errno == EINTR)
			continue;
		live_check(length > 0, "read: %m");
		line[length] = '\0';
		number++;
		dprintf(number % 2 || controlling < 0 ? 1 : controlling, "%d %s", number, line);
	}
	look("at the end");
	return live_finish();
}
