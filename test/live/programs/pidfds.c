/*
 * pidfds.c - pidfds of the living, of zombies, and of processes that have been reaped.
 *
 * usage: pidfds DIRECTORY living|dead|zombie|shared|watched|many|thread|lowered
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

#define MANY 300 /* more than fit into one message */

static pid_t child, other;
static int fds[MANY];

static int open_pidfd(pid_t pid, unsigned flags)
{
	int fd = syscall(SYS_pidfd_open, pid, flags);

	live_check(fd >= 0, "pidfd_open %d: %m", pid);
	return fd;
}

static int send_signal(int pidfd, int signo)
{
	return syscall(SYS_pidfd_send_signal, pidfd, signo, NULL, 0);
}

static bool has_ended(int pidfd)
{
	return poll(&(struct pollfd){ pidfd, POLLIN, 0 }, 1, 0) == 1;
}

/* What fdinfo tells: -1: reaped. Processes that share memory call this at the same time, so it does not allocate. */
static pid_t told_pid(int pidfd)
{
	char path[64], text[1024], *line;
	ssize_t size;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	live_check(fd >= 0, "%s: %m", path);
	size = read(fd, text, sizeof(text) - 1);
	live_check(size > 0, "%s: %m", path);
	close(fd);
	text[size] = '\0';
	line = strstr(text, "\nPid:");
	return line ? atoi(line + strlen("\nPid:")) : 0;
}

static void sleep_on(void)
{
	signal(SIGTERM, live_stop_child);
	for (;;)
		pause();
}

static void end(void)
{
}

static void check_living(int pidfd, pid_t pid, const char *what)
{
	live_check(!has_ended(pidfd), "%s: it has ended", what);
	live_check(send_signal(pidfd, 0) == 0, "%s: %m", what);
	live_check(told_pid(pidfd) == pid, "%s: it is of process %d, not %d", what, told_pid(pidfd), pid);
}

/* ---- of the living: itself, its parent, its child; flags; a copy; clone(CLONE_PIDFD) ---- */

static void see_parent(void)
{
	signal(SIGTERM, live_stop_child);
	for (;;) {
		check_living(fds[0], getppid(), "of the parent, inherited");
		live_sleep(0.02);
	}
}

static void set_up_living(void)
{
	fds[0] = open_pidfd(getpid(), 0);
	child = live_fork(see_parent);
	fds[1] = open_pidfd(child, O_NONBLOCK);
	fds[2] = dup(fds[1]);
	live_check(fcntl(fds[0], F_SETFD, 0) == 0, "F_SETFD: %m");
	other = syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, 0, &fds[3], 0, 0);
	live_check(other >= 0, "clone: %m");
	if (!other)
		sleep_on();
	/* Whom a signal goes to when it becomes readable is not used, but it is there. */
	live_check(fcntl(fds[3], F_SETOWN, child) == 0, "F_SETOWN: %m");
}

static void verify_living(void)
{
	siginfo_t info = { 0 };

	check_living(fds[0], getpid(), "its own");
	check_living(fds[1], child, "of its child");
	check_living(fds[3], other, "of its other child");
	live_check(fcntl(fds[0], F_GETFD) == 0 && fcntl(fds[1], F_GETFD) == FD_CLOEXEC, "wrong FD_CLOEXEC");
	live_check(fcntl(fds[3], F_GETOWN) == child, "another owner");
	live_check(waitid(P_PIDFD, fds[1], &info, WEXITED) < 0 && errno == EAGAIN,
		   "a waitid() that must not block: %m");
	live_check(fcntl(fds[2], F_SETFL, 0) == 0 && !(fcntl(fds[1], F_GETFL) & O_NONBLOCK),
		   "the copy is no longer the same file");
	live_check(send_signal(fds[2], SIGTERM) == 0 && send_signal(fds[3], SIGTERM) == 0, "signal: %m");
	live_check(waitid(P_PIDFD, fds[1], &info, WEXITED) == 0 && info.si_pid == child, "waitid: %m");
	live_check(has_ended(fds[2]) && told_pid(fds[2]) == -1, "its end is not seen");
	live_check(waitid(P_PIDFD, fds[3], &info, WEXITED) == 0 && info.si_pid == other, "waitid: %m");
}

/* ---- of processes that have been reaped: two of one, by two tasks; another one; with flags ---- */

static bool tells_inodes;

static void verify_dead_one(int pidfd, const char *what)
{
	siginfo_t info;

	live_check(has_ended(pidfd), "%s: it has not ended", what);
	live_check(send_signal(pidfd, 0) < 0 && errno == ESRCH, "%s: it can be signalled", what);
	live_check(waitid(P_PIDFD, pidfd, &info, WEXITED | WNOHANG) < 0 && errno == ECHILD,
		   "%s: it is a child: %m", what);
	live_check(told_pid(pidfd) == -1, "%s: it has a pid", what);
}

