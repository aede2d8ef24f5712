/*
 * nothing_open.c - processes without a single descriptor.
 *
 * usage: nothing_open DIRECTORY alone|child     (child: a parent has a pipe, its child has nothing)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "live.h"

#define MOST 1024

static void close_all(void)
{
	for (int fd = 0; fd < MOST; fd++)
		close(fd);
}

static void check_nothing_open(void)
{
	for (int fd = 0; fd < MOST; fd++)
		live_check(fcntl(fd, F_GETFD) < 0 && errno == EBADF, "%d is open", fd);
}

static void have_nothing(void)
{
	close_all();
	while (!live_stopping()) {
		check_nothing_open();
		live_sleep(0.01);
	}
}

int main(int argc, char **argv)
{
	int ends[2];
	pid_t child = 0;

	live_begin(argc, argv);
	close_all();
	if (strcmp(argv[2], "child") == 0) {
		child = live_fork(have_nothing);
		live_check(pipe(ends) == 0 && ends[0] == 0 && ends[1] == 1, "pipe: %m");
	}
	live_ready();
	while (!live_stopping()) {
		if (!child)
			check_nothing_open();
		live_sleep(0.01);
	}
	if (child) {
		char byte = 0;

		live_check(write(1, "x", 1) == 1 && read(0, &byte, 1) == 1 && byte == 'x', "the pipe: %m");
		live_join(child);
	}
	return live_finish();
}
