/*
 * plugin_device.c - a loop device that is open for writing, and mapped: only a plugin can save it. It exists as long as
 * the processes have it.
 *
 * usage: plugin_device DIRECTORY
 *
 * A child inherits the descriptor and the mapping. The parent writes through its mapping, and both find that through
 * the descriptor.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <stdio.h>
#include <unistd.h>

#include "live.h"

#define PAGE  4096
#define PAGES 16
#define SEED  11

static unsigned char *mapping; /* from the second page on; the first word of it is a counter */
static int device;

static int attach(const char *path)
{
	struct loop_config config = { .fd = open(path, O_RDWR | O_CLOEXEC),
				      .info.lo_flags = LO_FLAGS_AUTOCLEAR };
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), fd = -1;
	char name[32];

	if (control < 0)
		live_skip("there are no loop devices: %m");
	do {
		if (fd >= 0)
			close(fd);
		snprintf(name, sizeof(name), "/dev/loop%d", ioctl(control, LOOP_CTL_GET_FREE));
		fd = open(name, O_RDWR | O_NONBLOCK);
		live_check(fd >= 0, "%s: %m", name);
	} while (ioctl(fd, LOOP_CONFIGURE, &config) < 0 && errno == EBUSY);
	close(config.fd);
	close(control);
	return fd;
}

static void prepare(void)
{
	static unsigned char content[PAGES * PAGE];
	char path[4096];
	int fd;

	live_fill(content, sizeof(content), SEED);
	live_path(path, sizeof(path), "disk");
	fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	live_check(fd >= 0 && write(fd, content, sizeof(content)) == sizeof(content), "%s: %m", path);
	close(fd);
	device = attach(path);
	mapping = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, device, PAGE);
	live_check(mapping != MAP_FAILED, "mmap: %m");
	live_check(lseek(device, 3 * PAGE, SEEK_SET) == 3 * PAGE, "lseek: %m");
	memset(mapping, 0, PAGE);
}

static void verify(void)
{
	static unsigned char content[PAGES * PAGE];
	unsigned char read_back[PAGE];

	live_fill(content, sizeof(content), SEED);
	live_check(!memcmp(mapping + PAGE, content + 2 * PAGE, PAGE), "the mapping has another content");
	live_check(pread(device, read_back, PAGE, 5 * PAGE) == PAGE &&
			   !memcmp(read_back, content + 5 * PAGE, PAGE),
		   "the device has another content");
	live_check(lseek(device, 0, SEEK_CUR) == 3 * PAGE, "the position has changed");
	live_check(fcntl(device, F_GETFL) & O_NONBLOCK, "the flags have changed");
}

/* Through a descriptor, what was written through a mapping. */
static unsigned counter(void)
{
	unsigned value;

	live_check(pread(device, &value, sizeof(value), PAGE) == sizeof(value), "pread: %m");
	return value;
}

/* If the parent writes meanwhile, nothing can be said. */
static void child(void)
{
	while (!live_stopping()) {
		unsigned before = *(volatile unsigned *)mapping, found = counter(),
			 after = *(volatile unsigned *)mapping;

		verify();
		live_check(before != after || found == after, "the mapping is not of the device");
		live_sleep(0.001);
	}
}

int main(int argc, char **argv)
{
	pid_t pid;

	live_begin(argc, argv);
	prepare();
	pid = live_fork(child);
	live_ready();
	for (unsigned i = 1; !live_stopping(); i++) {
		*(volatile unsigned *)mapping = i;
		verify();
		live_check(counter() == i, "the mapping is not of the device");
		live_sleep(0.001);
	}
	live_join(pid);
	return live_finish();
}
