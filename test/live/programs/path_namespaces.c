/*
 * path_namespaces.c - open namespaces: of the kind that criu is in, and of processes of the tree.
 *
 * usage: path_namespaces DIRECTORY own|trees|bound
 *
 *	own    every type, in which the process itself is; also by O_PATH
 *	trees  a child has another uts namespace; the parent has that open, and the child its parent's
 *	bound  one that is mounted on a file
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "live.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif
#define MANY 32

static const struct {
	const char *name;
	int flag;
} types[] = { { "cgroup", CLONE_NEWCGROUP }, { "ipc", CLONE_NEWIPC },
	      { "mnt", CLONE_NEWNS },	     { "net", CLONE_NEWNET },
	      { "pid", CLONE_NEWPID },	     { "pid_for_children", CLONE_NEWPID },
	      { "time", CLONE_NEWTIME },     { "time_for_children", CLONE_NEWTIME },
	      { "user", CLONE_NEWUSER },     { "uts", CLONE_NEWUTS } };
#define TYPES (sizeof(types) / sizeof(types[0]))

static struct {
	int fd, flags, type;
	struct stat facts;
} files[MANY];
static int count, from_child[2], to_child[2];

static void watch(const char *path, int flags, int type)
{
	int fd = open(path, flags);

	live_check(fd >= 0, "%s: %m", path);
	files[count].fd = fd;
	files[count].type = flags & O_PATH ? 0 : type;
	files[count].flags = fcntl(fd, F_GETFL);
	live_check(fstat(fd, &files[count].facts) == 0, "fstat: %m");
	count++;
}

static void verify(bool is_same)
{
	for (int i = 0; i < count; i++) {
		struct stat facts;

		live_check(fstat(files[i].fd, &facts) == 0, "fstat: %m");
		live_check(facts.st_dev == files[i].facts.st_dev &&
				   (facts.st_ino == files[i].facts.st_ino || !is_same),
			   "file %d is another namespace", i);
		live_check(fcntl(files[i].fd, F_GETFL) == files[i].flags, "file %d: flags %o, were %o", i,
			   fcntl(files[i].fd, F_GETFL), files[i].flags);
		live_check(!files[i].type || ioctl(files[i].fd, NS_GET_NSTYPE) == files[i].type,
			   "file %d is of another type", i);
	}
}

static void own(void)
{
	char path[64];

	for (size_t i = 0; i < TYPES; i++) {
		snprintf(path, sizeof(path), "/proc/self/ns/%s", types[i].name);
		if (access(path, F_OK))
			continue; /* time: Linux 5.6 */
		watch(path, O_RDONLY, types[i].flag);
		watch(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, types[i].flag);
		watch(path, O_PATH, types[i].flag);
	}
	live_check(dup2(files[0].fd, 200) == 200, "dup2: %m");
	fcntl(files[1].fd, F_SETOWN, getpid());
}

static void bound(void)
{
	int fd = open("bound", O_WRONLY | O_CREAT, 0600);

	live_check(fd >= 0, "bound: %m");
	close(fd);
	if (mount("/proc/self/ns/net", "bound", NULL, MS_BIND, NULL))
		live_skip("mount: %m");
	watch("bound", O_RDONLY, CLONE_NEWNET);
	watch("bound", O_PATH, CLONE_NEWNET);
}

static void expect_host(const char *expected, bool is_same)
{
	char now[65] = "";

	live_check(gethostname(now, sizeof(now)) == 0, "gethostname: %m");
	live_check(!strcmp(now, expected) == is_same, "the host is %s", now);
}

/* The child joins the namespace of its parent, which it has open. */
static void live_in_child(void)
{
	char byte;
	int outer = open("/proc/self/ns/uts", O_RDONLY);

	live_check(outer >= 0 && unshare(CLONE_NEWUTS) == 0, "unshare: %m");
	live_check(sethostname("criu-live-inner", 15) == 0, "sethostname: %m");
	live_check(write(from_child[1], "x", 1) == 1 && read(to_child[0], &byte, 1) == 1, "pipe: %m");
	expect_host("criu-live-inner", true);
	live_check(setns(outer, CLONE_NEWUTS) == 0, "setns: %m");
	expect_host("criu-live-inner", false);
	while (!live_stopping())
		live_sleep(0.005);
}

static pid_t trees(void)
{
	char path[64], byte;
	pid_t child;

	live_check(pipe(from_child) == 0 && pipe(to_child) == 0, "pipe: %m");
	child = live_fork(live_in_child);
	live_check(read(from_child[0], &byte, 1) == 1, "the child is not there: %m");
	snprintf(path, sizeof(path), "/proc/%d/ns/uts", child);
	watch(path, O_RDONLY, CLONE_NEWUTS);
	watch(path, O_PATH, CLONE_NEWUTS);
	return child;
}

int main(int argc, char **argv)
{
	pid_t child = 0;

	live_begin(argc, argv);
	live_check(argc > 2, "usage: path_namespaces DIRECTORY own|trees|bound");
	if (!strcmp(argv[2], "own"))
		own();
	else if (!strcmp(argv[2], "bound"))
		bound();
	else
		child = trees();
	live_ready();
	while (!live_stopping()) {
		verify(!child);
		live_sleep(0.005);
	}
	verify(!child);
	if (child) {
		live_check(write(to_child[1], "x", 1) == 1, "pipe: %m");
		live_join(child);
		live_check(setns(files[0].fd, CLONE_NEWUTS) == 0, "setns: %m");
		expect_host("criu-live-inner", true);
	} else if (!strcmp(argv[2], "own")) {
		live_check(fcntl(files[1].fd, F_GETOWN) == getpid(), "the owner has changed");
		live_check(fcntl(200, F_GETFL) == files[0].flags, "the copy has other flags");
	}
	for (int i = 0; i < count; i++)
		close(files[i].fd);
	umount2("bound", MNT_DETACH);
	return live_finish();
}
