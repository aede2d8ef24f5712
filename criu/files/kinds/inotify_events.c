/*
 * inotify_events.c - the queue of an inotify: read by a dump, filled again by a restore. See inotify.h.
 *
 * No system call puts an event into a queue: it must happen. So the events are made to happen again, to files of a
 * file system that nobody else sees (a tmpfs in no mount tree). For each watch number in the events there is a file or
 * a directory, watched under this number, and each event gets a mask of its own, so that only this event is noted.
 *
 * In the end these watches must go, and for each watch that is removed, the kernel queues IN_IGNORED. It drops an event
 * without a trace only if the queue is full, and says so in the queue already. Hence (`most` is max_queued_events):
 *
 *	junk × most, OVERFLOW                       any events, until the queue is full
 *	junk × (most - n - 1), OVERFLOW             the first n + 1 are read
 *	junk × (most - n - 1), OVERFLOW, n events   full again: the watches are removed, without a trace
 *	n events                                    the rest of the junk is read
 *
 * To have only IN_Q_OVERFLOW in the queue, all junk is read and nothing else. (All of this was seen on Linux 6.18;
 * fs/notify/notification.c has had these rules since 3.17.) The kernel chooses new cookies; two events of one rename
 * have the same one again.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kinds/inotify.h"
#include "kernel_constants.h"

#define MOST_BYTES (64UL << 20) /* of an image */
#define MOST_JUNK  1000000UL	/* max_queued_events is 16384, unless somebody has changed it */
#define SIZE	   sizeof(struct inotify_event)
#define NO_EVENT   IN_UNMOUNT

/* ---- events as read(2) returns them ---- */

/* NULL: there are no more. */
static const struct inotify_event *event_at(const struct events *events, size_t at)
{
	return at < events->size ? (const void *)(events->bytes + at) : NULL;
}

static const struct inotify_event *event_after(const struct events *events, const struct inotify_event *event)
{
	return event_at(events, (const char *)event - events->bytes + SIZE + event->len);
}

#define for_each_event(event, events)                                        \
	for (const struct inotify_event *event = event_at(events, 0); event; \
	     event = event_after(events, event))

const char *events_why_invalid(const struct events *events)
{
	if (events->size > MOST_BYTES)
		return "it has too many events";
	for (size_t at = 0; at < events->size;) {
		struct inotify_event event;
		size_t left = events->size - at;

		if (left < SIZE)
			return "an event is incomplete";
		memcpy(&event, events->bytes + at, SIZE);
		if (event.len > left - SIZE || event.len % SIZE)
			return "the name of an event is incomplete";
		if (event.len) {
			const char *name = events->bytes + at + SIZE;
			size_t length = strnlen(name, event.len);

			if (!length || length == event.len || length > NAME_MAX || strchr(name, '/') ||
			    !strcmp(name, ".") || !strcmp(name, ".."))
				return "the name of an event is invalid";
		}
		at += SIZE + event.len;
	}
	return NULL;
}

int events_take(int inotify, size_t size, struct events *events)
{
	events->bytes = allocate(size);
	while (events->size < size) {
		ssize_t length = read(inotify, events->bytes + events->size, size - events->size);

		if (length <= 0)
			return length < 0 ? -errno : -ENODATA;
		events->size += length;
	}
	return 0;
}

/* ---- a stage where events happen again ---- */

/* The file or directory that stands for one watch number. */
struct actor {
	int number;
	bool is_directory;
	char name[24];
};

struct stage {
	int inotify;
	int root; /* the directory of the tmpfs */
	struct actor *actors;
	size_t actor_count;
	char path[64]; /* of an actor, for the inotify */
};

int make_private_tmpfs(void)
{
	autoclose int context = syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
	int mount;

	if (context < 0 || syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -errno;
	mount = syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0);
	return mount < 0 ? -errno : mount;
}

static struct actor *find_actor(const struct stage *stage, int number)
{
	for (size_t i = 0; i < stage->actor_count; i++)
		if (stage->actors[i].number == number)
			return &stage->actors[i];
	return NULL;
}