static ino_t inode(int fd)
{
	struct stat found;

	live_check(fstat(fd, &found) == 0, "fstat: %m");
	return found.st_ino;
}

static void verify_same_dead(void)
{
	verify_dead_one(fds[0], "the first");
	verify_dead_one(fds[1], "the first again");
	verify_dead_one(fds[2], "the second");
	live_check(fcntl(fds[1], F_GETFL) & O_NONBLOCK && !(fcntl(fds[0], F_GETFL) & O_NONBLOCK),
		   "other flags");
	/* Linux 6.9 has an inode for each process. */
	live_check(!tells_inodes || (inode(fds[0]) == inode(fds[1]) && inode(fds[0]) != inode(fds[2])),
		   "they are of other processes");
}

static void see_dead(void)
{
	signal(SIGTERM, live_stop_child);
	for (;;) {
		verify_same_dead();
		live_sleep(0.02);
	}
}

static void set_up_dead(void)
{
	pid_t first = live_fork(end), second = live_fork(end);

	fds[0] = open_pidfd(first, 0);
	fds[1] = open_pidfd(first, O_NONBLOCK);
	fds[2] = open_pidfd(second, 0);
	live_check(waitpid(first, NULL, 0) == first && waitpid(second, NULL, 0) == second, "waitpid: %m");
	tells_inodes = inode(fds[0]) != inode(fds[2]);
	child = live_fork(see_dead);
}

static void verify_dead(void)
{
	verify_same_dead();
	live_join(child);
}

/* ---- of a zombie ---- */

static void exit_with_7(void)
{
	_exit(7);
}

static void set_up_zombie(void)
{
	siginfo_t info;

	child = live_fork(exit_with_7);
	fds[0] = open_pidfd(child, 0);
	live_check(waitid(P_PID, child, &info, WEXITED | WNOWAIT) == 0, "waitid: %m");
	fds[1] = open_pidfd(child, O_NONBLOCK);
}

static void verify_zombie(void)
{
	siginfo_t info = { 0 };

	live_check(has_ended(fds[0]) && has_ended(fds[1]), "the zombie has not ended");
	live_check(told_pid(fds[0]) == child && told_pid(fds[1]) == child, "it is of another process");
	live_check(waitid(P_PIDFD, fds[1], &info, WEXITED) == 0 && info.si_pid == child &&
			   info.si_code == CLD_EXITED && info.si_status == 7,
		   "waitid: %m");
	live_check(told_pid(fds[0]) == -1, "it has not been reaped");
}

/* ---- tasks that share a descriptor table, and tasks that share memory but no table ---- */

static char stack[2][65536] __attribute__((aligned(16)));
static volatile int go_on = 1;

static int see_shared(void *pidfd)
{
	while (go_on) {
		check_living(*(int *)pidfd, getppid(), "seen by one that shares");
		live_sleep(0.02);
	}
	return 0;
}

static void set_up_shared(void)
{
	fds[0] = open_pidfd(getpid(), 0);
	child = clone(see_shared, stack[0] + sizeof(stack[0]), CLONE_VM | CLONE_FILES | SIGCHLD, &fds[0]);
	live_check(child > 0, "clone: %m");
	fds[1] = open_pidfd(child, 0);
	other = clone(see_shared, stack[1] + sizeof(stack[1]), CLONE_VM | SIGCHLD, &fds[0]);
	live_check(other > 0, "clone: %m");
	fds[2] = open_pidfd(other, 0);
}

static void verify_shared(void)
{
	siginfo_t info;

	check_living(fds[1], child, "of the child that shares descriptors");
	check_living(fds[2], other, "of the child that shares memory");
	go_on = 0;
	live_check(waitid(P_PIDFD, fds[1], &info, WEXITED) == 0, "waitid: %m");
	live_check(waitid(P_PIDFD, fds[2], &info, WEXITED) == 0, "waitid: %m");
}

/* ---- watched by an epoll, also under a number that is another file now ---- */

static void watch(int epoll, int fd, int data)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = data };

	live_check(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl: %m");
}

static void set_up_watched(void)
{
	child = live_fork(sleep_on);
	other = live_fork(end);
	fds[0] = epoll_create1(0);
	fds[1] = open_pidfd(child, 0);
	watch(fds[0], fds[1], 1);
	fds[2] = open_pidfd(child, 0);
	watch(fds[0], fds[2], 2);
	fds[3] = dup(fds[2]);
	live_check(dup2(STDIN_FILENO, fds[2]) == fds[2], "dup2: %m");
	fds[4] = open_pidfd(other, 0);
	live_join(other);
	watch(fds[0], fds[4], 4);
}

