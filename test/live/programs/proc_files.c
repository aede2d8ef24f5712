/*
 * proc_files.c - open files of /proc about processes of the tree, and about such that have ended.
 *
 * usage: proc_files DIRECTORY living|over|ended|directory|half|thread|descriptor
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

static int fds[16];
static pid_t child;
static char secret[64] = "something in memory";

static int open_of(pid_t pid, const char *name, int flags)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, flags);
	live_check(fd >= 0, "%s: %m", path);
	return fd;
}

static void check_link(int fd, pid_t pid, const char *name)
{
	char path[64], wanted[64], link[PATH_MAX];
	ssize_t length;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	snprintf(wanted, sizeof(wanted), "/proc/%d/%s", pid, name);
	length = readlink(path, link, sizeof(link) - 1);
	live_check(length > 0, "readlink: %m");
	link[length] = '\0';
	live_check(!strcmp(link, wanted), "descriptor %d is %s, not %s", fd, link, wanted);
}

static void check_text(int fd, const char *words)
{
	char text[4096];
	ssize_t length = pread(fd, text, sizeof(text) - 1, 0);

	live_check(length > 0, "read: %m");
	text[length] = '\0';
	live_check(strstr(text, words), "no %s in: %s", words, text);
}

/* ---- of living processes: itself, its child, and the child's parent ---- */

static int of_parent;

static void see_parent(void)
{
	char pid[32];

	snprintf(pid, sizeof(pid), "%d (", getppid());
	signal(SIGTERM, live_stop_child);
	of_parent = open_of(getppid(), "stat", O_RDONLY);
	for (;;) {
		check_text(of_parent, pid);
		check_text(fds[0], pid);
		live_sleep(0.02);
	}
}

static void set_up_living(void)
{
	char path[64];

	fds[0] = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	fds[1] = open("/proc/thread-self/status", O_RDONLY);
	fds[2] = open("/proc/self/mem", O_RDWR);
	fds[3] = open("/proc/self/maps", O_RDONLY);
	child = live_fork(see_parent);
	fds[4] = open_of(getpid(), "comm", O_RDWR);
	fds[5] = dup2(fds[4], 200);
	fds[6] = open_of(child, "fd", O_RDONLY | O_DIRECTORY);
	snprintf(path, sizeof(path), "task/%d/stat", child);
	fds[7] = open_of(child, path, O_RDONLY);
	fds[8] = open_of(child, "status", O_PATH);
	fds[9] = open_of(child, "", O_RDONLY | O_DIRECTORY);
}

static void verify_living(void)
{
	char text[64], other[64];
	struct stat found;

	snprintf(text, sizeof(text), "%d (", getpid());
	check_text(fds[0], text);
	snprintf(text, sizeof(text), "Pid:\t%d\n", getpid());
	check_text(fds[1], text);
	live_check(pread(fds[2], text, sizeof(secret), (off_t)secret) == sizeof(secret) &&
			   !strcmp(text, secret),
		   "/proc/self/mem: %m");
	live_check(pwrite(fds[2], "S", 1, (off_t)secret) == 1 && secret[0] == 'S', "/proc/self/mem: %m");
	secret[0] = 's';
	check_text(fds[3], "proc_files");
	live_check(fcntl(fds[0], F_GETFD) == FD_CLOEXEC && !fcntl(fds[1], F_GETFD), "wrong FD_CLOEXEC");
	live_check(lseek(fds[4], 3, SEEK_SET) == 3 && lseek(200, 0, SEEK_CUR) == 3,
		   "the copy is no longer the same file");
	live_check(lseek(fds[4], 0, SEEK_SET) == 0 && write(fds[4], "renamed", 7) == 7, "/proc/PID/comm: %m");
	check_text(200, "renamed");
	live_check(fstatat(fds[6], "0", &found, 0) == 0, "/proc/PID/fd/0: %m");
	snprintf(other, sizeof(other), "%d (proc_files)", child);
	check_text(fds[7], other);
	check_link(fds[8], child, "status");
	live_check(fcntl(fds[8], F_GETFL) & O_PATH, "it is no longer O_PATH");
	live_check(faccessat(fds[9], "stat", R_OK, 0) == 0, "/proc/PID: %m");
	live_join(child);
	live_check(pread(fds[7], other, sizeof(other), 0) < 0 && errno == ESRCH, "of a dead child: %m");
}

/* ---- about a process that has ended ---- */

static void stay(void)
{
	signal(SIGTERM, live_stop_child);
	for (;;)
		pause();
}

static void verify_dead_files(void)
{
	char text[64];

	for (int i = 0; i < 3; i++)
		live_check(pread(fds[i], text, sizeof(text), 0) < 0 && errno == ESRCH,
			   "file %d can be read: %m", i);
	live_check(faccessat(fds[3], "stat", R_OK, 0) < 0, "the directory has files");
	live_check(faccessat(fds[4], "0", R_OK, 0) < 0, "the directory has descriptors");
	check_link(fds[0], child, "stat");
	check_link(fds[1], child, "status");
}

static void see_dead(void)
{
	signal(SIGTERM, live_stop_child);
	for (;;) {
		verify_dead_files();
		live_sleep(0.02);
	}
}

static pid_t watcher;

