/*
 * path_refused.c - has a file open that cannot be opened again by its path.
 *
 * usage: path_refused DIRECTORY THING
 * THING: one of those in the table at the end
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "live.h"

static int fd = -1;

static void open_new(const char *name, int flags)
{
	fd = open(name, flags | O_CREAT, 0600);
	live_check(fd >= 0 && (!(flags & O_ACCMODE) || write(fd, "content", 7) == 7), "%s: %m", name);
}

static void mount_on(const char *point)
{
	if (mount("criu-live", point, "tmpfs", 0, NULL))
		live_skip("mount: %m");
}

static void overmounted(void)
{
	live_check(mkdir("point", 0700) == 0, "mkdir: %m");
	mount_on("point");
	live_check(mkdir("point/inner", 0700) == 0, "mkdir: %m");
	open_new("point/inner/file", O_RDWR);
	mount_on("point");
}

/* The hidden mount has the file system whose directory still exists. */
static void overmounted_above(void)
{
	live_check(mkdir("point", 0700) == 0 && mkdir("point/inner", 0700) == 0, "mkdir: %m");
	mount_on("point/inner");
	open_new("point/inner/file", O_RDWR);
	mount_on("point");
}

/* If it were made again by its path, it would be in another file system. */
static void overmounted_deleted(void)
{
	live_check(mkdir("point", 0700) == 0, "mkdir: %m");
	mount_on("point");
	open_new("point/file", O_RDWR);
	live_check(unlink("point/file") == 0, "unlink: %m");
	mount_on("point");
}

static void detached(void)
{
	live_check(mkdir("point", 0700) == 0, "mkdir: %m");
	mount_on("point");
	open_new("point/file", O_RDWR);
	live_check(umount2("point", MNT_DETACH) == 0, "umount: %m");
}

static void pressure(void)
{
	fd = open("/proc/pressure/memory", O_RDWR | O_NONBLOCK);
	if (fd < 0 || write(fd, "some 150000 2000000", 20) < 0)
		live_skip("no pressure stall information: %m");
}

static bool set_attribute(int file, int attribute)
{
	int attributes;

	if (ioctl(file, FS_IOC_GETFLAGS, &attributes) < 0)
		return false;
	attributes = (attributes & ~(FS_IMMUTABLE_FL | FS_APPEND_FL)) | attribute;
	return ioctl(file, FS_IOC_SETFLAGS, &attributes) == 0;
}

static void immutable(void)
{
	open_new("immutable", O_RDWR);
	if (!set_attribute(fd, FS_IMMUTABLE_FL))
		live_skip("no attributes of files: %m");
}

static void append_only(void)
{
	open_new("append-only", O_RDWR);
	if (!set_attribute(fd, FS_APPEND_FL))
		live_skip("no attributes of files: %m");
}

static void open_nameless(int file)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	fd = open(path, O_PATH);
	live_check(file >= 0 && fd >= 0, "%s: %m", path);
}

/* A reader that is none: who writes gets SIGPIPE. */
static void pipe_path(void)
{
	int ends[2];

	live_check(pipe(ends) == 0, "pipe: %m");
	open_nameless(ends[0]);
	close(ends[0]);
}

static void event_path(void)
{
	open_nameless(eventfd(1, 0));
}

static void socket_path(void)
{
	int file = socket(AF_UNIX, SOCK_DGRAM, 0);

	open_nameless(file);
	close(file);
}

/* The kernel shows no path of more than 4095 bytes. */
static void too_long(void)
{
	char part[201];
	int start = open(".", O_RDONLY | O_DIRECTORY);

	memset(part, 'x', 200);
	part[200] = 0;
	for (int depth = 0; depth < 22; depth++)
		live_check(mkdir(part, 0700) == 0 && chdir(part) == 0, "depth %d: %m", depth);
	open_new("file", O_RDWR);
	live_check(start >= 0 && fchdir(start) == 0, "fchdir: %m");
	close(start);
}

static const struct {
	const char *name;
	void (*set_up)(void);
} things[] = {
	{ "pipe-path", pipe_path },
	{ "event-path", event_path },
	{ "socket-path", socket_path },
	{ "too-long", too_long },
	{ "overmounted", overmounted },
	{ "overmounted-above", overmounted_above },
	{ "overmounted-deleted", overmounted_deleted },
	{ "detached", detached },
	{ "pressure", pressure },
	{ "immutable", immutable },
	{ "append-only", append_only },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	live_check(argc > 2, "usage: path_refused DIRECTORY THING");
	live_choose(things, argv[2])->set_up();
	live_ready();
	live_wait_stop();
	set_attribute(fd, 0);
	close(fd);
	umount2("point", MNT_DETACH);
	umount2("point/inner", MNT_DETACH);
	umount2("point", MNT_DETACH);
	return live_finish();
}
