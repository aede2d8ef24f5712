/*
 * directory_read.c - an open directory with many entries, some of which have been read: reading continues with the
 * rest.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "live.h"

#define ENTRIES 500

/* Marks the entries that one system call returns, at most as many as fit. */
static int read_some(int fd, char *seen, size_t room)
{
	char buffer[32768];
	long got = syscall(SYS_getdents64, fd, buffer, room);
	int count = 0;

	live_check(got >= 0, "getdents64: %m");
	for (long at = 0; at < got; count++) {
		struct dirent64 *entry = (struct dirent64 *)(void *)(buffer + at);
		int number = atoi(entry->d_name);

		if (number > 0)
			live_check(!seen[number]++, "entry %d is returned twice", number);
		at += entry->d_reclen;
	}
	return count;
}

static void begin(int *fd, char *seen)
{
	char path[4096], name[32];

	live_path(path, sizeof(path), "many");
	live_check(mkdir(path, 0700) == 0 && (*fd = open(path, O_RDONLY | O_DIRECTORY)) >= 0, "%s: %m", path);
	for (int i = 1; i <= ENTRIES; i++) {
		snprintf(name, sizeof(name), "%d", i);
		live_check(mkdirat(*fd, name, 0700) == 0, "%s: %m", name);
	}
	live_check(read_some(*fd, seen, ENTRIES * 12) > 0, "nothing was read");
}

static void end(int fd, char *seen)
{
	while (read_some(fd, seen, 32768) > 0)
		;
	for (int i = 1; i <= ENTRIES; i++)
		live_check(seen[i] == 1, "entry %d was not returned", i);
}

int main(int argc, char **argv)
{
	static char seen[ENTRIES + 1];
	int fd = -1;

	live_begin(argc, argv);
	begin(&fd, seen);
	live_ready();
	live_wait_stop();
	end(fd, seen);
	return live_finish();
}
