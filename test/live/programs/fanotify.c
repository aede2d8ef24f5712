/*
 * fanotify.c - fanotify groups: their marks stay, and go on reporting.
 *
 * usage: fanotify DIRECTORY plain|ignored|evictable|mount|system|names|held|missed|unlimited|deciding|apart|target
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "below.h"
#include "live.h"

#ifndef FAN_MARK_IGNORE_SURV
#define FAN_MARK_IGNORE_SURV 0x440 /* Linux 6.0 */
#endif
#ifndef FAN_MARK_EVICTABLE
#define FAN_MARK_EVICTABLE 0x200 /* Linux 5.19 */
#endif
#define EVERYTHING 0x1e80 /* FAN_REPORT_DFID_NAME_TARGET | FAN_REPORT_PIDFD */

typedef struct fanotify_event_metadata event_t;

static int fd, other, opened;
static pid_t child;
static _Alignas(event_t) char buffer[4096];
static ssize_t taken, buffered;

static int create(unsigned flags, unsigned event_flags)
{
	int group = fanotify_init(flags | FAN_NONBLOCK, event_flags);

	live_check(group >= 0, "fanotify_init %x: %m", flags);
	return group;
}

static void mark(int group, unsigned flags, uint64_t mask, const char *name)
{
	live_check(fanotify_mark(group, FAN_MARK_ADD | flags, mask, AT_FDCWD, path("%s", name)) == 0,
		   "fanotify_mark %s: %m", name);
}

/* NULL: there is none. Its descriptor is the caller's. */
static const event_t *next_event(int group)
{
	const event_t *event;

	if (taken == buffered) {
		buffered = read(group, buffer, sizeof(buffer));
		taken = 0;
	}
	if (buffered <= 0) {
		buffered = 0;
		return NULL;
	}
	event = (const void *)(buffer + taken);
	taken += event->event_len;
	return event;
}

/* The file of an event, by its descriptor. */
static void expect(int group, uint64_t mask, const char *name)
{
	const event_t *event = next_event(group);
	struct stat wanted, found;

	live_check(event, "no event %llx of %s", (unsigned long long)mask, name);
	live_check(event->mask == mask, "event %llx, not %llx of %s", (unsigned long long)event->mask,
		   (unsigned long long)mask, name);
	live_check(event->fd >= 0 && fstat(event->fd, &found) == 0 && stat(path("%s", name), &wanted) == 0,
		   "stat %s: %m", name);
	live_check(found.st_ino == wanted.st_ino && found.st_dev == wanted.st_dev,
		   "an event of another file, not %s", name);
	live_check(event->pid == getpid(), "an event of process %d", event->pid);
	close(event->fd);
}

/* The mask only: events with file handles. */
static const event_t *expect_mask(int group, uint64_t mask)
{
	const event_t *event = next_event(group);

	live_check(event && event->mask == mask, "event %llx, not %llx",
		   event ? (unsigned long long)event->mask : 0ULL, (unsigned long long)mask);
	return event;
}

/* The name in the first record of an event with a file handle. */
static const char *name_of(const event_t *event)
{
	const struct fanotify_event_info_fid *info =
		(const void *)((const char *)event + event->metadata_len);
	const struct file_handle *handle = (const void *)info->handle;

	return (const char *)handle->f_handle + handle->handle_bytes;
}

static void expect_nothing(int group)
{
	const event_t *event = next_event(group);

	live_check(!event, "an unexpected event: %llx of process %d",
		   event ? (unsigned long long)event->mask : 0ULL, event ? event->pid : 0);
}

static void drain(int group)
{
	const event_t *event;

	while ((event = next_event(group)))
		if (event->fd >= 0)
			close(event->fd);
}

static void hold(void)
{
	signal(SIGTERM, live_stop_child);
	for (;;)
		pause();
}

/* ---- plain: a file, a directory with its children; shared by two processes; flags ---- */

