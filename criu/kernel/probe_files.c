/*
 * probe_files.c - probes about files and mounts. They run in a child; see probe.h. Those about mounts first create a
 * mount namespace, so their mounts are invisible and end with them.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "base/memory.h"
#include "kernel/probe_tests.h"
#include "kernel_constants.h"

enum { MOVE_FROM_EMPTY_PATH = 0x4, MOVE_TO_EMPTY_PATH = 0x40, MOVE_SET_GROUP = 0x100 };

static bool fdinfo_says(int fd, const char *words)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	return fd >= 0 && probe_file_says(path, words);
}

bool probe_mount_id(int unused_argument unused)
{
	return fdinfo_says(open("/", O_RDONLY), "mnt_id:");
}

bool probe_timerfd(int unused_argument unused)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	struct itimerspec later = { .it_value.tv_sec = 1000 };
	uint64_t ticks = 3, seen = 0;

	return fdinfo_says(fd, "clockid:") && timerfd_settime(fd, 0, &later, NULL) == 0 &&
	       ioctl(fd, TFD_IOC_SET_TICKS, &ticks) == 0 && read(fd, &seen, sizeof(seen)) == sizeof(seen) &&
	       seen == 3;
}

bool probe_lock_in_fdinfo(int unused_argument unused)
{
	int fd = memfd_create("probe", 0);

	return fd >= 0 && flock(fd, LOCK_EX) == 0 && fdinfo_says(fd, "lock:");
}

bool probe_openat2(int unused_argument unused)
{
	struct open_how how = { .flags = O_PATH, .resolve = RESOLVE_BENEATH };
	int root = open("/", O_PATH | O_DIRECTORY);

	return syscall(SYS_openat2, root, "proc", &how, sizeof(how)) >= 0 &&
	       syscall(SYS_openat2, root, "..", &how, sizeof(how)) < 0;
}

/* Creates a mount namespace, with an empty /tmp to mount in. */
static bool take_mounts(void)
{
	return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
	       mount("probe", "/tmp", "tmpfs", 0, NULL) == 0;
}

bool probe_autofs(int unused_argument unused)
{
	char options[96];
	int ends[2];

	if (!take_mounts() || pipe(ends) || mkdir("/tmp/auto", 0700))
		return false;
	snprintf(options, sizeof(options), "fd=%d,pgrp=%d,minproto=5,maxproto=5,indirect", ends[1],
		 getpgrp());
	return mount("probe", "/tmp/auto", "autofs", 0, options) == 0 &&
	       probe_file_says("/proc/self/mountinfo", "pipe_ino=");
}

bool probe_mount_group(int unused_argument unused)
{
	int from, to;

	if (!take_mounts() || mkdir("/tmp/from", 0700) || mkdir("/tmp/to", 0700) ||
	    mount("probe", "/tmp/from", "tmpfs", 0, NULL) ||
	    mount("/tmp/from", "/tmp/to", NULL, MS_BIND, NULL) ||
	    mount(NULL, "/tmp/from", NULL, MS_SHARED, NULL))
		return false;
	from = open("/tmp/from", O_PATH);
	to = open("/tmp/to", O_PATH);
	return syscall(SYS_move_mount, from, "", to, "",
		       MOVE_SET_GROUP | MOVE_FROM_EMPTY_PATH | MOVE_TO_EMPTY_PATH) == 0;
}

/* Whether a mapping of an overlay file leads to that file, and not to the one in the layer below. */
bool probe_overlay_maps(int unused_argument unused)
{
	struct stat opened, mapped;
	char path[96];
	void *page;
	int fd;

	if (!take_mounts() || mkdir("/tmp/lower", 0700) || mkdir("/tmp/upper", 0700) ||
	    mkdir("/tmp/work", 0700) || mkdir("/tmp/merged", 0700))
		return false;
	fd = open("/tmp/lower/file", O_RDWR | O_CREAT, 0600);
	if (fd < 0 || ftruncate(fd, PAGE_SIZE) || close(fd) ||
	    mount("probe", "/tmp/merged", "overlay", 0,
		  "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work"))
		return false;
	fd = open("/tmp/merged/file", O_RDONLY);
	page = mmap(NULL, PAGE_SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
	if (page == MAP_FAILED)
		return false;
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)page,
		 (unsigned long)page + PAGE_SIZE);
	return fstat(fd, &opened) == 0 && stat(path, &mapped) == 0 && opened.st_dev == mapped.st_dev &&
	       opened.st_ino == mapped.st_ino;
}
