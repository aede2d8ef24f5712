/*
 * console.c - a console, a serial line or a virtual console: it has several files, settings, and perhaps the session.
 *
 * usage: console DIRECTORY PATH plain|session
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "live.h"

static struct termios old, settings;
static struct stat found;
static int fd, second;

static void set_up(const char *path, bool takes_session)
{
	fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 || tcgetattr(fd, &old) < 0)
		live_skip("no %s here: %m", path);
	if (takes_session && ((getsid(0) != getpid() && setsid() < 0) || ioctl(fd, TIOCSCTTY, 0) < 0))
		live_skip("another session has %s: %m", path);
	settings = old;
	settings.c_lflag ^= ECHO;
	settings.c_cc[VINTR] = 7;
	live_check(tcsetattr(fd, TCSANOW, &settings) == 0 && tcgetattr(fd, &settings) == 0, "tcsetattr: %m");
	second = open(path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
	live_check(second >= 0 && fstat(fd, &found) == 0, "%s: %m", path);
	signal(SIGHUP, SIG_IGN);
}

static void verify(bool has_session)
{
	struct termios now = { 0 };
	struct stat seen;

	live_check(isatty(fd) && fstat(fd, &seen) == 0 && seen.st_rdev == found.st_rdev &&
			   seen.st_ino == found.st_ino,
		   "another file: %m");
	live_check(tcgetattr(fd, &now) == 0 && !memcmp(&now, &settings, sizeof(now)), "other settings: %m");
	live_check(fcntl(fd, F_GETFL) & O_NONBLOCK && !(fcntl(second, F_GETFL) & O_NONBLOCK) &&
			   (fcntl(second, F_GETFL) & O_ACCMODE) == O_WRONLY,
		   "other flags");
	live_check(!has_session || (tcgetsid(fd) == getsid(0) && tcgetpgrp(fd) == getpgrp()),
		   "it does not control the session: %m");
	live_check(tcflush(fd, TCIOFLUSH) == 0 && read(fd, &now, 1) < 0 && errno == EAGAIN, "read: %m");
}

int main(int argc, char **argv)
{
	bool has_session;

	live_begin(argc, argv);
	has_session = !strcmp(argv[3], "session");
	set_up(argv[2], has_session);
	live_ready();
	live_wait_stop();
	verify(has_session);
	tcsetattr(fd, TCSANOW, &old);
	return live_finish();
}
