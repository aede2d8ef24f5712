/*
 * uring_files.c - io_uring: requests that change files while a dump begins. What they have changed and their
 * completions must be from the same moment.
 *
 * usage: uring_files DIRECTORY opens|ticks
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/time_types.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include "uring.h"

#define MOST 256

static struct ring ring;
static int signalled;
static uint64_t signals, completions; /* all so far */

static void make_ring(void)
{
	live_need_kernel(613, "criu reads what is registered since Linux 6.13 only");
	signalled = eventfd(0, 0);
	ring_make(&ring, MOST, 0, 4 * MOST);
	live_check(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_EVENTFD, &signalled, 1) == 0,
		   "register: %m");
}

/* Takes one; if there is none, a signal must come. One signal may be for several. */
static struct completion await(void)
{
	uint64_t number;

	while (!ring_unread(&ring)) {
		if (read(signalled, &number, sizeof(number)) < 0) {
			live_check(errno == EINTR, "read: %m");
			continue;
		}
		signals += number;
		live_check(signals <= completions + ring_unread(&ring), "%llu signals for %llu completions",
			   (unsigned long long)signals, (unsigned long long)completions + ring_unread(&ring));
	}
	completions++;
	return ring_take(&ring);
}

/* ---- opens: worker threads of the kernel open many files ---- */

static dev_t device;
static ino_t inode;

#define LINKS 4 /* a to d */

/* Such a name takes the kernel long: links through thousands of directories. */
static void make_slow_name(void)
{
	static char target[4000], name[2] = "a";

	for (size_t i = 0; i < sizeof(target) - 16; i += 2)
		memcpy(target + i, "./", 3);
	strcat(target, "opened");
	for (int i = 0; i < LINKS; i++) {
		unlink(name);
		live_check(symlink(target, name) == 0, "symlink: %m");
		strcpy(strrchr(target, '/') + 1, name);
		name[0]++;
	}
}

static void set_up_opens(void)
{
	struct stat found;
	int fd = open("opened", O_CREAT | O_RDWR, 0600);

	live_check(fd >= 0 && fstat(fd, &found) == 0, "open: %m");
	device = found.st_dev;
	inode = found.st_ino;
	close(fd);
	make_slow_name();
	make_ring();
}

static void step_opens(void)
{
	for (uint64_t i = 0; i < MOST; i++) {
		struct io_uring_sqe *request = ring_prepare(&ring, IORING_OP_OPENAT, i);

		request->fd = AT_FDCWD;
		request->addr = (uintptr_t) "d"; /* the last link */
		request->open_flags = O_RDONLY;
		request->flags = IOSQE_ASYNC;
	}
	live_check(syscall(SYS_io_uring_enter, ring.fd, ring_publish(&ring), 0, 0, NULL, 0) == MOST,
		   "enter: %m");
	for (int i = 0; i < MOST; i++) {
		struct stat found;
		int fd = await().res;

		live_check(fd >= 0 && fstat(fd, &found) == 0, "open: %d", fd);
		live_check(found.st_dev == device && found.st_ino == inode, "%d is another file", fd);
		close(fd);
	}
	live_check(!ring_unread(&ring), "a completion of nobody");
}

/* ---- ticks: a timeout ends all the time ---- */

static struct __kernel_timespec moment = { .tv_nsec = 300000 };

static void set_up_ticks(void)
{
	live_need_kernel(615, "criu sees which requests wait since Linux 6.15 only");
	make_ring();
}

static void step_ticks(void)
{
	struct io_uring_sqe *request = ring_prepare(&ring, IORING_OP_TIMEOUT, 1);

	request->addr = (uintptr_t)&moment;
	request->len = 1;
	live_check(syscall(SYS_io_uring_enter, ring.fd, ring_publish(&ring), 0, 0, NULL, 0) == 1,
		   "enter: %m");
	live_check(await().res == -ETIME, "timeout");
}

static const struct part {
	const char *name;
	void (*set_up)(void);
	void (*verify)(void);
} parts[] = {
	{ "opens", set_up_opens, step_opens },
	{ "ticks", set_up_ticks, step_ticks },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	const struct part *part = live_choose(parts, argv[2]);
	part->set_up();
	live_ready();
	while (!live_stopping())
		part->verify();
	for (int i = 0; i < 50; i++)
		part->verify();
	return live_finish();
}