static int watch_for(struct stage *stage, const struct actor *actor, uint32_t mask)
{
	snprintf(stage->path, sizeof(stage->path), "/proc/self/fd/%d/%s", stage->root, actor->name);
	return inotify_add_watch(stage->inotify, stage->path, mask) == actor->number ? 0 : -1;
}

static int make_actor(struct stage *stage, struct actor *actor)
{
	if (actor->is_directory ? mkdirat(stage->root, actor->name, 0700) :
				  mknodat(stage->root, actor->name, S_IFREG | 0600, 0))
		return -1;
	if (ioctl(stage->inotify, INOTIFY_IOC_SETNEXTWD, actor->number) < 0)
		return -1;
	return watch_for(stage, actor, NO_EVENT);
}

static int make_actors(struct stage *stage, const struct events *events)
{
	for_each_event(event, events)
	{
		struct actor *actor = find_actor(stage, event->wd);

		if (event->wd <= 0)
			return -1;
		if (!actor) {
			actor = grow(&stage->actors, &stage->actor_count);
			actor->number = event->wd;
			snprintf(actor->name, sizeof(actor->name), "%d", event->wd);
		}
		actor->is_directory |= event->len || event->mask & IN_ISDIR;
	}
	for (size_t i = 0; i < stage->actor_count; i++)
		if (make_actor(stage, &stage->actors[i]))
			return -1;
	return 0;
}

/* Two events of one rename. */
static bool are_of_one_rename(const struct inotify_event *from, const struct inotify_event *to)
{
	return to && from->mask & IN_MOVED_FROM && to->mask & IN_MOVED_TO && from->cookie &&
	       from->cookie == to->cookie && from->len && to->len;
}

static int make_object(const struct stage *stage, const char *path, bool is_directory)
{
	return is_directory ? mkdirat(stage->root, path, 0700) :
			      mknodat(stage->root, path, S_IFREG | 0600, 0);
}

static int remove_object(const struct stage *stage, const char *path, bool is_directory)
{
	return unlinkat(stage->root, path, is_directory ? AT_REMOVEDIR : 0);
}

/* Between begin() and end(), `actor` notes only `mask`. */
static int use_object(struct stage *stage, const struct actor *actor, const char *path, uint32_t mask,
		      bool is_directory)
{
	int access = is_directory || mask & IN_CLOSE_NOWRITE ? O_RDONLY : O_RDWR, result = 0;
	bool is_opening = mask & IN_OPEN, is_closing = mask & IN_CLOSE;
	char bytes[4096];
	int fd;

	if (is_opening)
		result = watch_for(stage, actor, IN_OPEN);
	fd = openat(stage->root, path, access | O_CLOEXEC);
	if (fd < 0 || result)
		return -1;
	if (!is_directory && mask & IN_ACCESS && pwrite(fd, "x", 1, 0) != 1)
		result = -1;
	if (!is_opening)
		result = watch_for(stage, actor, mask & IN_ALL_EVENTS) ?: result;
	if (mask & IN_MODIFY && pwrite(fd, "x", 1, 0) != 1)
		result = -1;
	if (mask & IN_ACCESS &&
	    (is_directory ? syscall(SYS_getdents64, fd, bytes, sizeof(bytes)) : pread(fd, bytes, 1, 0)) <= 0)
		result = -1;
	if (mask & IN_ATTRIB && fchmod(fd, 0711))
		result = -1;
	if (!is_closing)
		result = watch_for(stage, actor, NO_EVENT) ?: result;
	close(fd);
	return result;
}

static int move_in(struct stage *stage, const struct inotify_event *from, const char *old_path,
		   const struct inotify_event *to, const char *new_path)
{
	const struct actor *source = from ? find_actor(stage, from->wd) : NULL;
	const struct actor *target = to ? find_actor(stage, to->wd) : NULL;
	bool is_directory = (from ?: to)->mask & IN_ISDIR;
	int result = make_object(stage, old_path, is_directory);

	if (source && source == target)
		result = watch_for(stage, source, IN_MOVE) ?: result;
	else
		result = (source ? watch_for(stage, source, IN_MOVED_FROM) : 0)	      ?:
				 (target ? watch_for(stage, target, IN_MOVED_TO) : 0) ?:
											result;
	result = result ?: renameat(stage->root, old_path, stage->root, new_path);
	if (source)
		result = watch_for(stage, source, NO_EVENT) ?: result;
	if (target)
		result = watch_for(stage, target, NO_EVENT) ?: result;
	return result ?: remove_object(stage, new_path, is_directory);
}

