/*
 * locks.c - file locks that the process holds (restored with --file-locks): they must still exclude other processes.
 *
 * usage: locks DIRECTORY posix|flock|ofd
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

static char path[4096];
static int fd, second;

static int lock(int file, int how, short type, off_t start, off_t length)
{
	struct flock request = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length };

	return fcntl(file, how, &request);
}

static void set_up(const char *kind)
{
	int how = strcmp(kind, "ofd") == 0 ? F_OFD_SETLK : F_SETLK;

	fd = open(path, O_RDWR | O_CREAT, 0600);
	second = open(path, O_RDWR);
	live_check(fd >= 0 && second >= 0 && ftruncate(fd, 1000) == 0, "%s: %m", path);
	if (strcmp(kind, "flock") == 0) {
		live_check(flock(fd, LOCK_EX) == 0, "flock: %m");
		return;
	}
	live_check(lock(fd, how, F_WRLCK, 0, 100) == 0, "lock: %m");
	live_check(lock(fd, how, F_RDLCK, 200, 100) == 0, "lock: %m");
	live_check(lock(fd, how, F_WRLCK, 900, 0) == 0, "lock: %m");
}

static bool refused(int file, short type, off_t start)
{
	return lock(file, F_OFD_SETLK, type, start, 10) < 0 && (errno == EAGAIN || errno == EACCES);
}

/* Tests the locks through another open file, with which all three kinds of locks conflict. */
static void verify(const char *kind)
{
	int other = open(path, O_RDWR);

	live_check(other >= 0, "%s: %m", path);
	if (strcmp(kind, "flock") == 0) {
		live_check(flock(other, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK,
			   "the flock is not held");
	} else {
		live_check(refused(other, F_WRLCK, 50), "the write lock at 0 is not held");
		live_check(refused(other, F_WRLCK, 250), "the read lock at 200 is not held");
		live_check(!refused(other, F_RDLCK, 250), "the lock at 200 excludes readers");
		live_check(!refused(other, F_WRLCK, 500), "a lock is held at 500");
		live_check(refused(other, F_RDLCK, 5000), "the lock to the end of the file is not held");
	}
	close(other);
}

/* A child does it, because closing any descriptor of the file would drop POSIX locks of this process. */
static void verify_from_outside(const char *kind)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		verify(kind);
		_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	live_check(status == 0, "the locks are not as they were (wait status 0x%x)", status);
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	live_path(path, sizeof(path), "locked");
	set_up(argv[2]);
	verify_from_outside(argv[2]);
	live_ready();
	live_wait_stop();
	verify_from_outside(argv[2]);
	return live_finish();
}
