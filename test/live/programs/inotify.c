/*
 * inotify.c - inotify instances: their watches keep their numbers, and go on reporting.
 *
 * usage: inotify DIRECTORY plain|masks|numbers|moved|own|socket|unread|missed|held|handleless|last|process
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "below.h"
#include "live.h"

static int fd, wd[8];
static pid_t child;

static int watch(int inotify, const char *name, uint32_t mask)
{
	int number = inotify_add_watch(inotify, path("%s", name), mask);

	live_check(number > 0, "watch %s: %m", name);
	return number;
}

static int unread(int inotify)
{
	int bytes;

	live_check(ioctl(inotify, FIONREAD, &bytes) == 0, "FIONREAD: %m");
	return bytes;
}

static char buffer[65536] __attribute__((aligned(8)));
static size_t buffered, taken;

static const struct inotify_event *next_event(int inotify, int number, uint32_t mask, const char *what)
{
	const struct inotify_event *event;

	if (taken == buffered) {
		ssize_t length;

		live_check(poll(&(struct pollfd){ inotify, POLLIN, 0 }, 1, 5000) == 1,
			   "%s: event %x of watch %d has not arrived", what, mask, number);
		length = read(inotify, buffer, sizeof(buffer));
		live_check(length > 0, "%s: %m", what);
		buffered = length;
		taken = 0;
	}
	event = (const void *)(buffer + taken);
	taken += sizeof(*event) + event->len;
	return event;
}

static uint32_t expect(int inotify, int number, uint32_t mask, const char *name)
{
	const struct inotify_event *event = next_event(inotify, number, mask, name);

	live_check(event->wd == number && event->mask == mask && !strcmp(event->len ? event->name : "", name),
		   "event %x of watch %d (%s), not %x of %d (%s)", event->mask, event->wd,
		   event->len ? event->name : "", mask, number, name);
	return event->cookie;
}

static void expect_nothing(int inotify)
{
	const struct inotify_event *event;

	if (taken == buffered && unread(inotify) == 0 && !poll(&(struct pollfd){ inotify, POLLIN, 0 }, 1, 20))
		return;
	event = next_event(inotify, 0, 0, "nothing");
	live_fail("an unexpected event: %x of watch %d (%s)", event->mask, event->wd,
		  event->len ? event->name : "");
}

/* ---- plain: a file and a directory, by two tasks; flags; watched by an epoll; a blocked reader ---- */

static void read_events(void)
{
	signal(SIGTERM, live_stop_child);
	for (;;) {
		struct inotify_event event;
		ssize_t length = read(fd, &event, sizeof(event));

		live_check(length == sizeof(event) && event.wd == wd[0] && event.mask == IN_MODIFY,
			   "the blocked reader: %m");
		touch("answer");
	}
}

static void set_up_plain(void)
{
	make_directory("watched");
	touch("file");
	fd = inotify_init1(0);
	wd[0] = watch(fd, "file", IN_MODIFY);
	child = live_fork(read_events);
	live_wait_asleep(child);
	wd[1] = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	wd[2] = watch(wd[1], "watched", IN_CREATE | IN_DELETE | IN_MOVE);
	wd[3] = epoll_create1(0);
	live_check(epoll_ctl(wd[3], EPOLL_CTL_ADD, wd[1], &(struct epoll_event){ .events = EPOLLIN }) == 0,
		   "epoll_ctl: %m");
	wd[4] = dup(wd[1]);
}

static void verify_plain(void)
{
	struct epoll_event event;

	live_check(fcntl(wd[1], F_GETFL) & O_NONBLOCK && fcntl(wd[1], F_GETFD) == FD_CLOEXEC &&
			   !(fcntl(fd, F_GETFL) & O_NONBLOCK),
		   "wrong flags");
	expect_nothing(wd[1]);
	touch("watched/new");
	live_check(epoll_wait(wd[3], &event, 1, 5000) == 1, "the epoll does not see it");
	expect(wd[4], wd[2], IN_CREATE, "new");
	live_check(rename(path("watched/new"), path("watched/newer")) == 0, "rename: %m");
	live_check(expect(wd[1], wd[2], IN_MOVED_FROM, "new") == expect(wd[1], wd[2], IN_MOVED_TO, "newer"),
		   "other cookies");
	make_directory("watched/deeper");
	expect(wd[1], wd[2], IN_CREATE | IN_ISDIR, "deeper");
	live_check(rmdir(path("watched/deeper")) == 0 && unlink(path("watched/newer")) == 0, "remove: %m");
	expect(wd[1], wd[2], IN_DELETE | IN_ISDIR, "deeper");
	expect(wd[1], wd[2], IN_DELETE, "newer");
	unlink(path("answer"));
	append("file");
	while (access(path("answer"), F_OK) < 0)
		live_sleep(0.01);
	unlink(path("answer"));
	live_join(child);
}