static void set_up_plain(void)
{
	make_directory("watched");
	touch("watched/inner");
	touch("file");
	fd = create(FAN_CLASS_NOTIF | FAN_CLOEXEC, O_RDONLY | O_LARGEFILE | O_CLOEXEC);
	mark(fd, 0, FAN_MODIFY | FAN_CLOSE_WRITE, "file");
	mark(fd, FAN_MARK_ONLYDIR, FAN_CLOSE_WRITE | FAN_ONDIR | FAN_EVENT_ON_CHILD, "watched");
	other = create(FAN_CLASS_CONTENT | FAN_UNLIMITED_QUEUE | FAN_UNLIMITED_MARKS | FAN_REPORT_TID,
		       O_RDWR);
	mark(other, 0, FAN_MODIFY, "file");
	child = live_fork(hold);
}

static void verify_plain(void)
{
	live_check(fcntl(fd, F_GETFD) == FD_CLOEXEC && fcntl(other, F_GETFD) == 0 &&
			   fcntl(fd, F_GETFL) & O_NONBLOCK,
		   "wrong flags");
	expect_nothing(fd);
	expect_nothing(other);
	append("file");
	expect(fd, FAN_MODIFY | FAN_CLOSE_WRITE, "file");
	expect(other, FAN_MODIFY, "file");
	append("watched/inner");
	expect(fd, FAN_CLOSE_WRITE, "watched/inner");
	expect_nothing(fd);
	live_join(child);
}

/* ---- ignored: masks of what is ignored, until the file is modified or for ever; marks that may be evicted ---- */

static void set_up_ignored(void)
{
	make_directory("watched");
	touch("watched/inner");
	touch("file");
	fd = create(0, O_RDONLY);
	mark(fd, 0, FAN_MODIFY | FAN_CLOSE_WRITE | FAN_EVENT_ON_CHILD, "watched");
	mark(fd, FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY, FAN_CLOSE_WRITE, "watched/inner");
	mark(fd, FAN_MARK_IGNORED_MASK, FAN_CLOSE_WRITE, "file");
	mark(fd, 0, FAN_CLOSE_WRITE, "file");
}

static void verify_ignored(void)
{
	expect_nothing(fd);
	append("watched/inner");
	expect(fd, FAN_MODIFY, "watched/inner");
	touch("file"); /* which does not modify it */
	expect_nothing(fd);
	append("file");
	expect(fd, FAN_CLOSE_WRITE, "file");
	touch("file");
	expect(fd, FAN_CLOSE_WRITE, "file");
	expect_nothing(fd);
}

/* ---- evictable: marks that the kernel may drop; what a directory ignores of its children ---- */

static void set_up_evictable(void)
{
	make_directory("watched");
	touch("watched/inner");
	fd = create(EVERYTHING, 0);
	mark(fd, FAN_MARK_EVICTABLE, FAN_CREATE | FAN_DELETE | FAN_ONDIR, "watched");
	mark(fd, FAN_MARK_EVICTABLE | FAN_MARK_IGNORE_SURV, FAN_DELETE, "watched");
}

static void verify_evictable(void)
{
	expect_nothing(fd);
	touch("watched/new");
	live_check(unlink(path("watched/new")) == 0 && mkdir(path("watched/deeper"), 0700) == 0 &&
			   rmdir(path("watched/deeper")) == 0,
		   "unlink: %m");
	expect_mask(fd, FAN_CREATE); /* ignored is only that a file was deleted */
	expect_mask(fd, FAN_CREATE | FAN_DELETE | FAN_ONDIR);
	expect_nothing(fd);
}

/* ---- mount, system: a mount, and a whole file system ---- */

static void mount_one(void)
{
	make_directory("mounted");
	live_check(mount("criu-live", path("mounted"), "tmpfs", 0, NULL) == 0, "mount: %m");
	touch("mounted/file");
}

static void unmount(void)
{
	live_check(umount2(path("mounted"), MNT_DETACH) == 0, "umount: %m");
}

static void set_up_mount(void)
{
	mount_one();
	fd = create(0, O_RDWR);
	mark(fd, FAN_MARK_MOUNT, FAN_MODIFY, "mounted");
	touch("mounted/quiet");
	mark(fd, FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY, FAN_MODIFY, "mounted/quiet");
}

static void verify_mount(void)
{
	expect_nothing(fd);
	append("mounted/quiet");
	append("mounted/file");
	expect(fd, FAN_MODIFY, "mounted/file");
	expect_nothing(fd);
	unmount();
}