static int act_on_name(struct stage *stage, const struct inotify_event *event, const struct actor *actor,
		       const char *path)
{
	uint32_t mask = event->mask & IN_ALL_EVENTS;
	bool is_directory = event->mask & IN_ISDIR;
	int result = 0;

	if (mask == IN_MOVED_FROM)
		return move_in(stage, event, path, NULL, "aside");
	if (mask == IN_MOVED_TO)
		return move_in(stage, NULL, "aside", event, path);
	if (mask == IN_CREATE)
		result = watch_for(stage, actor, mask);
	result = result ?: make_object(stage, path, is_directory);
	if (mask == IN_CREATE)
		result = watch_for(stage, actor, NO_EVENT) ?: result;
	else if (mask != IN_DELETE)
		result = result ?: use_object(stage, actor, path, mask, is_directory);
	result = result ?: watch_for(stage, actor, mask == IN_DELETE ? mask : NO_EVENT);
	result = result ?: remove_object(stage, path, is_directory);
	return result ?: watch_for(stage, actor, NO_EVENT);
}

/* The watch ends with the file, so IN_IGNORED follows by itself. */
static int delete_actor(struct stage *stage, const struct actor *actor, const struct inotify_event *next)
{
	if (!next || next->wd != actor->number || !(next->mask & IN_IGNORED) ||
	    watch_for(stage, actor, IN_DELETE_SELF))
		return -1;
	return remove_object(stage, actor->name, actor->is_directory) ?: 1;
}

static int act_on_self(struct stage *stage, const struct inotify_event *event, const struct actor *actor,
		       const struct inotify_event *next)
{
	uint32_t mask = event->mask & (IN_ALL_EVENTS | IN_IGNORED);
	char there[32];

	if (mask == IN_IGNORED)
		return inotify_rm_watch(stage->inotify, actor->number);
	if (mask == IN_DELETE_SELF)
		return delete_actor(stage, actor, next);
	if (mask != IN_MOVE_SELF)
		return use_object(stage, actor, actor->name, mask, actor->is_directory) ?:
			       watch_for(stage, actor, NO_EVENT);
	snprintf(there, sizeof(there), "%s-moved", actor->name);
	if (watch_for(stage, actor, mask) || renameat(stage->root, actor->name, stage->root, there))
		return -1;
	/* When it moves back, that is merged with the event before. */
	return renameat(stage->root, there, stage->root, actor->name) ?: watch_for(stage, actor, NO_EVENT);
}

/* Makes the event happen. Returns how many that follow it have happened, too, or -1. */
static int act(struct stage *stage, const struct events *events, const struct inotify_event *event)
{
	const struct inotify_event *next = event_after(events, event);
	const struct actor *actor = find_actor(stage, event->wd);
	uint32_t mask = event->mask & ~IN_ISDIR;
	autofree char *path = format_text("%s/%s", actor->name, event->len ? event->name : "");

	if (mask & (mask - 1) || !(mask & (IN_ALL_EVENTS | IN_IGNORED)))
		return -1; /* one event has one bit; IN_UNMOUNT needs a mount of its own */
	if (are_of_one_rename(event, next)) {
		const struct actor *target = find_actor(stage, next->wd);
		autofree char *new_path = format_text("%s/%s", target->name, next->name);

		return move_in(stage, event, path, next, new_path) ? -1 : 1;
	}
	return event->len ? act_on_name(stage, event, actor, path) : act_on_self(stage, event, actor, next);
}

static int act_all(struct stage *stage, const struct events *events)
{
	int happened = 0;

	for_each_event(event, events)
	{
		if (happened-- > 0)
			continue;
		happened = act(stage, events, event);
		if (happened < 0)
			return -1;
	}
	return 0;
}

