/*
 * locks_many.c - many locks of many owners: hundreds on one file, at the ends of what a file can have; processes that
 * share a descriptor table; open files of a process that has ended; and a process that waits for each kind of lock.
 *
 * usage: locks_many DIRECTORY hundreds|table|ended|waiters|outside
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "told.h"

#define MANY 600

static char path[4096];
static int fd, other;

static int lock(int file, int how, short type, off_t start, off_t length)
{
	struct flock request = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length };

	return fcntl(file, how, &request);
}

/* The process that holds a lock which conflicts with this one; 0: none; -1: an open file. */
static pid_t owner(int file, int how, off_t start, short type)
{
	struct flock request = { .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = 1 };

	live_check(fcntl(file, how, &request) == 0, "F_GETLK: %m");
	return request.l_type == F_UNLCK ? 0 : request.l_pid;
}

static void idle(void)
{
	signal(SIGTERM, live_stop_child);
	tell();
	for (;;)
		pause();
}

/* ---- hundreds of locks, of both types in turns, on each second byte; and one at the very end ---- */

static pid_t child;

static void set_up_hundreds(void)
{
	for (int i = 0; i < MANY; i++)
		live_check(lock(fd, F_SETLK, i % 3 ? F_WRLCK : F_RDLCK, 2 * i, 1) == 0, "lock %d: %m", i);
	for (int i = 0; i < MANY; i++)
		live_check(lock(other, F_OFD_SETLK, F_RDLCK, 10000 + 2 * i, 1) == 0, "lock %d: %m", i);
	live_check(lock(fd, F_SETLK, F_WRLCK, INT64_MAX, 1) == 0, "the last byte: %m");
	live_check(lock(fd, F_SETLK, F_WRLCK, INT64_MAX - 10, 5) == 0, "bytes before the last: %m");
	child = live_fork(idle);
	hear();
}

static void look_as_stranger(void)
{
	pid_t parent = getppid();
	int mine = open(path, O_RDWR);

	for (int i = 0; i < 2 * MANY; i++) {
		pid_t expected = i % 2 ? 0 : parent;

		live_check(owner(mine, F_GETLK, i, F_WRLCK) == expected, "byte %d is locked by %d", i,
			   owner(mine, F_GETLK, i, F_WRLCK));
		live_check(owner(mine, F_GETLK, i, F_RDLCK) == (i / 2 % 3 ? expected : 0),
			   "byte %d is locked for readers by %d", i, owner(mine, F_GETLK, i, F_RDLCK));
		live_check(owner(mine, F_GETLK, 10000 + i, F_WRLCK) == -(i % 2 == 0), "byte 10000 + %d", i);
	}
	live_check(owner(mine, F_GETLK, INT64_MAX, F_RDLCK) == parent &&
			   owner(mine, F_GETLK, INT64_MAX - 6, F_RDLCK) == parent &&
			   owner(mine, F_GETLK, INT64_MAX - 5, F_RDLCK) == 0 &&
			   owner(mine, F_GETLK, INT64_MAX - 11, F_RDLCK) == 0,
		   "the locks at the end of what a file can have");
}

static void run_stranger(void (*stranger)(void))
{
	int status;
	pid_t pid = live_fork(stranger);

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	live_check(status == 0, "the locks are not as they were (wait status 0x%x)", status);
}

static void verify_hundreds(void)
{
	run_stranger(look_as_stranger);
	/* The child shares both open files, and with them the locks of one. */
	live_check(lock(fd, F_SETLK, F_UNLCK, 0, 0) == 0, "unlock: %m");
	close(other);
	live_check(owner(fd, F_OFD_GETLK, 10000, F_WRLCK) == -1,
		   "the child does not hold the open file's locks");
	live_join(child);
	live_check(owner(fd, F_OFD_GETLK, 10000, F_WRLCK) == 0, "the locks outlive their open file");
}

/* ---- processes with one descriptor table: their POSIX locks have one owner, and each has its pid ---- */

static char stack[65536];

static int take_and_idle(void *unused)
{
	(void)unused;
	live_check(lock(fd, F_SETLK, F_WRLCK, 100, 10) == 0, "the lock of the other: %m");
	idle();
	return 0;
}

static void set_up_table(void)
{
	live_check(lock(fd, F_SETLK, F_WRLCK, 0, 10) == 0, "lock: %m");
	child = clone(take_and_idle, stack + sizeof(stack), CLONE_FILES | SIGCHLD, NULL);
	live_check(child > 0, "clone: %m");
	hear();
}

static void look_at_table(void)
{
	int mine = open(path, O_RDWR);

	live_check(owner(mine, F_GETLK, 5, F_RDLCK) == getppid(), "byte 5 is locked by %d",
		   owner(mine, F_GETLK, 5, F_RDLCK));
	live_check(owner(mine, F_GETLK, 105, F_RDLCK) == child, "byte 105 is locked by %d, not %d",
		   owner(mine, F_GETLK, 105, F_RDLCK), child);
}

static void verify_table(void)
{
	run_stranger(look_at_table);
	live_check(owner(fd, F_GETLK, 105, F_WRLCK) == 0, "the two have different locks");
	live_check(lock(fd, F_SETLK, F_UNLCK, 0, 0) == 0, "unlock: %m");
	live_join(child);
}

