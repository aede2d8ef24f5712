/*
 * device_files.c - open devices without state: each must be the same device afterwards, with its flags and position.
 *
 * usage: device_files DIRECTORY many|block|node
 *
 *	many   those that this machine has
 *	block  a loop device of a file, open for reading
 *	node   a device file in DIRECTORY, which the harness removes
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "live.h"

#define MANY	  32
#define PAGE	  4096
#define PAGES	  8
#define LOOP_SEED 7

static struct {
	int fd, flags;
	off_t position;
	dev_t number;
} devices[MANY];
static int count, loop = -1;

/* What this machine does not have is left out. */
static int watch(const char *path, int flags)
{
	int fd = open(path, flags);
	struct stat facts;

	if (fd < 0)
		return -1;
	live_check(fstat(fd, &facts) == 0, "fstat: %m");
	devices[count].fd = fd;
	devices[count].flags = fcntl(fd, F_GETFL);
	devices[count].number = facts.st_rdev;
	count++;
	return fd;
}

static void look(void)
{
	for (int i = 0; i < count; i++)
		devices[i].position = lseek(devices[i].fd, 0, SEEK_CUR);
}

static void verify(void)
{
	for (int i = 0; i < count; i++) {
		int fd = devices[i].fd;
		unsigned number = devices[i].number;
		struct stat facts;

		live_check(fstat(fd, &facts) == 0 && facts.st_rdev == devices[i].number,
			   "device %u:%u is another one", major(number), minor(number));
		live_check(fcntl(fd, F_GETFL) == devices[i].flags, "device %u:%u: flags %o, were %o",
			   major(number), minor(number), fcntl(fd, F_GETFL), devices[i].flags);
		live_check(lseek(fd, 0, SEEK_CUR) == devices[i].position,
			   "device %u:%u: position %ld, was %ld", major(number), minor(number),
			   lseek(fd, 0, SEEK_CUR), devices[i].position);
	}
}

static void many(void)
{
	static const char *const paths[] = { "/dev/null",	   "/dev/zero",	       "/dev/full",
					     "/dev/random",	   "/dev/urandom",     "/dev/loop-control",
					     "/dev/btrfs-control", "/dev/autofs",      "/dev/vsock",
					     "/dev/kvm",	   "/dev/userfaultfd", "/dev/hwrng",
					     "/dev/net/tun" };
	int fd;

	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		watch(paths[i], O_RDONLY | O_NONBLOCK);
		watch(paths[i], O_RDWR | O_CLOEXEC);
	}
	watch("/dev/kmsg", O_WRONLY);
	fd = watch("/dev/cpu/0/cpuid", O_RDONLY);
	if (fd >= 0)
		lseek(fd, 1, SEEK_SET);
}

static void block(void)
{
	static char content[PAGES * PAGE];
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), file, number, fd;
	char path[32];

	if (control < 0)
		live_skip("no loop devices: %m");
	file = open("content", O_RDWR | O_CREAT, 0600);
	live_fill(content, sizeof(content), LOOP_SEED);
	live_check(file >= 0 && write(file, content, sizeof(content)) == sizeof(content), "content: %m");
	do {
		number = ioctl(control, LOOP_CTL_GET_FREE);
		snprintf(path, sizeof(path), "/dev/loop%d", number);
		loop = open(path, O_RDONLY);
		if (number < 0 || loop < 0)
			live_skip("no loop device: %m");
		if (ioctl(loop, LOOP_SET_FD, file) == 0)
			break;
		live_check(errno == EBUSY, "%s: %m", path); /* another test was faster */
		close(loop);
	} while (true);
	close(loop);
	close(file);
	close(control);
	loop = fd = watch(path, O_RDONLY);
	live_check(fd >= 0 && lseek(fd, 3 * PAGE + 1, SEEK_SET) > 0, "%s: %m", path);
	watch(path, O_RDONLY | O_DIRECT);
}

static void verify_block(void)
{
	static char content[PAGES * PAGE];

	live_check(pread(loop, content, sizeof(content), 0) == sizeof(content), "read: %m");
	live_compare(content, sizeof(content), LOOP_SEED, "the content of the device");
	for (int i = 1; i < count; i++)
		close(devices[i].fd);
	live_check(ioctl(loop, LOOP_CLR_FD) == 0, "LOOP_CLR_FD: %m");
	close(loop);
}

static void node(void)
{
	live_check(mknod("null", S_IFCHR | 0600, makedev(1, 3)) == 0, "mknod: %m");
	live_check(watch("null", O_RDWR) >= 0, "null: %m");
}

static const struct {
	const char *name;
	void (*set_up)(void);
} cases[] = {
	{ "many", many },
	{ "block", block },
	{ "node", node },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	live_check(argc > 2, "usage: device_files DIRECTORY many|block|node");
	live_choose(cases, argv[2])->set_up();
	look();
	live_ready();
	while (!live_stopping()) {
		verify();
		live_sleep(0.005);
	}
	verify();
	if (loop >= 0)
		verify_block();
	return live_finish();
}