static void open_files(void)
{
	char path[64];

	child = live_fork(stay);
	fds[0] = open_of(child, "stat", O_RDONLY);
	fds[1] = open_of(child, "status", O_RDONLY | O_NONBLOCK);
	snprintf(path, sizeof(path), "task/%d/stat", child);
	fds[2] = open_of(child, path, O_RDONLY);
	fds[3] = open_of(child, "", O_RDONLY | O_DIRECTORY);
}

/* Without a directory below that of the process. */
static void set_up_over(void)
{
	open_files();
	fds[4] = dup(fds[3]);
	live_check(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child, "waitpid: %m");
	watcher = live_fork(see_dead);
}

static void set_up_ended(void)
{
	open_files();
	fds[4] = open_of(child, "fd", O_RDONLY | O_DIRECTORY);
	live_check(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child, "waitpid: %m");
	watcher = live_fork(see_dead);
}

static void verify_ended(void)
{
	verify_dead_files();
	live_check(fcntl(fds[1], F_GETFL) & O_NONBLOCK && !(fcntl(fds[0], F_GETFL) & O_NONBLOCK),
		   "other flags");
	live_join(watcher);
}

/* ---- about a descriptor of a process that has ended: no other process need have it ---- */

static void set_up_descriptor(void)
{
	child = live_fork(stay);
	fds[0] = open_of(child, "fdinfo/0", O_RDONLY);
	live_check(kill(child, SIGKILL) == 0 && waitpid(child, NULL, 0) == child, "waitpid: %m");
}

static void verify_descriptor(void)
{
	char text[64];

	live_check(pread(fds[0], text, sizeof(text), 0) < 0, "it can be read");
}

/* ---- a working directory in /proc ---- */

static void set_up_directory(void)
{
	char path[64];

	child = live_fork(stay);
	snprintf(path, sizeof(path), "/proc/%d/task", child);
	live_check(chdir(path) == 0, "chdir: %m");
}

static void verify_directory(void)
{
	char path[64], wanted[64], there[64];

	snprintf(path, sizeof(path), "%d/stat", child);
	snprintf(wanted, sizeof(wanted), "/proc/%d/task", child);
	live_check(access(path, R_OK) == 0, "it is another directory: %m");
	live_check(getcwd(there, sizeof(there)) && !strcmp(there, wanted), "it is %s", there);
	live_join(child);
}

/* ---- half read: what follows is read on ---- */

static char first[64];

static void set_up_half(void)
{
	fds[0] = open("/proc/self/cmdline", O_RDONLY);
	live_check(read(fds[0], first, 5) == 5, "read: %m");
	fds[1] = open("/proc/self/comm", O_RDONLY);
	live_check(read(fds[1], first + 16, 32) > 0 && read(fds[1], first + 48, 1) == 0, "read: %m");
}

static void verify_half(void)
{
	char all[PATH_MAX], rest[PATH_MAX];
	ssize_t size = pread(fds[0], all, sizeof(all), 0), left;

	live_check(lseek(fds[0], 0, SEEK_CUR) == 5, "another position");
	left = read(fds[0], rest, sizeof(rest));
	live_check(left == size - 5 && !memcmp(all + 5, rest, left), "the rest is another one");
	live_check(lseek(fds[0], 5, SEEK_SET) == 5, "lseek: %m");
	live_check(read(fds[1], rest, 1) == 0, "it was read to its end, and there is more");
}

/* ---- about a thread that is not the first ---- */

static _Noreturn void *run_thread(void *tid)
{
	*(volatile pid_t *)tid = gettid();
	for (;;)
		pause();
}

static volatile pid_t tid;

static void set_up_thread(void)
{
	pthread_t thread;
	char path[64];

	live_check(!pthread_create(&thread, NULL, run_thread, (void *)&tid), "pthread_create");
	while (!tid)
		live_sleep(0.001);
	snprintf(path, sizeof(path), "task/%d/stat", tid);
	fds[0] = open_of(getpid(), path, O_RDONLY);
	fds[1] = dup2(fds[0], 77);
	snprintf(path, sizeof(path), "task/%d", tid);
	fds[2] = open_of(getpid(), path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	child = live_fork(stay);
}

static void verify_thread(void)
{
	char words[64];

	snprintf(words, sizeof(words), "%d (", tid);
	check_text(fds[0], words);
	check_text(77, words);
	live_check(lseek(fds[0], 2, SEEK_SET) == 2 && lseek(77, 0, SEEK_CUR) == 2,
		   "the copy is no longer the same file");
	live_check(faccessat(fds[2], "comm", R_OK, 0) == 0, "the directory of the thread: %m");
	live_check(fcntl(fds[2], F_GETFD) == FD_CLOEXEC && !fcntl(77, F_GETFD), "wrong FD_CLOEXEC");
	live_join(child);
}

static const struct live_part things[] = {
	{ "living", set_up_living, verify_living },
	{ "over", set_up_over, verify_ended },
	{ "ended", set_up_ended, verify_ended },
	{ "directory", set_up_directory, verify_directory },
	{ "half", set_up_half, verify_half },
	{ "thread", set_up_thread, verify_thread },
	{ "descriptor", set_up_descriptor, verify_descriptor },
};

int main(int argc, char **argv)
{
	return live_run_one(argc, argv, things);
}
