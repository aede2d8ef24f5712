/*
 * many_holders.c - a process with open files, and many children that inherit them.
 *
 * usage: many_holders DIRECTORY LIMIT FILES CHILDREN [memfds]     (LIMIT: of open files)
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "live.h"

#define FIRST 10

static void idle(void)
{
	signal(SIGTERM, live_stop_child);
	for (;;)
		pause();
}

static void open_files(const char *directory, int count, int are_memfds)
{
	char path[4096];

	for (int i = 0; i < count; i++) {
		int fd;

		snprintf(path, sizeof(path), "%s/file.%d", directory, i);
		fd = are_memfds ? memfd_create("many_holders", 0) : open(path, O_RDWR | O_CREAT, 0600);
		live_check(fd >= 0 && dup2(fd, FIRST + i) >= 0, "%s: %m", path);
		if (fd != FIRST + i)
			close(fd);
		live_check(ftruncate(FIRST + i, i) == 0, "%s: %m", path);
	}
}

int main(int argc, char **argv)
{
	pid_t children[1000];
	struct rlimit limit;
	int files, count;

	live_begin(argc, argv);
	live_check(argc == 5 || argc == 6, "usage: many_holders DIRECTORY LIMIT FILES CHILDREN [memfds]");
	limit.rlim_cur = limit.rlim_max = atoi(argv[2]);
	live_check(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit: %m");
	files = atoi(argv[3]);
	open_files(argv[1], files, argc == 6);
	count = atoi(argv[4]);
	for (int i = 0; i < count; i++)
		children[i] = live_fork(idle);
	live_ready();
	live_wait_stop();
	for (int i = 0; i < files; i++) {
		struct stat found;

		live_check(fstat(FIRST + i, &found) == 0 && found.st_size == i, "file %d: %m", i);
	}
	for (int i = 0; i < count; i++)
		live_join(children[i]);
	return live_finish();
}