static void verify_watched(void)
{
	struct epoll_event events[4];

	live_check(epoll_wait(fds[0], events, 4, 1000) == 1 && events[0].data.u64 == 4,
		   "only the dead one is ready");
	live_check(send_signal(fds[3], SIGTERM) == 0, "signal: %m");
	live_check(waitpid(child, NULL, 0) == child, "waitpid: %m");
	live_check(epoll_wait(fds[0], events, 4, 1000) == 3, "all three are ready");
}

/* ---- more than fit into one message, held by a grandchild, too ---- */

static void see_many(void)
{
	signal(SIGTERM, live_stop_child);
	for (;;) {
		for (int i = 0; i < MANY; i++)
			live_check(!has_ended(fds[i]) && send_signal(fds[i], 0) == 0, "number %d: %m", i);
		live_sleep(0.02);
	}
}

static void set_up_many(void)
{
	other = live_fork(sleep_on);
	for (int i = 0; i < MANY; i++)
		fds[i] = open_pidfd(i % 2 ? other : getpid(), 0);
	child = live_fork(see_many);
}

static void verify_many(void)
{
	for (int i = 0; i < MANY; i++)
		live_check(told_pid(fds[i]) == (i % 2 ? other : getpid()), "number %d", i);
	live_join(child);
	live_join(other);
}

/* ---- of threads: PIDFD_THREAD (Linux 6.9) ---- */

static volatile pid_t tids[2];
static volatile bool may_end;

static void *run_thread(void *tid)
{
	*(volatile pid_t *)tid = gettid();
	while (!may_end)
		live_sleep(0.01);
	return NULL;
}

static pthread_t threads[2];

static void set_up_thread(void)
{
	for (int i = 0; i < 2; i++) {
		live_check(!pthread_create(&threads[i], NULL, run_thread, (void *)&tids[i]),
			   "pthread_create");
		while (!tids[i])
			live_sleep(0.001);
		fds[i] = syscall(SYS_pidfd_open, tids[i], O_EXCL | (i ? O_NONBLOCK : 0));
		if (fds[i] < 0)
			live_skip("no PIDFD_THREAD: %m");
	}
	fds[2] = syscall(SYS_pidfd_open, getpid(), O_EXCL);
	fds[3] = dup2(fds[0], 90);
	child = live_fork(sleep_on);
}

static void verify_thread(void)
{
	check_living(fds[0], tids[0], "of the first");
	check_living(fds[1], tids[1], "of the second");
	check_living(fds[2], getpid(), "of its first thread");
	check_living(90, tids[0], "of the first, a copy");
	live_check(!(fcntl(90, F_GETFL) & O_NONBLOCK) && fcntl(fds[1], F_GETFL) & O_NONBLOCK, "other flags");
	live_check(fcntl(90, F_SETFL, O_NONBLOCK) == 0 && fcntl(fds[0], F_GETFL) & O_NONBLOCK,
		   "the copy is no longer the same file");
	may_end = true;
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
		live_check(poll(&(struct pollfd){ fds[i], POLLIN, 0 }, 1, 1000) == 1, "no end is seen");
	}
	live_join(child);
}

/* ---- a process that has more descriptors than its limit, which was lowered, allows now ---- */

static void lower_limit(void)
{
	struct rlimit limit;

	for (int i = 0; i < 20; i++)
		live_check(dup(STDIN_FILENO) >= 0, "dup: %m");
	live_check(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit: %m");
	limit.rlim_cur = 4;
	live_check(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit: %m");
	sleep_on();
}

static void set_up_lowered(void)
{
	set_up_thread();
	other = live_fork(lower_limit);
	live_wait_asleep(other);
}

static void verify_lowered(void)
{
	struct rlimit limit;

	live_check(prlimit(other, RLIMIT_NOFILE, NULL, &limit) == 0 && limit.rlim_cur == 4, "another limit");
	for (int i = 0; i < 2; i++)
		live_check(syscall(SYS_kcmp, getpid(), other, KCMP_FILE, fds[i], fds[i]) == 0,
			   "number %d is not shared", i);
	live_join(other);
	verify_thread();
}

static const struct live_part things[] = {
	{ "living", set_up_living, verify_living }, { "dead", set_up_dead, verify_dead },
	{ "zombie", set_up_zombie, verify_zombie }, { "shared", set_up_shared, verify_shared },
	{ "thread", set_up_thread, verify_thread }, { "watched", set_up_watched, verify_watched },
	{ "many", set_up_many, verify_many },	    { "lowered", set_up_lowered, verify_lowered },
};

int main(int argc, char **argv)
{
	return live_run_one(argc, argv, things);
}