/* ---- masks: one shot, a symbolic link itself, IN_EXCL_UNLINK, a device, the root of a file system ---- */

static void set_up_masks(void)
{
	make_directory("watched");
	touch("once");
	live_check(symlink("once", path("link")) == 0 || errno == EEXIST, "symlink: %m");
	fd = inotify_init1(IN_NONBLOCK);
	wd[0] = watch(fd, "once", IN_MODIFY | IN_ONESHOT);
	wd[1] = watch(fd, "link", IN_ATTRIB | IN_DONT_FOLLOW);
	wd[2] = watch(fd, "watched", IN_MODIFY | IN_EXCL_UNLINK | IN_ONLYDIR);
	wd[3] = inotify_add_watch(fd, "/dev/null", IN_DELETE_SELF);
	wd[4] = inotify_add_watch(fd, "/proc", IN_DELETE_SELF);
	live_check(wd[3] > 0 && wd[4] > 0, "watch: %m");
}

static void verify_masks(void)
{
	const struct timespec times[2] = { { .tv_sec = 2 }, { .tv_sec = 1 } };
	int file = open(path("watched/temporary"), O_RDWR | O_CREAT, 0600);

	expect_nothing(fd);
	append("once");
	expect(fd, wd[0], IN_MODIFY, "");
	expect(fd, wd[0], IN_IGNORED, "");
	append("once");
	live_check(utimensat(AT_FDCWD, path("link"), times, AT_SYMLINK_NOFOLLOW) == 0, "utimensat: %m");
	expect(fd, wd[1], IN_ATTRIB, "");
	live_check(write(file, "x", 1) == 1, "write: %m");
	expect(fd, wd[2], IN_MODIFY, "temporary");
	live_check(unlink(path("watched/temporary")) == 0 && write(file, "x", 1) == 1, "unlink: %m");
	expect_nothing(fd);
	close(file);
	/* IN_MASK_ADD adds to the mask of this watch. */
	live_check(watch(fd, "watched", IN_CREATE | IN_MASK_ADD) == wd[2], "another watch");
	live_check(inotify_rm_watch(fd, wd[3]) == 0 && inotify_rm_watch(fd, wd[4]) == 0, "rm_watch: %m");
	expect(fd, wd[3], IN_IGNORED, "");
	expect(fd, wd[4], IN_IGNORED, "");
}

/* ---- numbers: with gaps, a large one; none at all ---- */

static void set_up_numbers(void)
{
	for (int i = 0; i < 8; i++)
		make_directory((char[]){ 'a' + i, '\0' });
	fd = inotify_init1(IN_NONBLOCK);
	for (int round = 0; round < 500; round++) {
		wd[0] = watch(fd, "a", IN_CREATE);
		if (round < 499)
			live_check(inotify_rm_watch(fd, wd[0]) == 0, "rm_watch: %m");
	}
	for (int i = 1; i < 8; i++)
		wd[i] = watch(fd, (char[]){ 'a' + i, '\0' }, IN_CREATE);
	live_check(inotify_rm_watch(fd, wd[3]) == 0, "rm_watch: %m");
	while (unread(fd))
		live_check(read(fd, buffer, sizeof(buffer)) > 0, "read: %m");
	child = inotify_init1(IN_NONBLOCK);
}