static void set_up_system(void)
{
	mount_one();
	fd = create(EVERYTHING, 0);
	mark(fd, FAN_MARK_FILESYSTEM, FAN_CREATE | FAN_RENAME | FAN_ONDIR, "mounted");
	other = create(0, O_RDONLY);
	mark(other, FAN_MARK_FILESYSTEM, FAN_MODIFY, "mounted");
	mark(other, FAN_MARK_MOUNT | FAN_MARK_IGNORED_MASK, FAN_OPEN, "mounted");
}

static void verify_system(void)
{
	expect_nothing(fd);
	expect_nothing(other);
	touch("mounted/new");
	append("mounted/new");
	live_check(strcmp(name_of(expect_mask(fd, FAN_CREATE)), "new") == 0, "another name");
	live_check(rename(path("mounted/new"), path("mounted/newer")) == 0, "rename: %m");
	live_check(strcmp(name_of(expect_mask(fd, FAN_RENAME)), "new") == 0, "another old name");
	expect(other, FAN_MODIFY, "mounted/newer");
	unmount();
}

/* ---- names: a group of somebody without rights, with file handles and names ---- */

static void set_up_names(void)
{
	make_directory("watched");
	touch("file");
	fd = create(FAN_REPORT_DFID_NAME, 0);
	mark(fd, 0, FAN_CREATE | FAN_DELETE | FAN_MOVED_TO | FAN_ONDIR, "watched");
	mark(fd, 0, FAN_ATTRIB, "file");
	other = create(FAN_REPORT_FID, 0);
	mark(other, 0, FAN_MODIFY, "file");
}

/* Without CAP_SYS_ADMIN, only the pids of its own events. */
static void expect_pid_of_stranger(const event_t *event)
{
	live_check(event->pid == (geteuid() ? 0 : child), "it shows process %d", event->pid);
}

static void create_one(void)
{
	touch("watched/by-child");
}

static void verify_names(void)
{
	const event_t *event;

	expect_nothing(fd);
	touch("watched/new");
	live_check(unlink(path("watched/new")) == 0 && chmod(path("file"), 0640) == 0, "chmod: %m");
	event = expect_mask(fd, FAN_CREATE | FAN_DELETE);
	live_check(!strcmp(name_of(event), "new") && event->pid == getpid(), "another name or process: %d",
		   event->pid);
	expect_mask(fd, FAN_ATTRIB);
	child = live_fork(create_one);
	live_join(child);
	expect_pid_of_stranger(expect_mask(fd, FAN_CREATE));
	append("file");
	expect_mask(other, FAN_MODIFY);
	expect_nothing(other);
}

/* ---- held: a mark of a deleted file, which the process has open ---- */

static void set_up_held(void)
{
	touch("doomed");
	opened = open(path("doomed"), O_RDWR);
	fd = create(FAN_REPORT_FID, 0);
	mark(fd, 0, FAN_MODIFY | FAN_ATTRIB | FAN_DELETE_SELF, "doomed");
	live_check(opened >= 0 && unlink(path("doomed")) == 0, "unlink: %m");
	drain(fd);
}

static void verify_held(void)
{
	expect_nothing(fd);
	live_check(write(opened, "x", 1) == 1, "write: %m");
	expect_mask(fd, FAN_MODIFY);
	close(opened);
	expect_mask(fd, FAN_DELETE_SELF);
	expect_nothing(fd);
}

/* ---- missed, unlimited: events that were not read ---- */

static void set_up_missed(void)
{
	make_directory("watched");
	touch("file");
	fd = create(0, O_RDONLY);
	other = create(EVERYTHING, 0);
	mark(fd, 0, FAN_MODIFY, "file");
	mark(other, 0, FAN_CREATE, "watched");
	append("file");
	touch("watched/one");
}

