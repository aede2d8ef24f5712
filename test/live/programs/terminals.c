/*
 * terminals.c - terminals in unusual states, of which the process has the remaining ends itself.
 *
 * usage: terminals DIRECTORY KIND     (a row of the table `kinds`)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
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

#define MANY 150

static int master, slave, copy, controlling;
static char name[64];
static struct termios settings;

static void open_pair(void)
{
	struct winsize size = { .ws_row = 9, .ws_col = 90, .ws_xpixel = 900, .ws_ypixel = 99 };

	cfmakeraw(&settings);
	settings.c_cflag = CS8 | CREAD | B9600;
	live_check(openpty(&master, &slave, name, &settings, &size) == 0, "openpty: %m");
}

static void set(tcflag_t local, tcflag_t input)
{
	settings.c_lflag = local;
	settings.c_iflag = input;
	live_check(tcsetattr(slave, TCSANOW, &settings) == 0, "tcsetattr: %m");
}

static short events(int fd)
{
	struct pollfd asked = { .fd = fd, .events = POLLIN | POLLOUT | POLLPRI };

	live_check(poll(&asked, 1, 0) >= 0, "poll: %m");
	return asked.revents;
}

static void put(int fd, const char *text, size_t size)
{
	live_check(write(fd, text, size) == (ssize_t)size, "write: %m");
}

/* What is there at once, and whether anything follows. */
static void expect(int fd, const char *text, size_t size, const char *what)
{
	char buffer[20000] = { 0 };
	size_t have = 0;
	int waiting = 0;

	while (have < size) {
		struct pollfd asked = { .fd = fd, .events = POLLIN };
		ssize_t got;

		live_check(poll(&asked, 1, 5000) > 0, "%s: %zu of %zu bytes came", what, have, size);
		got = read(fd, buffer + have, size - have);
		live_check(got > 0, "%s: %zd after %zu of %zu bytes: %m", what, got, have, size);
		have += got;
	}
	live_check(!memcmp(buffer, text, size), "%s: other bytes: %.*s", what, (int)size, buffer);
	live_check(ioctl(fd, FIONREAD, &waiting) == 0 && waiting == 0, "%s: %d bytes follow", what, waiting);
}

static void expect_read(int fd, const char *text, const char *what)
{
	char buffer[5000];
	ssize_t got = read(fd, buffer, sizeof(buffer));

	live_check(got == (ssize_t)strlen(text) && !memcmp(buffer, text, got), "%s: read %zd: %.*s", what,
		   got, (int)(got > 0 ? got : 0), buffer);
}

/* ---- the master has gone ---- */

static struct stat before[2];