static void verify_numbers(void)
{
	for (int i = 0; i < 8; i++) {
		const char name[] = { 'a' + i, '/', 'x', '\0' };

		touch(name);
		unlink(path("%s", name));
		if (i != 3)
			expect(fd, wd[i], IN_CREATE, "x");
	}
	expect_nothing(fd);
	expect_nothing(child);
	live_check(watch(child, "a", IN_CREATE) == 1, "the first watch of the other one");
}

/* ---- moved: the file has another path than when it was watched; another link to it; a space in its name ---- */

static void set_up_moved(void)
{
	make_directory("from");
	make_directory("to and fro");
	touch("from/file");
	touch("linked");
	fd = inotify_init1(IN_NONBLOCK);
	wd[0] = watch(fd, "from/file", IN_MODIFY);
	wd[1] = watch(fd, "linked", IN_MODIFY);
	live_check(rename(path("from/file"), path("to and fro/new\nline")) == 0, "rename: %m");
	live_check(link(path("linked"), path("other")) == 0 || errno == EEXIST, "link: %m");
	live_check(unlink(path("linked")) == 0, "unlink: %m");
	while (unread(fd))
		live_check(read(fd, buffer, sizeof(buffer)) > 0, "read: %m");
}

static void verify_moved(void)
{
	append("to and fro/new\nline");
	expect(fd, wd[0], IN_MODIFY, "");
	append("other");
	expect(fd, wd[1], IN_MODIFY, "");
}

/* ---- own: what criu itself does during the restore must not be seen: files of the process are watched ---- */

static int opened, fifo;

static void set_up_own(void)
{
	touch("opened");
	touch("mapped");
	mkfifo(path("fifo"), 0600);
	live_check(truncate(path("mapped"), 4096) == 0, "truncate: %m");
	opened = open(path("opened"), O_RDWR);
	fifo = open(path("fifo"), O_RDWR);
	live_check(opened >= 0 && fifo >= 0 && write(fifo, "x", 1) == 1, "open: %m");
	wd[4] = open(path("mapped"), O_RDWR);
	live_check(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, wd[4], 0) != MAP_FAILED, "mmap: %m");
	close(wd[4]);
	fd = inotify_init1(IN_NONBLOCK);
	wd[0] = watch(fd, "opened", IN_MODIFY | IN_CLOSE_WRITE | IN_MOVE_SELF | IN_DELETE_SELF);
	wd[1] = watch(fd, "fifo", IN_MODIFY | IN_ATTRIB);
	wd[2] = watch(fd, "mapped", IN_MODIFY);
}

static void verify_own(void)
{
	expect_nothing(fd);
	live_check(write(opened, "x", 1) == 1, "write: %m");
	expect(fd, wd[0], IN_MODIFY, "");
}

/* ---- socket: criu puts a unix socket in its place in a directory that is watched ---- */

static void set_up_socket(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	make_directory("watched");
	live_check(chdir(path("watched")) == 0, "chdir: %m");
	strcpy(address.sun_path, "socket");
	opened = socket(AF_UNIX, SOCK_DGRAM, 0);
	live_check(bind(opened, (struct sockaddr *)&address, sizeof(address)) == 0, "bind: %m");
	fd = inotify_init1(IN_NONBLOCK);
	wd[0] = watch(fd, "watched", IN_CREATE | IN_DELETE | IN_MOVE | IN_ATTRIB);
}

static void verify_socket(void)
{
	expect_nothing(fd);
	live_check(unlink("socket") == 0, "unlink: %m");
	expect(fd, wd[0], IN_DELETE, "socket");
}

/* ---- unread: every kind of event, in order, also of watches that are gone ---- */

static void set_up_unread(void)
{
	make_directory("watched");
	make_directory("watched/deep");
	touch("file");
	touch("doomed");
	fd = inotify_init1(IN_NONBLOCK);
	wd[0] = watch(fd, "watched", IN_CREATE | IN_DELETE | IN_MOVE | IN_ATTRIB);
	wd[1] = watch(fd, "file", IN_MODIFY | IN_OPEN | IN_CLOSE);
	wd[2] = watch(fd, "doomed", IN_DELETE_SELF | IN_ATTRIB);
	touch("watched/one");
	append("file");
	live_check(chmod(path("watched/one"), 0640) == 0, "chmod: %m");
	live_check(rename(path("watched/one"), path("watched/two")) == 0, "rename: %m");
	make_directory("watched/deep/er");
	make_directory("watched/a-directory-with-a-long-name-that-takes-more-room");
	live_check(unlink(path("doomed")) == 0, "unlink: %m");
	live_check(unlink(path("watched/two")) == 0, "unlink: %m");
	live_check(rmdir(path("watched/a-directory-with-a-long-name-that-takes-more-room")) == 0,
		   "rmdir: %m");
}

