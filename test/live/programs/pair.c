/*
 * pair.c - a terminal with both ends in the tree: the parent has the master, and a session is on the slave.
 *
 * usage: pair DIRECTORY plain|waiting|flood|stopped|tty|foreground|packets|typed|moved
 * moved: there is a second terminal, and the first one has another name after the restore
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "live.h"
#include "told.h"

#define FLOOD 10000

static const char *kind;
static struct termios settings;
static char name[64];
static char second_name[64];
static int master, second, second_slave;
static pid_t session, other;

static bool is(const char *wanted)
{
	return strcmp(kind, wanted) == 0;
}

/* Writes more than a terminal itself can buffer. */
static void flood(void)
{
	char text[FLOOD];

	for (int i = 0; i < FLOOD; i++)
		text[i] = 'a' + i / 16 % 26;
	live_check(write(1, text, FLOOD) == FLOOD, "write: %m");
}

/* Answers lines, through /dev/tty if it has that open. */
static void answer(void)
{
	int in = is("tty") ? open("/dev/tty", O_RDWR) : 0, number = 0;
	char line[100];

	if (is("flood"))
		flood();
	if (is("tty"))
		for (int fd = 0; fd < 3; fd++)
			close(fd);
	signal(SIGTERM, SIG_DFL);
	tell();
	for (;;) {
		ssize_t length = read(in, line, sizeof(line) - 1);

		live_check(length > 0, "the session reads %zd: %m", length);
		line[length] = '\0';
		dprintf(in ? in : 1, "%d %s", ++number, line);
	}
}

static void expect_flood(void)
{
	char text[FLOOD];

	for (int have = 0; have < FLOOD;) {
		ssize_t got = read(master, text + have, FLOOD - have);

		live_check(got > 0 || errno == EINTR, "%d bytes of the flood came: %m", have);
		have += got > 0 ? got : 0;
	}
	for (int i = 0; i < FLOOD; i++)
		live_check(text[i] == 'a' + i / 16 % 26, "byte %d of the flood is %c", i, text[i]);
}

/* The leader waits in the background, as a shell does. Its child's process group is in the foreground. */
static void lead(void)
{
	if (!is("foreground"))
		answer();
	signal(SIGTTOU, SIG_IGN);
	other = fork();
	setpgid(other, other);
	if (!other) {
		tcsetpgrp(0, getpid());
		signal(SIGTTOU, SIG_DFL);
		answer();
	}
	for (;;)
		pause();
}

static void expect(const char *text)
{
	char buffer[200];
	size_t have = 0, wanted = strlen(text);

	while (have < wanted) {
		ssize_t got = read(master, buffer + have, sizeof(buffer) - have);

		if (got < 0 && errno == EINTR)
			continue;
		live_check(got > 0, "the master reads %zd: %m", got);
		have += got;
	}
	live_check(have == wanted && memcmp(buffer, text, wanted) == 0, "\"%.*s\" came, not \"%s\"",
		   (int)have, buffer, text);
}

static void type(const char *text)
{
	live_check(write(master, text, strlen(text)) == (ssize_t)strlen(text), "write: %m");
}

static int slave_of_master(void)
{
	static int slave = -1;

	if (slave < 0)
		slave = open(name, O_RDWR | O_NOCTTY);
	live_check(slave >= 0, "%s: %m", name);
	return slave;
}

static void set_up(void)
{
	struct winsize size = { .ws_row = 7, .ws_col = 70, .ws_xpixel = 700, .ws_ypixel = 77 };
	int one = 1;

	live_check(pipe(told) == 0, "pipe: %m");
	cfmakeraw(&settings);
	settings.c_lflag = ICANON;
	settings.c_oflag = OPOST | ONLCR;
	settings.c_cflag = CS8 | CREAD | B19200;
	settings.c_cc[VEOF] = 4;
	session = forkpty(&master, name, &settings, &size);
	live_check(session >= 0, "forkpty: %m");
	if (!session)
		lead();
	hear();
	live_check(fchmodat(AT_FDCWD, name, 0640, 0) == 0 && chown(name, 65534, 5) == 0, "%s: %m", name);
	if (is("moved"))
		live_check(openpty(&second, &second_slave, second_name, NULL, NULL) == 0, "openpty: %m");
	if (is("flood"))
		return;
	type("one\n");
	if (is("waiting") || is("stopped"))
		live_sleep(0.1);
	else
		expect("1 one\r\n");
	if (is("stopped"))
		live_check(tcflow(slave_of_master(), TCOOFF) == 0, "tcflow: %m");
	if (is("packets"))
		live_check(ioctl(master, TIOCPKT, &one) == 0, "TIOCPKT: %m");
	if (is("typed"))
		type("two in\\ one word"); /* without the end of the line */
}

static void verify_settings(void)
{
	char path[64];
	struct winsize size;
	struct termios now, then = settings;
	struct stat found;
	int packets = 0;

	live_check(ptsname_r(master, path, sizeof(path)) == 0 && !strcmp(path, name) == !is("moved"),
		   "the terminal is %s, but was %s", path, name);
	strcpy(name, path);
	if (is("moved"))
		live_check(ptsname_r(second, path, sizeof(path)) == 0 && !strcmp(path, second_name) &&
				   !strcmp(ttyname(second_slave), second_name),
			   "the second terminal is %s, but was %s", path, second_name);
	live_check(ioctl(master, TIOCGWINSZ, &size) == 0 && size.ws_row == 7 && size.ws_ypixel == 77,
		   "another size");
	live_check(tcgetattr(master, &now) == 0 && now.c_lflag == then.c_lflag &&
			   now.c_oflag == then.c_oflag && now.c_iflag == then.c_iflag &&
			   !memcmp(now.c_cc, then.c_cc, 19) && cfgetospeed(&now) == B19200,
		   "other settings");
	live_check(stat(name, &found) == 0 && found.st_uid == 65534 && found.st_gid == 5 &&
			   (found.st_mode & 0777) == 0640,
		   "owner or mode of %s has changed", name);
	live_check(ioctl(master, TIOCGPKT, &packets) == 0 && packets == is("packets"),
		   "the packet mode has changed");
	live_check(tcgetsid(master) == session && (tcgetpgrp(master) == session) == !is("foreground"),
		   "session %d, foreground %d of %d", tcgetsid(master), tcgetpgrp(master), session);
}

static void verify(void)
{
	verify_settings();
	if (is("packets")) {
		int zero = 0;
		char byte;

		type("two\n");
		live_check(read(master, &byte, 1) == 1 && byte == TIOCPKT_DATA,
			   "the master does not send packets");
		live_sleep(0.1);
		tcflush(master, TCIFLUSH);
		ioctl(master, TIOCPKT, &zero);
		return;
	}
	if (is("flood")) {
		expect_flood();
		type("one\n");
	}
	if (is("stopped"))
		live_check(tcflow(slave_of_master(), TCOON) == 0, "tcflow: %m");
	if (is("waiting") || is("flood") || is("stopped"))
		expect("1 one\r\n");
	type(is("typed") ? " now\n" : "two\n");
	expect(is("typed") ? "2 two in\\ one word now\r\n" : "2 two\r\n");
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	kind = argv[2];
	set_up();
	live_ready();
	live_wait_stop();
	verify();
	kill(-tcgetpgrp(master), SIGKILL);
	kill(session, SIGKILL);
	return live_finish();
}
