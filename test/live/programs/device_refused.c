/*
 * device_refused.c - has a device open that must be refused.
 *
 * usage: device_refused DIRECTORY PATH read|write|autoclear
 *
 * A path of "loop" means a loop device of a file.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "live.h"

/* It loses its file when it is closed. */
static int open_loop(int flags)
{
	struct loop_config config = { .info.lo_flags = LO_FLAGS_AUTOCLEAR };
	int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), number, fd;
	char path[32];

	config.fd = open("content", O_RDWR | O_CREAT, 0600);
	live_check((int)config.fd >= 0 && ftruncate(config.fd, 65536) == 0, "content: %m");
	do {
		number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
		snprintf(path, sizeof(path), "/dev/loop%d", number);
		fd = open(path, flags);
		if (number < 0 || fd < 0)
			live_skip("no loop device: %m");
		if (ioctl(fd, LOOP_CONFIGURE, &config) == 0)
			break;
		live_check(errno == EBUSY, "%s: %m", path); /* another test was faster */
		close(fd);
	} while (true);
	close(control);
	close(config.fd);
	return fd;
}

int main(int argc, char **argv)
{
	int flags, fd;

	live_begin(argc, argv);
	live_check(argc > 3, "usage: device_refused DIRECTORY PATH read|write|autoclear");
	flags = !strcmp(argv[3], "write") ? O_RDWR : O_RDONLY;
	fd = !strcmp(argv[2], "loop") ? open_loop(flags) : open(argv[2], flags);
	if (fd < 0)
		live_skip("%s: %m", argv[2]);
	live_ready();
	live_wait_stop();
	live_check(fcntl(fd, F_GETFD) >= 0, "the device was closed");
	return live_finish();
}