static void verify_unread(void)
{
	uint32_t cookie;

	expect(fd, wd[0], IN_CREATE, "one");
	expect(fd, wd[1], IN_OPEN, "");
	expect(fd, wd[1], IN_MODIFY, "");
	expect(fd, wd[1], IN_CLOSE_WRITE, "");
	expect(fd, wd[0], IN_ATTRIB, "one");
	cookie = expect(fd, wd[0], IN_MOVED_FROM, "one");
	live_check(expect(fd, wd[0], IN_MOVED_TO, "two") == cookie && cookie, "other cookies");
	expect(fd, wd[0], IN_CREATE | IN_ISDIR, "a-directory-with-a-long-name-that-takes-more-room");
	expect(fd, wd[2], IN_ATTRIB, "");
	expect(fd, wd[2], IN_DELETE_SELF, "");
	expect(fd, wd[2], IN_IGNORED, "");
	expect(fd, wd[0], IN_DELETE, "two");
	expect(fd, wd[0], IN_DELETE | IN_ISDIR, "a-directory-with-a-long-name-that-takes-more-room");
	expect_nothing(fd);
	append("file");
	expect(fd, wd[1], IN_OPEN, "");
}

/* ---- missed: if the images do not have the events, the process is told so; the original has them still ---- */

static void set_up_missed(void)
{
	make_directory("watched");
	fd = inotify_init1(IN_NONBLOCK);
	wd[0] = watch(fd, "watched", IN_CREATE | IN_DELETE);
	touch("watched/one");
	live_check(unlink(path("watched/one")) == 0, "unlink: %m");
}

static void verify_missed(void)
{
	if (!access(path("tells-that-events-are-missed"), F_OK)) {
		expect(fd, -1, IN_Q_OVERFLOW, "");
	} else {
		expect(fd, wd[0], IN_CREATE, "one");
		expect(fd, wd[0], IN_DELETE, "one");
	}
	expect_nothing(fd);
	touch("watched/two");
	unlink(path("watched/two"));
	expect(fd, wd[0], IN_CREATE, "two");
}

/* ---- handleless: a file that cannot be opened by a handle ---- */

#define HANDLELESS "/proc/sys/kernel/random/write_wakeup_threshold" /* which nobody reads */

static void set_up_handleless(void)
{
	fd = inotify_init1(IN_NONBLOCK);
	wd[0] = inotify_add_watch(fd, HANDLELESS, IN_OPEN);
	live_check(wd[0] > 0, "watch: %m");
}

static void verify_handleless(void)
{
	expect_nothing(fd);
	live_check(open(HANDLELESS, O_RDONLY) >= 0, "open: %m");
	expect(fd, wd[0], IN_OPEN, "");
}

/* ---- held: a deleted file and directory are watched, which processes have open ---- */

static void hold(void)
{
	signal(SIGTERM, live_stop_child);
	for (;;)
		pause();
}

static void set_up_held(void)
{
	touch("doomed");
	make_directory("gone");
	child = live_fork(hold);
	opened = open(path("doomed"), O_RDWR);
	fifo = open(path("gone"), O_RDONLY | O_DIRECTORY);
	fd = inotify_init1(IN_NONBLOCK);
	wd[0] = watch(fd, "doomed", IN_MODIFY | IN_ATTRIB | IN_DELETE_SELF);
	wd[1] = watch(fd, "gone", IN_ATTRIB | IN_DELETE_SELF | IN_CREATE);
	live_check(opened >= 0 && fifo >= 0 && unlink(path("doomed")) == 0 && rmdir(path("gone")) == 0,
		   "unlink: %m");
	while (unread(fd))
		live_check(read(fd, buffer, sizeof(buffer)) > 0, "read: %m");
}

