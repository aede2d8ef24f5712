/*
 * fuse_server.c - serves a FUSE file system, in whose root it has a directory open: whoever looks at that waits for it.
 *
 * usage: fuse_server DIRECTORY
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "live.h"

static int device;

static void answer(const struct fuse_in_header *request, int error, void *bytes, size_t size)
{
	struct fuse_out_header header = { sizeof(header) + size, error, request->unique };
	struct iovec parts[] = { { &header, sizeof(header) }, { bytes, size } };

	live_check(writev(device, parts, size ? 2 : 1) == (ssize_t)header.len, "answer: %m");
}

static void serve_one(const struct fuse_in_header *request)
{
	struct fuse_init_out init = { .major = 7, .minor = 31, .max_write = 65536 };
	struct fuse_attr_out attributes = { .attr = { .ino = 1, .mode = S_IFDIR | 0755, .nlink = 2 } };
	struct fuse_open_out opened = { .fh = 1 };

	if (request->opcode == FUSE_INIT)
		answer(request, 0, &init, sizeof(init));
	else if (request->opcode == FUSE_GETATTR)
		answer(request, 0, &attributes, sizeof(attributes));
	else if (request->opcode == FUSE_OPENDIR)
		answer(request, 0, &opened, sizeof(opened));
	else if (request->opcode != FUSE_FORGET)
		answer(request, -ENOSYS, NULL, 0);
}

static void *serve(void *unused)
{
	static _Alignas(struct fuse_in_header) char bytes[1 << 17];

	for (;;) {
		ssize_t length = read(device, bytes, sizeof(bytes));

		if (length > 0)
			serve_one((const void *)bytes);
		else if (length < 0 && errno == ENODEV)
			return unused;
	}
}

int main(int argc, char **argv)
{
	char path[4096], options[128];
	pthread_t thread;
	int opened;

	live_begin(argc, argv);
	snprintf(path, sizeof(path), "%s/mount", live_directory);
	device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (device < 0)
		live_skip("no FUSE");
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", device);
	live_check(mkdir(path, 0700) == 0 && mount("live", path, "fuse", MS_NOSUID | MS_NODEV, options) == 0,
		   "mount: %m");
	live_check(pthread_create(&thread, NULL, serve, NULL) == 0, "pthread_create");
	opened = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	live_check(opened >= 0, "open: %m");
	live_ready();
	live_wait_stop();
	close(opened);
	live_check(umount2(path, MNT_DETACH) == 0 && pthread_join(thread, NULL) == 0, "umount: %m");
	return live_finish();
}
