/*
 * refused.c - has things that a plain dump must refuse. The error must name all of them.
 *
 * usage: refused DIRECTORY THING...
 * THING: one of those in the table at the end, or
 *	  children-pid | children-time		namespaces that future children of the process will be in
 *	  thread-NAMESPACE | thread-files | thread-fs	what one thread has, but not its process
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

/* An established connection of which this process has both ends. */
static void tcp(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(address);
	int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);

	live_check(bind(server, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(server, 1) == 0,
		   "listen: %m");
	getsockname(server, (struct sockaddr *)&address, &size);
	live_check(connect(client, (struct sockaddr *)&address, size) == 0, "connect: %m");
	live_check(accept(server, NULL, NULL) >= 0, "accept: %m");
}

static void uring(void)
{
	struct io_uring_params parameters = { .flags = IORING_SETUP_IOPOLL };

	int fd = syscall(SYS_io_uring_setup, 4, &parameters);

	if (fd < 0)
		live_skip("this kernel has no io_uring");
	live_check(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING) != MAP_FAILED,
		   "mmap: %m");
}

static void uffd(void)
{
	if (syscall(SYS_userfaultfd, O_CLOEXEC) < 0)
		live_skip("this kernel has no userfaultfd");
}

static void locked(void)
{
	char path[4096];

	live_path(path, sizeof(path), "a-locked-file");
	live_check(flock(open(path, O_RDWR | O_CREAT, 0600), LOCK_EX) == 0, "flock: %m");
}

/* A deleted file, whose link and mapping look like a segment of System V IPC. */
static void like_a_segment(void)
{
	int fd = open("/SYSV00000001", O_RDWR | O_CREAT | O_EXCL, 0600);

	live_check(fd >= 0 && unlink("/SYSV00000001") == 0 && ftruncate(fd, 4096) == 0, "/SYSV00000001: %m");
	live_check(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED, "mmap: %m");
	close(fd);
}

static int secret_memory(void)
{
	int fd = syscall(SYS_memfd_secret, 0);

	if (fd < 0)
		live_skip("no secret memory: %m");
	live_check(ftruncate(fd, 4096) == 0, "ftruncate: %m");
	return fd;
}

static void secret(void)
{
	secret_memory();
}

static void secret_mapped(void)
{
	int fd = secret_memory();

	live_check(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED, "mmap: %m");
	close(fd);
}

static void pidfd(void)
{
	live_check(syscall(SYS_pidfd_open, getppid(), 0) >= 0, "pidfd_open: %m");
}

/* One in which no process is. */
static void namespace(void)
{
	char path[64], byte;
	int ends[2];
	pid_t child;

	live_check(pipe(ends) == 0, "pipe: %m");
	child = fork();
	if (!child) {
		live_check(unshare(CLONE_NEWIPC) == 0 && write(ends[1], "x", 1) == 1, "unshare: %m");
		for (;;)
			pause();
	}
	snprintf(path, sizeof(path), "/proc/%d/ns/ipc", child);
	live_check(read(ends[0], &byte, 1) == 1 && open(path, O_RDONLY) >= 0, "%s: %m", path);
	close(ends[0]);
	close(ends[1]);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

/* The file still exists, but not under the name by which it was opened, and in another directory. */
static void other_link(void)
{
	char path[4096], other[4096];

	live_path(path, sizeof(path), "a-removed-name");
	live_path(other, sizeof(other), "a-directory");
	live_check(mkdir(other, 0700) == 0, "%s: %m", other);
	live_path(other, sizeof(other), "a-directory/another-name");
	live_check(open(path, O_RDWR | O_CREAT, 0600) >= 0 && link(path, other) == 0 && unlink(path) == 0,
		   "%s: %m", path);
}

/* A clone of a mount that is not attached anywhere. */
static void hidden_mount(void)
{
	if (syscall(SYS_open_tree, AT_FDCWD, live_directory, 1 /* OPEN_TREE_CLONE */) < 0)
		live_skip("open_tree: %m");
}

/* ---- what unshare(2) separates ---- */

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

static void leave(int what)
{
	if (unshare(what) == 0)
		return;
	if (errno == EINVAL)
		live_skip("this kernel has no such namespaces");
	live_fail("unshare: %m");
}

static void *leave_in_thread(void *argument)
{
	static atomic_int arrived;
	int *what = argument;

	leave(*what);
	atomic_fetch_add(&arrived, 1);
	while (atomic_load(&arrived) < 2)
		usleep(1000);
	*what = 0;
	pause();
	return NULL;
}

static void *sleep_in_thread(void *argument)
{
	for (;;)
		pause();
	return argument;
}

/* Two threads, so that one line has to tell of both. */
static void apart(int what)
{
	static int left[2];
	pthread_t thread;

	for (int i = 0; i < 2; i++) {
		left[i] = what;
		live_check(pthread_create(&thread, NULL, leave_in_thread, &left[i]) == 0, "pthread_create");
	}
	while (*(volatile int *)&left[0] || *(volatile int *)&left[1])
		usleep(1000);
}

/* Enough for a dump to look at them in a second thread. */
static void crowd(void)
{
	pthread_t thread;

	for (int i = 0; i < 150; i++)
		live_check(pthread_create(&thread, NULL, sleep_in_thread, NULL) == 0, "pthread_create");
}

static const struct {
	const char *name;
	void (*leave)(int what);
	int what;
} apartness[] = {
	{ "children-pid", leave, CLONE_NEWPID }, { "children-time", leave, CLONE_NEWTIME },
	{ "thread-net", apart, CLONE_NEWNET },	 { "thread-ipc", apart, CLONE_NEWIPC },
	{ "thread-uts", apart, CLONE_NEWUTS },	 { "thread-mnt", apart, CLONE_NEWNS },
	{ "thread-pid", apart, CLONE_NEWPID },	 { "thread-time", apart, CLONE_NEWTIME },
	{ "thread-fs", apart, CLONE_FS },	 { "thread-cgroup", apart, CLONE_NEWCGROUP },
	{ "thread-files", apart, CLONE_FILES },
};

static const struct {
	const char *name;
	void (*set_up)(void);
} things[] = {
	{ "crowd", crowd },
	{ "tcp", tcp },
	{ "io_uring", uring },
	{ "userfaultfd", uffd },
	{ "locked", locked },
	{ "tcp-state", tcp },
	{ "like-a-segment", like_a_segment },
	{ "secret", secret },
	{ "secret-mapped", secret_mapped },
	{ "pidfd", pidfd },
	{ "namespace", namespace },
	{ "other-link", other_link },
	{ "hidden-mount", hidden_mount },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	for (int argument = 2; argument < argc; argument++) {
		__auto_type part = live_find(apartness, argv[argument]);

		if (part)
			part->leave(part->what);
		else
			live_choose(things, argv[argument])->set_up();
	}
	live_ready();
	live_wait_stop();
	return live_finish();
}
