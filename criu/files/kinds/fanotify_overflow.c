/*
 * fanotify_overflow.c - tells a process that it has missed events of its fanotify group. See fanotify.h.
 *
 * The kernel queues FAN_Q_OVERFLOW when the queue is full. So it is filled with events, which are then read. Equal
 * events are merged, so each is of a directory of its own, in a file system that nobody else sees: a tmpfs in no mount
 * tree. With FAN_REPORT_DIR_FID a directory is reported as itself, where a file would be reported as the directory that
 * it is in. (All of this was seen on Linux 6.18 for each set of FAN_REPORT_* flags.)
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "files/kinds/fanotify.h"
#include "files/kinds/inotify.h"

#define MOST_JUNK    1000000UL
#define USUAL_MOST   16384 /* before Linux 5.13, which has a file for it */
#define PIDFD_RECORD 4	   /* FAN_EVENT_INFO_TYPE_PIDFD */
#define MARKED	     (FAN_OPEN | FAN_ONDIR | FAN_EVENT_ON_CHILD)
#define AT_A_TIME    16 /* events, each of which may bring two descriptors */

/* struct fanotify_event_info_pidfd */
struct pidfd_record {
	uint8_t type, padding;
	uint16_t length;
	int32_t pidfd;
};

static size_t most_events(void)
{
	autofree char *text = NULL;

	return read_text_at(AT_FDCWD, "/proc/sys/fs/fanotify/max_queued_events", &text) > 0 ?
		       strtoul(text, NULL, 10) :
		       USUAL_MOST;
}

static void close_descriptors(const struct fanotify_event_metadata *event)
{
	const char *bytes = (const char *)event;

	if (event->fd >= 0)
		close(event->fd);
	for (size_t at = event->metadata_len; at + sizeof(struct pidfd_record) <= event->event_len;) {
		struct pidfd_record record;

		memcpy(&record, bytes + at, sizeof(record));
		if (record.type == PIDFD_RECORD && record.pidfd >= 0)
			close(record.pidfd);
		if (!record.length)
			return;
		at += record.length;
	}
}

/* Reads at most `size` bytes of events. Returns their number, or -1. */
static ssize_t drop_some(int group, size_t size)
{
	char bytes[AT_A_TIME * 512] __attribute__((aligned(__alignof__(struct fanotify_event_metadata))));
	ssize_t length = read(group, bytes, min(size, sizeof(bytes)));
	ssize_t count = 0;

	for (ssize_t at = 0; at < length; count++) {
		const struct fanotify_event_metadata *event = (const void *)(bytes + at);

		close_descriptors(event);
		at += event->event_len;
	}
	return length > 0 ? count : -1;
}

static int make_event(int root, size_t number)
{
	char name[16];
	int fd;

	snprintf(name, sizeof(name), "%07zu", number);
	if (mkdirat(root, name, 0700) < 0)
		return -1;
	fd = openat(root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	close(fd);
	return 0;
}

/* The size of an event of this group, as read(2) returns it: all that are made here are equal. -1: unknown. */
static ssize_t event_size(int group, int root)
{
	char bytes[1024] __attribute__((aligned(__alignof__(struct fanotify_event_metadata))));
	const struct fanotify_event_metadata *event = (const void *)bytes;
	ssize_t length = make_event(root, 0) ? -1 : read(group, bytes, sizeof(bytes));

	if (length < (ssize_t)sizeof(*event) || event->event_len != length)
		return -1;
	close_descriptors(event);
	return length;
}

static int overflow(int group, int root)
{
	size_t most = most_events();
	ssize_t size = event_size(group, root);
	const int one = sizeof(struct fanotify_event_metadata);
	int left_over;

	if (size <= 0 || !most || most > MOST_JUNK)
		return -1;
	for (size_t i = 0; i <= most; i++)
		if (make_event(root, i + 1))
			return -1;
	for (size_t left = most; left;) {
		ssize_t count = drop_some(group, min(left, (size_t)AT_A_TIME) * size);

		if (count <= 0 || (size_t)count > left)
			return -1;
		left -= count;
	}
	/* One: FAN_Q_OVERFLOW. Since Linux 7 FIONREAD counts what an event has beside this: of this one, a pidfd. */
	return ioctl(group, FIONREAD, &left_over) == 0 && left_over >= one && left_over < 2 * one ? 0 : -1;
}

int fanotify_put_overflow(int group)
{
	autoclose int root = make_private_tmpfs();
	char path[32];
	int result;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", root);
	if (root < 0)
		return fail(-root, "cannot create a tmpfs");
	if (fanotify_mark(group, FAN_MARK_ADD, MARKED, AT_FDCWD, path) < 0)
		return fail(errno, "cannot mark a directory of a tmpfs");
	result = overflow(group, root);
	if (fanotify_mark(group, FAN_MARK_FLUSH, 0, AT_FDCWD, NULL) < 0 || result)
		return fail(EINVAL, "cannot tell a process that it has missed events of its fanotify");
	return 0;
}
