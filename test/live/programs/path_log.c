/*
 * path_log.c - writes to a log, and reads it and another file, which have grown when it comes back.
 *
 * usage: path_log DIRECTORY keep|cut
 *
 * The harness adds ADDED to `log` and to `read-only`.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "live.h"

#define LINES 1000
#define ADDED "added\n"

static int writer, reader, other;

static int open_log(const char *name, int flags)
{
	int fd = open(name, flags | O_CREAT, 0600);

	live_check(fd >= 0, "%s: %m", name);
	return fd;
}

static void set_up(void)
{
	writer = open_log("log", O_WRONLY | O_APPEND);
	for (int i = 0; i < LINES; i++)
		dprintf(writer, "%05d\n", i);
	reader = open_log("log", O_RDONLY);
	lseek(reader, 6 * (LINES - 1), SEEK_SET);
	other = open_log("read-only", O_RDWR);
	dprintf(other, "%05d\n", 0);
	close(other);
	other = open_log("read-only", O_RDONLY);
}

/* What follows the position is the last line, the addition if it was kept, and what was written now. */
static void verify(int fd, bool is_kept, const char *last, const char *more)
{
	char expected[64], found[64];
	ssize_t length;

	snprintf(expected, sizeof(expected), "%s%s%s", last, is_kept ? ADDED : "", more);
	length = read(fd, found, sizeof(found) - 1);
	live_check(length >= 0, "read: %m");
	found[length] = 0;
	live_check(!strcmp(found, expected), "the file goes on with '%s' instead of '%s'", found, expected);
}

int main(int argc, char **argv)
{
	bool is_kept;

	live_begin(argc, argv);
	live_check(argc > 2, "usage: path_log DIRECTORY keep|cut");
	is_kept = !strcmp(argv[2], "keep");
	set_up();
	live_ready();
	live_wait_stop();
	live_check(lseek(writer, 0, SEEK_CUR) == 6 * LINES, "the position has changed: %ld",
		   lseek(writer, 0, SEEK_CUR));
	live_check(dprintf(writer, "last\n") == 5, "write: %m");
	verify(reader, is_kept, "00999\n", "last\n");
	verify(other, true, "00000\n", "");
	return live_finish();
}
