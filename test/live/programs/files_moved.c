/*
 * files_moved.c - two descriptors of one open file. A process outside of the tree changes the position all the time,
 * also during the dump. Afterwards the two must still be one open file.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

#define COPIES 40

static int fds[COPIES];

/* Moves the position until there is a verdict. */
static void move(void)
{
	char path[4096];

	live_path(path, sizeof(path), "verdict");
	setsid();
	while (access(path, F_OK) < 0)
		for (off_t at = 0; at < 1000; at++)
			lseek(fds[0], at, SEEK_SET);
	_exit(0);
}

int main(int argc, char **argv)
{
	char path[4096];
	pid_t between;

	live_begin(argc, argv);
	live_path(path, sizeof(path), "moved");
	fds[0] = open(path, O_RDWR | O_CREAT, 0600);
	live_check(fds[0] >= 0, "%s: %m", path);
	for (int i = 1; i < COPIES; i++)
		fds[i] = dup(fds[0]);
	between = fork();
	if (!between) {
		if (!fork())
			move();
		_exit(0);
	}
	waitpid(between, NULL, 0);
	live_ready();
	live_wait_stop();
	for (int i = 1; i < COPIES; i++)
		live_check(syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, fds[0], fds[i]) == 0,
			   "descriptors %d and %d are no longer one open file", fds[0], fds[i]);
	return live_finish();
}