static void verify_held(void)
{
	expect_nothing(fd);
	live_check(write(opened, "x", 1) == 1 && fchmod(opened, 0640) == 0, "write: %m");
	expect(fd, wd[0], IN_MODIFY, "");
	expect(fd, wd[0], IN_ATTRIB, "");
	live_check(fchmod(fifo, 0750) == 0, "fchmod: %m");
	expect(fd, wd[1], IN_ATTRIB | IN_ISDIR, "");
	expect_nothing(fd);
	close(opened);
	close(fifo);
	live_join(child);
	expect(fd, wd[0], IN_DELETE_SELF, "");
	expect(fd, wd[0], IN_IGNORED, "");
	expect(fd, wd[1], IN_DELETE_SELF, "");
	expect(fd, wd[1], IN_IGNORED, "");
}

/* ---- stranger: only a process outside of the tree has the deleted file open ---- */

static void set_up_stranger(void)
{
	touch("doomed");
	fd = inotify_init1(IN_NONBLOCK);
	wd[0] = watch(fd, "doomed", IN_MODIFY);
	live_check(unlink(path("doomed")) == 0, "unlink: %m");
}

static void verify_stranger(void)
{
	expect_nothing(fd);
}

/* ---- last: what criu does in the last step of a restore: it cuts a log, removes a name, moves a socket ---- */

static void set_up_last(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	make_directory("watched");
	make_directory("far");
	opened = open(path("watched/log"), O_WRONLY | O_CREAT | O_APPEND, 0600);
	mkfifo(path("watched/fifo"), 0600);
	fifo = open(path("watched/fifo"), O_RDWR);
	live_check(opened >= 0 && write(opened, "x", 1) == 1 && fifo >= 0, "open: %m");
	touch("watched/gone");
	wd[1] = open(path("watched/gone"), O_RDONLY);
	live_check(link(path("watched/gone"), path("far/kept")) == 0 && unlink(path("watched/gone")) == 0,
		   "link: %m");
	live_check(snprintf(address.sun_path, sizeof(address.sun_path), "%s", path("watched/socket")) <
			   (int)sizeof(address.sun_path),
		   "the path is too long");
	wd[2] = socket(AF_UNIX, SOCK_STREAM, 0);
	live_check(bind(wd[2], (struct sockaddr *)&address, sizeof(address)) == 0 && listen(wd[2], 1) == 0,
		   "bind: %m");
	fd = inotify_init1(IN_NONBLOCK);
	wd[0] = watch(fd, "watched", IN_MODIFY | IN_CLOSE_WRITE | IN_MOVE | IN_DELETE);
}

static void verify_last(void)
{
	expect_nothing(fd);
	live_check(write(opened, "x", 1) == 1, "write: %m");
	expect(fd, wd[0], IN_MODIFY, "log");
	live_check(unlink(path("watched/socket")) == 0 && unlink(path("far/kept")) == 0, "unlink: %m");
}

/* ---- process: a directory of /proc about a process, which a restore would not find, is refused ---- */

static void set_up_process(void)
{
	opened = open("/proc/self", O_RDONLY | O_DIRECTORY);
	fd = inotify_init1(IN_NONBLOCK);
	wd[0] = inotify_add_watch(fd, "/proc/self", IN_CREATE);
	live_check(wd[0] > 0, "watch: %m");
}

static void verify_process(void)
{
	expect_nothing(fd);
}

static const struct live_part things[] = {
	{ "plain", set_up_plain, verify_plain },
	{ "masks", set_up_masks, verify_masks },
	{ "numbers", set_up_numbers, verify_numbers },
	{ "moved", set_up_moved, verify_moved },
	{ "own", set_up_own, verify_own },
	{ "socket", set_up_socket, verify_socket },
	{ "missed", set_up_missed, verify_missed },
	{ "held", set_up_held, verify_held },
	{ "stranger", set_up_stranger, verify_stranger },
	{ "handleless", set_up_handleless, verify_handleless },
	{ "unread", set_up_unread, verify_unread },
	{ "last", set_up_last, verify_last },
	{ "process", set_up_process, verify_process },
};

int main(int argc, char **argv)
{
	return live_run_one(argc, argv, things);
}