static void verify_missed(void)
{
	if (!access(path("tells-that-events-are-missed"), F_OK)) {
		live_check(expect_mask(fd, FAN_Q_OVERFLOW)->fd == FAN_NOFD, "it has a descriptor");
		expect_mask(other, FAN_Q_OVERFLOW);
	} else {
		expect(fd, FAN_MODIFY, "file");
		expect_mask(other, FAN_CREATE);
	}
	expect_nothing(fd);
	expect_nothing(other);
	append("file");
	unlink(path("watched/two"));
	touch("watched/two");
	expect(fd, FAN_MODIFY, "file");
	live_check(!strcmp(name_of(expect_mask(other, FAN_CREATE)), "two"), "another name");
}

static void set_up_unlimited(void)
{
	touch("file");
	fd = create(FAN_UNLIMITED_QUEUE, O_RDONLY);
	mark(fd, 0, FAN_MODIFY, "file");
	append("file");
}

static void verify_unlimited(void)
{
	expect(fd, FAN_MODIFY, "file");
	expect_nothing(fd);
}

/* ---- deciding: it is asked about each file in the directory, criu's images among them ---- */

static void *decide(void *unused)
{
	for (;;) {
		event_t event;
		struct fanotify_response answer = { .response = FAN_ALLOW };

		poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, -1);
		if (read(fd, &event, sizeof(event)) != sizeof(event))
			continue;
		answer.fd = event.fd;
		live_check(write(fd, &answer, sizeof(answer)) == sizeof(answer), "answer: %m");
		close(event.fd);
	}
	return NULL;
}

static void set_up_deciding(void)
{
	pthread_t thread;

	fd = create(FAN_CLASS_CONTENT, O_RDONLY);
	live_check(pthread_create(&thread, NULL, decide, NULL) == 0, "pthread_create");
	mark(fd, 0, FAN_OPEN_PERM | FAN_ACCESS_PERM | FAN_ONDIR | FAN_EVENT_ON_CHILD, ".");
	touch("images-elsewhere");
}

/* ---- apart: the same by a thread with a table of descriptors of its own, about a file that criu opens ---- */

static void *decide_apart(void *is_ready)
{
	live_check(unshare(CLONE_FILES) == 0, "unshare: %m");
	fd = create(FAN_CLASS_CONTENT, O_RDONLY);
	mark(fd, 0, FAN_OPEN_PERM | FAN_ONDIR | FAN_EVENT_ON_CHILD, ".");
	__atomic_store_n((int *)is_ready, 1, __ATOMIC_SEQ_CST);
	return decide(NULL);
}

static void set_up_apart(void)
{
	static int is_ready;
	pthread_t thread;

	touch("images-elsewhere");
	touch("deleted");
	opened = open(path("deleted"), O_RDWR | O_CLOEXEC);
	live_check(opened >= 0 && write(opened, "x", 1) == 1 && unlink(path("deleted")) == 0, "deleted: %m");
	live_check(pthread_create(&thread, NULL, decide_apart, &is_ready) == 0, "pthread_create");
	while (!__atomic_load_n(&is_ready, __ATOMIC_SEQ_CST))
		usleep(1000);
}

/* ---- target: a mark of a file, in a group that also reports the directory ---- */

static void set_up_target(void)
{
	touch("one");
	fd = create(EVERYTHING, 0);
	mark(fd, 0, FAN_MODIFY, "one");
}

static void verify_target(void)
{
	append("one");
	expect_mask(fd, FAN_MODIFY);
	expect_nothing(fd);
}

static void verify_deciding(void)
{
	int file = open(path("images-elsewhere"), O_RDONLY);

	live_check(file >= 0, "open: %m");
	close(file);
}

static const struct live_part things[] = {
	{ "plain", set_up_plain, verify_plain },
	{ "ignored", set_up_ignored, verify_ignored },
	{ "evictable", set_up_evictable, verify_evictable },
	{ "mount", set_up_mount, verify_mount },
	{ "system", set_up_system, verify_system },
	{ "names", set_up_names, verify_names },
	{ "held", set_up_held, verify_held },
	{ "missed", set_up_missed, verify_missed },
	{ "unlimited", set_up_unlimited, verify_unlimited },
	{ "deciding", set_up_deciding, verify_deciding },
	{ "apart", set_up_apart, verify_deciding },
	{ "target", set_up_target, verify_target },
};

int main(int argc, char **argv)
{
	return live_run_one(argc, argv, things);
}