/* ---- a process that has ended took them, for an open file that lives on ---- */

static void take(void)
{
	live_check(flock(fd, LOCK_EX) == 0 && lock(fd, F_OFD_SETLK, F_WRLCK, 7, 0) == 0 &&
			   lock(fd, F_SETLK, F_WRLCK, 0, 3) == 0,
		   "lock: %m");
}

static void set_up_ended(void)
{
	int status;
	pid_t pid = live_fork(take);

	live_check(waitpid(pid, &status, 0) == pid && status == 0, "wait status 0x%x", status);
	live_check(close(other) == 0 && dup2(fd, 200) == 200 && close(fd) == 0, "dup: %m");
	fd = 200;
	child = live_fork(idle);
	hear();
}

static void look_at_ended(void)
{
	int mine = open(path, O_RDWR);

	live_check(flock(mine, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK, "the flock is lost");
	live_check(owner(mine, F_GETLK, 1, F_WRLCK) == 0, "the lock of the process that has ended");
	live_check(owner(mine, F_GETLK, 6, F_WRLCK) == 0 && owner(mine, F_GETLK, 1 << 30, F_RDLCK) == -1,
		   "the lock of the open file");
}

static void verify_ended(void)
{
	run_stranger(look_at_ended);
	live_join(child);
}

/* ---- who waits for a lock gets it, and not before ---- */

static const char *const families[] = { "posix", "flock", "ofd" };
static pid_t waiters[3];

static void wait_for(int family)
{
	int mine = open(path, O_RDWR), result;

	signal(SIGTERM, live_stop_child);
	tell();
	do
		result = family == 0 ? lock(mine, F_SETLKW, F_WRLCK, 0, 10) :
			 family == 1 ? flock(mine, LOCK_EX) :
				       lock(mine, F_OFD_SETLKW, F_WRLCK, 100, 10);
	while (result < 0 && errno == EINTR);
	live_check(result == 0, "waiting for the lock (%s): %m", families[family]);
	tell();
	for (;;)
		pause();
}

static void wait_for_posix(void)
{
	wait_for(0);
}

static void wait_for_flock(void)
{
	wait_for(1);
}

static void wait_for_ofd(void)
{
	wait_for(2);
}

static void set_up_waiters(void)
{
	void (*const run[])(void) = { wait_for_posix, wait_for_flock, wait_for_ofd };

	live_check(lock(fd, F_SETLK, F_WRLCK, 0, 10) == 0 && flock(fd, LOCK_SH) == 0 &&
			   lock(fd, F_OFD_SETLK, F_RDLCK, 100, 10) == 0,
		   "lock: %m");
	for (int i = 0; i < 3; i++) {
		waiters[i] = live_fork(run[i]);
		hear();
		live_wait_asleep(waiters[i]);
	}
}

static void verify_waiters(void)
{
	int waiting = 0;

	for (int i = 0; i < 3; i++)
		live_wait_asleep(waiters[i]);
	live_check(fcntl(told[0], F_SETFL, O_NONBLOCK) == 0 && read(told[0], &waiting, 1) < 0,
		   "a process has a lock that is still held");
	fcntl(told[0], F_SETFL, 0);
	live_check(lock(fd, F_SETLK, F_UNLCK, 0, 10) == 0, "unlock: %m");
	hear();
	live_check(flock(fd, LOCK_UN) == 0, "unlock: %m");
	hear();
	live_check(lock(fd, F_OFD_SETLK, F_UNLCK, 0, 0) == 0, "unlock: %m");
	hear();
	for (int i = 0; i < 3; i++)
		live_join(waiters[i]);
}

/* ---- for the harness: it waits for the lock, or wants it named ---- */

static void set_up_outside(void)
{
	live_check(lock(fd, F_SETLK, F_WRLCK, 0, 10) == 0 && lock(fd, F_SETLK, F_RDLCK, 50, 0) == 0 &&
			   flock(other, LOCK_SH) == 0,
		   "lock: %m");
}

static void verify_outside(void)
{
	live_check(lock(fd, F_SETLK, F_WRLCK, 0, 10) == 0, "somebody else has the lock: %m");
}

struct kind {
	const char *name;
	void (*set_up)(void), (*verify)(void);
};

static const struct kind kinds[] = {
	{ "hundreds", set_up_hundreds, verify_hundreds }, { "table", set_up_table, verify_table },
	{ "ended", set_up_ended, verify_ended },	  { "waiters", set_up_waiters, verify_waiters },
	{ "outside", set_up_outside, verify_outside },
};

int main(int argc, char **argv)
{
	const struct kind *kind;

	live_begin(argc, argv);
	kind = live_choose(kinds, argv[2]);
	live_path(path, sizeof(path), "locked");
	fd = open(path, O_RDWR | O_CREAT, 0600);
	other = open(path, O_RDWR);
	live_check(fd >= 0 && other >= 0 && pipe(told) == 0, "%s: %m", path);
	kind->set_up();
	live_ready();
	live_wait_stop();
	kind->verify();
	return live_finish();
}