static int unread_bytes(int inotify)
{
	int bytes;

	return ioctl(inotify, FIONREAD, &bytes) < 0 ? -1 : bytes;
}

/* ---- the queue ---- */

static size_t most_events(void)
{
	autofree char *text = NULL;

	return read_text_at(AT_FDCWD, "/proc/sys/fs/inotify/max_queued_events", &text) > 0 ?
		       strtoul(text, NULL, 10) :
		       0;
}

/*
 * IN_OPEN and IN_CLOSE_NOWRITE in turn, because the kernel merges equal events. A file of /proc will do, which nobody
 * else watches. (A memfd or a pipe would not: since Linux 6.14 there are no events of them.)
 */
static int fill(int inotify, size_t most)
{
	static const char junk[] = "/proc/self/comm";
	int watch;

	if (ioctl(inotify, INOTIFY_IOC_SETNEXTWD, INT_MAX) < 0)
		return -1;
	watch = inotify_add_watch(inotify, junk, IN_OPEN | IN_CLOSE_NOWRITE);
	if (watch < 0)
		return -1;
	for (size_t i = 0; i <= most / 2; i++) {
		int fd = open(junk, O_RDONLY | O_CLOEXEC);

		if (fd < 0)
			return -1;
		close(fd);
	}
	/* The queue is full, so its removal is not noted. */
	return inotify_rm_watch(inotify, watch);
}

static int drop(int inotify, size_t count)
{
	char bytes[4096 * SIZE];

	for (size_t left = count * SIZE; left;) {
		ssize_t length = read(inotify, bytes, min(left, sizeof(bytes)));

		if (length <= 0)
			return -1;
		left -= length;
	}
	return 0;
}

static int remove_watches(const struct stage *stage)
{
	/* That of a file that was deleted is gone. */
	for (size_t i = 0; i < stage->actor_count; i++)
		if (inotify_rm_watch(stage->inotify, stage->actors[i].number) < 0 && errno != EINVAL)
			return -1;
	return 0;
}

/* The queue is empty before and has only `events` afterwards. -1: it has anything. */
static int replay(struct stage *stage, const struct events *events, size_t count, size_t most)
{
	int inotify = stage->inotify;

	if (count + 1 >= most || fill(inotify, most) || drop(inotify, count + 1) ||
	    make_actors(stage, events) || act_all(stage, events) ||
	    unread_bytes(inotify) != (int)((most - count) * SIZE + events->size) || remove_watches(stage) ||
	    unread_bytes(inotify) != (int)((most - count) * SIZE + events->size))
		return -1;
	return drop(inotify, most - count);
}

static int put_again(int inotify, const struct events *events, size_t most)
{
	struct stage stage = { .inotify = inotify, .root = make_private_tmpfs() };
	size_t count = 0;
	int result;

	for_each_event(event, events) count++;
	result = stage.root < 0 ? -1 : replay(&stage, events, count, most);
	if (result)
		ignore(remove_watches(&stage));
	if (stage.root >= 0)
		close(stage.root);
	free(stage.actors);
	return result;
}

static int put_overflow(int inotify, size_t most)
{
	int bytes = unread_bytes(inotify);
	struct events rest = { 0 };
	int result = bytes > 0 ? events_take(inotify, bytes, &rest) : 0;

	/* That was what an attempt to put the events there has left. */
	free(rest.bytes);
	if (bytes < 0 || result)
		return fail(errno, "cannot read from a new inotify");
	if (!most || most > MOST_JUNK || fill(inotify, most) || drop(inotify, most) ||
	    unread_bytes(inotify) != (int)SIZE)
		return fail(EINVAL, "cannot tell a process that it has missed events of its inotify");
	return 0;
}

int events_put(int inotify, const struct events *events)
{
	size_t most = most_events();

	if (events && !events->size)
		return 0;
	if (events && most <= MOST_JUNK && !put_again(inotify, events, most))
		return 0;
	if (events)
		log_warning(
			"%zu bytes of events of an inotify cannot be put back; the process is told that it has "
			"missed some (IN_Q_OVERFLOW)",
			events->size);
	return put_overflow(inotify, most);
}