static void set_up_hung_up(void)
{
	open_pair();
	live_check(fchown(slave, 65534, 5) == 0 && fchmod(slave, 0640) == 0, "fchown: %m");
	copy = open(name, O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	live_check(copy >= 0 && fcntl(slave, F_DUPFD, 50) == 50 && fcntl(slave, F_SETOWN, getpid()) == 0,
		   "%s: %m", name);
	close(master);
	live_check(fstat(slave, &before[0]) == 0 && fstat(copy, &before[1]) == 0, "fstat: %m");
	openpty(&master, &controlling, name, NULL, NULL);
}

static void look_hung_up(int fd, const struct stat *was)
{
	struct termios now;
	struct stat found;
	char byte;

	live_check(events(fd) == (POLLIN | POLLOUT | POLLERR | POLLHUP) ||
			   events(fd) == (POLLIN | POLLOUT | POLLHUP),
		   "descriptor %d has events %#x", fd, events(fd));
	live_check(tcgetattr(fd, &now) < 0 && errno == EIO, "it has settings");
	live_check(write(fd, "x", 1) < 0 && (errno == EIO || errno == EBADF),
		   "something could be written: %m");
	live_check((fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY || read(fd, &byte, 1) == 0,
		   "something could be read: %m");
	live_check(fstat(fd, &found) == 0 && found.st_rdev == was->st_rdev && found.st_uid == was->st_uid &&
			   found.st_gid == was->st_gid && found.st_mode == was->st_mode &&
			   found.st_nlink == was->st_nlink,
		   "another stat: %x %d %d %o %d", (unsigned)found.st_rdev, found.st_uid, found.st_gid,
		   found.st_mode, (int)found.st_nlink);
}

static void verify_hung_up(void)
{
	look_hung_up(slave, &before[0]);
	look_hung_up(50, &before[0]);
	look_hung_up(copy, &before[1]);
	live_check(fcntl(copy, F_GETFD) == FD_CLOEXEC && fcntl(copy, F_GETFL) & O_NONBLOCK, "other flags");
	live_check(fcntl(slave, F_GETOWN) == getpid(), "another owner");
	live_check(tcgetpgrp(controlling) < 0 && isatty(controlling), "the other terminal: %m");
	put(master, "x\n", 2);
	expect_read(controlling, "x\n", "the other terminal");
}

/* A session has opened /dev/tty, and then its terminal has gone. */
static void hang_up_session(void)
{
	if (getsid(0) != getpid())
		live_check(setsid() > 0, "setsid: %m");
	signal(SIGHUP, SIG_IGN);
	open_pair();
	live_check(ioctl(slave, TIOCSCTTY, 0) == 0, "TIOCSCTTY: %m");
	controlling = open("/dev/tty", O_RDWR | O_NONBLOCK);
	live_check(controlling >= 0, "/dev/tty: %m");
	close(master);
	live_check(fstat(controlling, &before[0]) == 0 && fstat(slave, &before[1]) == 0, "fstat: %m");
}

static void verify_session(void)
{
	int now = open("/dev/tty", O_RDWR);

	live_check(now < 0 && errno == ENXIO, "the session has a terminal: %m");
	look_hung_up(controlling, &before[0]);
	look_hung_up(slave, &before[1]);
}

/* ---- the slave has gone, or was never there ---- */

static void set_up_alone(void)
{
	open_pair();
	set(ICANON, 0);
	put(slave, "unread", 6);
	put(master, "typed\n", 6);
	live_check(poll(&(struct pollfd){ .fd = slave, .events = POLLIN }, 1, 5000) == 1, "poll: %m");
	close(slave);
	live_check(events(master) & POLLHUP, "the master has events %#x", events(master));
}

static void verify_alone(void)
{
	char byte;

	live_check(events(master) & POLLHUP, "the master has events %#x", events(master));
	expect(master, "unread", 6, "what the slave had written");
	live_check(read(master, &byte, 1) < 0 && errno == EIO, "no EIO, although the slave has gone");
	slave = open(name, O_RDWR | O_NOCTTY);
	live_check(slave >= 0 && !(events(master) & POLLHUP), "%s: %m", name);
	expect_read(slave, "typed\n", "what was typed");
	put(slave, "more", 4);
	expect(master, "more", 4, "what the new slave writes");
}

static void set_up_fresh(void)
{
	int zero = 0;

	master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
	live_check(master >= 0 && ioctl(master, TIOCSPTLCK, &zero) == 0 &&
			   ptsname_r(master, name, sizeof(name)) == 0,
		   "posix_openpt: %m");
	live_check(tcgetattr(master, &settings) == 0, "tcgetattr: %m");
	settings.c_lflag = ICANON;
	live_check(tcsetattr(master, TCSANOW, &settings) == 0 && !(events(master) & POLLHUP),
		   "tcsetattr: %m");
}

static void verify_fresh(void)
{
	struct termios now;
	char byte;

	live_check(!(events(master) & POLLHUP) && read(master, &byte, 1) < 0 && errno == EAGAIN,
		   "the master has noticed a slave: events %#x, %m", events(master));
	live_check(tcgetattr(master, &now) == 0 && now.c_lflag == ICANON, "other settings");
	slave = open(name, O_RDWR | O_NOCTTY);
	put(master, "typed\n", 6);
	live_check(slave >= 0, "%s: %m", name);
	expect_read(slave, "typed\n", "what was typed");
}

/* ---- what was typed ---- */

static void set_up_ends(void)
{
	open_pair();
	settings.c_cc[VEOF] = 4;
	settings.c_cc[VEOL] = ';';
	settings.c_cc[VLNEXT] = 22;
	set(ICANON | IEXTEN, 0);
	put(master, "one\ntwo;thr\004\004\026\004 five\nrest", 25);
	live_check(poll(&(struct pollfd){ .fd = slave, .events = POLLIN }, 1, 5000) == 1, "poll: %m");
}

static void verify_ends(void)
{
	expect_read(slave, "one\n", "the first line");
	expect_read(slave, "two;", "a line with another end");
	expect_read(slave, "thr", "what was before the end of file");
	expect_read(slave, "", "the end of file");
	expect_read(slave, "\004 five\n", "a quoted character");
	put(master, "\n", 1);
	expect_read(slave, "rest\n", "an incomplete line");
}

static void set_up_raw(void)
{
	char text[3000];

	open_pair();
	live_fill(text, sizeof(text), 5);
	put(master, text, sizeof(text));
	put(slave, text, sizeof(text));
	live_check(poll(&(struct pollfd){ .fd = slave, .events = POLLIN }, 1, 5000) == 1, "poll: %m");
}

static void verify_raw(void)
{
	char text[3000];

	live_fill(text, sizeof(text), 5);
	expect(slave, text, sizeof(text), "what was typed");
	expect(master, text, sizeof(text), "what was written");
}

/* ^S and ^Q were typed while they meant nothing. Now they would, but these were received before. */
static void set_up_flow_control(void)
{
	open_pair();
	put(master, "a\023b\021c\023d", 7);
	live_check(poll(&(struct pollfd){ .fd = slave, .events = POLLIN }, 1, 5000) == 1, "poll: %m");
	settings.c_cc[VSTART] = 17;
	settings.c_cc[VSTOP] = 19;
	set(0, IXON);
}

static void verify_flow_control(void)
{
	live_check(events(slave) & POLLOUT, "output is stopped");
	expect(slave, "a\023b\021c\023d", 7, "what was typed");
	put(slave, "more", 4);
	expect(master, "more", 4, "what was written");
}

/* ---- packet mode ---- */

static void packets(void)
{
	int one = 1;

	live_check(ioctl(master, TIOCPKT, &one) == 0, "TIOCPKT: %m");
}

static void set_up_packets(void)
{
	open_pair();
	set(ICANON, 0);
	packets();
	put(slave, "output", 6);
	put(master, "typed\n", 6);
	live_check(poll(&(struct pollfd){ .fd = slave, .events = POLLIN }, 1, 5000) == 1, "poll: %m");
}

static void verify_packets(void)
{
	int mode = 0;

	live_check(ioctl(master, TIOCGPKT, &mode) == 0 && mode == 1, "not in packet mode");
	live_check(!(events(master) & POLLPRI), "there is something to tell: %#x", events(master));
	expect_read(slave, "typed\n", "what was typed");
	live_check(read(master, name, 1) == 1 && name[0] == TIOCPKT_DATA, "not a packet of data: %d",
		   name[0]);
	live_check(read(master, name, 10) == 7 && !memcmp(name, "\0output", 7), "another packet: %.10s",
		   name);
}

static const uint8_t told = TIOCPKT_FLUSHREAD | TIOCPKT_FLUSHWRITE | TIOCPKT_NOSTOP | TIOCPKT_START;

static void set_up_told(void)
{
	open_pair();
	settings.c_cc[VSTART] = 17;
	settings.c_cc[VSTOP] = 19;
	set(ICANON, IXON);
	packets();
	live_check(tcflush(slave, TCIOFLUSH) == 0 && tcflow(slave, TCOOFF) == 0 && tcflow(slave, TCOON) == 0,
		   "tcflush: %m");
	set(ICANON, 0);
	put(slave, "output", 6);
	put(master, "typed\n", 6);
	live_check(poll(&(struct pollfd){ .fd = slave, .events = POLLIN }, 1, 5000) == 1, "poll: %m");
}

static void verify_told(void)
{
	struct termios now;

	live_check(events(master) & POLLPRI, "there is nothing to tell: %#x", events(master));
	live_check(read(master, name, 10) == 1 && (uint8_t)name[0] == told, "%#x is told, not %#x", name[0],
		   told);
	live_check(read(master, name, 10) == 7 && !memcmp(name, "\0output", 7), "another packet: %.10s",
		   name);
	expect_read(slave, "typed\n", "what was typed");
	live_check(tcgetattr(slave, &now) == 0 && !(now.c_iflag & IXON) && now.c_lflag == ICANON,
		   "other settings");
}

/* ---- stopped output ---- */

static void stop_by_call(void)
{
	open_pair();
	put(slave, "output", 6);
	live_check(tcflow(slave, TCOOFF) == 0, "tcflow: %m");
}

static void stop_by_character(void)
{
	open_pair();
	settings.c_cc[VSTART] = 17;
	settings.c_cc[VSTOP] = 19;
	set(ICANON, IXON);
	put(slave, "output", 6);
	put(master, "\023", 1);
	while (events(slave) & POLLOUT)
		live_sleep(0.001);
}

static void look_stopped(void)
{
	live_check(!(events(slave) & POLLOUT), "the output is not stopped");
	expect(master, "output", 6, "what was written before");
	live_check(!(events(slave) & POLLOUT), "the output is not stopped");
}

static void verify_stopped_by_call(void)
{
	look_stopped();
	live_check(tcflow(slave, TCOON) == 0 && events(slave) & POLLOUT, "it does not start: %m");
}

static void verify_stopped_by_character(void)
{
	look_stopped();
	live_check(tcflow(slave, TCOON) == 0 && !(events(slave) & POLLOUT), "it was stopped by a call");
	put(master, "\021", 1);
	live_sleep(0.05);
	live_check(events(slave) & POLLOUT, "^Q does not start it");
	live_check(!(events(slave) & POLLIN), "^Q was typed");
}

/* What was typed while the output is stopped is echoed later, and behind the output. */
static void set_up_echo(void)
{
	open_pair();
	settings.c_cc[VSTART] = 17;
	settings.c_cc[VSTOP] = 19;
	set(ECHO, IXON);
	put(slave, "output", 6);
	put(master, "\023ls", 3);
	live_check(poll(&(struct pollfd){ .fd = slave, .events = POLLIN }, 1, 5000) == 1, "poll: %m");
}

static void verify_echo(void)
{
	live_check(!(events(slave) & POLLOUT), "the output is not stopped");
	expect(slave, "ls", 2, "what was typed");
	put(master, "\021", 1);
	expect(master, "outputls", 8, "output and echo");
}

/* ---- locks ---- */

static void set_up_exclusive(void)
{
	open_pair();
	copy = open(name, O_RDWR | O_NOCTTY);
	live_check(ioctl(slave, TIOCEXCL) == 0, "TIOCEXCL: %m");
}

static void verify_exclusive(void)
{
	int here = 0, there = 1;

	live_check(ioctl(slave, TIOCGEXCL, &here) == 0 && ioctl(master, TIOCGEXCL, &there) == 0,
		   "TIOCGEXCL: %m");
	live_check(here == 1 && there == 0, "exclusive: slave %d, master %d", here, there);
}

static void set_up_locked(void)
{
	int one = 1;
	struct termios locked = { .c_lflag = ECHO, .c_iflag = IXON };

	open_pair();
	live_check(ioctl(slave, TIOCSLCKTRMIOS, &locked) == 0 && ioctl(master, TIOCSPTLCK, &one) == 0,
		   "TIOCSLCKTRMIOS: %m");
}

static void verify_locked(void)
{
	struct termios now;
	int lock = 0;

	set(ECHO | ICANON, IXON | ICRNL);
	live_check(tcgetattr(slave, &now) == 0 && now.c_lflag == ICANON && now.c_iflag == ICRNL,
		   "settings that were locked have changed: %#x, %#x", now.c_lflag, now.c_iflag);
	live_check(ioctl(master, TIOCGPTLCK, &lock) == 0 && lock == 1, "the master is not locked");
	live_check(open(name, O_RDWR | O_NOCTTY) < 0 && errno == EIO, "the slave could be opened");
}

/* With data in it, which is echoed and changed as the locked settings say, but only once. */
static void set_up_locked_data(void)
{
	struct termios locked = { .c_lflag = ECHO, .c_oflag = OPOST | ONLCR };
	int one = 1;

	open_pair();
	settings.c_oflag = OPOST | ONLCR;
	set(ECHO, 0);
	put(slave, "output\n", 7);
	put(master, "typed", 5);
	live_check(poll(&(struct pollfd){ .fd = slave, .events = POLLIN }, 1, 5000) == 1, "poll: %m");
	live_check(ioctl(slave, TIOCSLCKTRMIOS, &locked) == 0 && ioctl(master, TIOCSPTLCK, &one) == 0,
		   "TIOCSLCKTRMIOS: %m");
}

static void verify_locked_data(void)
{
	struct termios locked;

	live_check(ioctl(slave, TIOCGLCKTRMIOS, &locked) == 0 && locked.c_lflag == ECHO &&
			   locked.c_oflag == (OPOST | ONLCR),
		   "other settings are locked");
	expect(slave, "typed", 5, "what was typed");
	expect(master, "output\r\ntyped", 13, "output and echo");
	put(slave, "more", 4);
	expect(master, "more", 4, "what was written");
}

/* Whoever tried to open the locked slave has broken it (Linux 6.18, pty_open()). Nothing may be taken out. */
static void set_up_broken(void)
{
	int one = 1;

	open_pair();
	put(slave, "output", 6);
	put(master, "typed", 5);
	live_check(poll(&(struct pollfd){ .fd = slave, .events = POLLIN }, 1, 5000) == 1, "poll: %m");
	live_check(ioctl(master, TIOCSPTLCK, &one) == 0 && open(name, O_RDWR | O_NOCTTY) < 0,
		   "it was opened");
}

static void verify_broken(void)
{
	int zero = 0;

	live_check(ioctl(master, TIOCSPTLCK, &zero) == 0, "TIOCSPTLCK: %m");
	copy = open(name, O_RDWR | O_NOCTTY); /* makes it whole */
	live_check(copy >= 0, "open: %m");
	expect(slave, "typed", 5, "what was typed");
	expect(master, "output", 6, "what was written");
}

/* ---- many ---- */

static int masters[MANY], slaves[MANY];
static char names[MANY][32];

static void set_up_many(void)
{
	for (int i = 0; i < MANY; i++)
		live_check(openpty(&masters[i], &slaves[i], names[i], NULL, NULL) == 0, "openpty: %m");
	for (int i = 0; i < MANY; i += 3) {
		close(masters[i]);
		close(slaves[i]); /* numbers that are free */
	}
}

static void verify_many(void)
{
	for (int i = 0; i < MANY; i++) {
		char text[32];

		if (i % 3 == 0)
			continue;
		live_check(ptsname_r(masters[i], text, sizeof(text)) == 0 && !strcmp(text, names[i]) &&
				   !strcmp(ttyname(slaves[i]), text),
			   "terminal %d is %s, not %s", i, text, names[i]);
		put(slaves[i], names[i], strlen(names[i]));
		expect(masters[i], names[i], strlen(names[i]), "the terminal");
	}
}

/* ---- /dev/tty of a session that the process has left ---- */

static void set_up_left(void)
{
	pid_t pid;
	int told_by[2];
	char byte;

	open_pair();
	live_check(pipe(told_by) == 0, "pipe: %m");
	pid = fork();
	if (!pid) {
		int fd;

		setsid();
		ioctl(slave, TIOCSCTTY, 0);
		fd = open("/dev/tty", O_RDWR);
		close(master);
		if (fork() == 0) {
			setsid();
			dup2(fd, 77);
			close(fd);
			write(told_by[1], "x", 1);
			signal(SIGTERM, SIG_DFL);
			close(told_by[1]);
			for (;;) {
				ssize_t got = read(77, &byte, 1);

				if (got <= 0 || write(77, &byte, 1) != 1)
					_exit(1);
			}
		}
		for (;;)
			pause();
	}
	live_check(read(told_by[0], &byte, 1) == 1, "pipe: %m");
	copy = pid;
}

static void verify_left(void)
{
	put(master, "x", 1);
	expect(master, "x", 1, "what /dev/tty answers");
	live_check(tcgetsid(master) == copy, "the session is %d, not %d", tcgetsid(master), copy);
	close(master);
	close(slave);
	kill(copy, SIGKILL);
}

static const struct live_part kinds[] = {
	{ "hung_up", set_up_hung_up, verify_hung_up },
	{ "hung_up_session", hang_up_session, verify_session },
	{ "alone", set_up_alone, verify_alone },
	{ "fresh", set_up_fresh, verify_fresh },
	{ "ends", set_up_ends, verify_ends },
	{ "raw", set_up_raw, verify_raw },
	{ "flow_control", set_up_flow_control, verify_flow_control },
	{ "packets", set_up_packets, verify_packets },
	{ "told", set_up_told, verify_told },
	{ "stopped_by_call", stop_by_call, verify_stopped_by_call },
	{ "stopped_by_character", stop_by_character, verify_stopped_by_character },
	{ "echo", set_up_echo, verify_echo },
	{ "exclusive", set_up_exclusive, verify_exclusive },
	{ "locked", set_up_locked, verify_locked },
	{ "locked_data", set_up_locked_data, verify_locked_data },
	{ "broken", set_up_broken, verify_broken },
	{ "many", set_up_many, verify_many },
	{ "left", set_up_left, verify_left },
};

int main(int argc, char **argv)
{
	return live_run_one(argc, argv, kinds);
}
