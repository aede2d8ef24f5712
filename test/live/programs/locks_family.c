/*
 * locks_family.c - locks of related processes: an open file that is shared with a child, the child's own POSIX lock on
 * it, a duplicate of the descriptor, and a process that waits for a lock during the dump.
 *
 * usage: locks_family DIRECTORY plain|mapped     (mapped: the file is mapped, too, as databases do)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "told.h"

static char path[4096];
static int shared;
static pid_t locker, waiter;

static int lock(int fd, int how, short type, off_t start, off_t length)
{
	struct flock request = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length };

	return fcntl(fd, how, &request);
}

/* Through the descriptor that the child has inherited. */
static void lock_in_child(void)
{
	signal(SIGTERM, live_stop_child);
	live_check(lock(shared, F_SETLK, F_WRLCK, 100, 50) == 0, "the child's lock: %m");
	tell();
	for (;;)
		pause();
}

static void wait_in_child(void)
{
	signal(SIGTERM, live_stop_child);
	tell();
	live_check(lock(shared, F_SETLKW, F_WRLCK, 0, 10) == 0, "waiting for the lock: %m");
	tell();
	for (;;)
		pause();
}

static pid_t owner(off_t start, short type)
{
	struct flock request = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = 1 };

	live_check(fcntl(shared, F_GETLK, &request) == 0, "F_GETLK: %m");
	return request.l_type == F_UNLCK ? 0 : request.l_pid;
}

static void ask_as_stranger(void)
{
	int other = open(path, O_RDWR);

	live_check(owner(5, F_RDLCK) == getppid(), "the parent's lock is held by %d", owner(5, F_RDLCK));
	live_check(owner(60, F_WRLCK) == getppid() && owner(60, F_RDLCK) == 0,
		   "the parent's lock excludes readers");
	live_check(owner(120, F_RDLCK) == locker, "the child's lock is held by %d, not %d",
		   owner(120, F_RDLCK), locker);
	live_check(owner(160, F_WRLCK) == 0, "there is a lock at 160");
	live_check(flock(other, LOCK_SH | LOCK_NB) == 0 && flock(other, LOCK_EX | LOCK_NB) < 0,
		   "the shared flock is lost");
}

static void verify(void)
{
	int status;
	pid_t pid = live_fork(ask_as_stranger);

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	live_check(status == 0, "the locks are not as they were (wait status 0x%x)", status);
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	live_path(path, sizeof(path), "locked");
	shared = open(path, O_RDWR | O_CREAT, 0600);
	live_check(shared >= 0 && pipe(told) == 0 && dup(shared) >= 0, "%s: %m", path);
	if (strcmp(argv[2], "mapped") == 0)
		live_check(ftruncate(shared, 4096) == 0 && mmap(NULL, 4096, PROT_READ | PROT_WRITE,
								MAP_SHARED, shared, 0) != MAP_FAILED,
			   "mmap: %m");
	live_check(lock(shared, F_SETLK, F_WRLCK, 0, 10) == 0 && lock(shared, F_SETLK, F_RDLCK, 50, 20) == 0,
		   "lock: %m");
	live_check(flock(shared, LOCK_SH) == 0, "flock: %m");
	locker = live_fork(lock_in_child);
	hear();
	waiter = live_fork(wait_in_child);
	hear();
	verify();
	live_ready();
	live_wait_stop();
	verify();
	live_check(lock(shared, F_SETLK, F_UNLCK, 0, 10) == 0, "unlock: %m");
	hear();
	live_check(owner(5, F_RDLCK) == waiter, "the waiting process did not get the lock");
	live_join(waiter);
	live_join(locker);
	return live_finish();
}
