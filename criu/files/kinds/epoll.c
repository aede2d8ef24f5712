/*
 * epoll.c - epoll(7) instances, and the files that they watch.
 *
 * For the kernel, a target is an open file and the number that it was added under. That descriptor may have been closed
 * since, or may be another file now, and perhaps only another process has the target: kcmp(2) tells which file it is.
 * Restore adds the targets in the first newborn that has the epoll, before descriptors are arranged. A signalfd is
 * watched for the process that adds it. While every file is still open, each can temporarily get the number it needs.
 *
 * With EPOLLET, an event that was reported already is reported once more: nothing tells whether it was. A program must
 * expect such an event, but not that one is missing.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/kind.h"
#include "files/kinds/terminal.h"
#include "files/words.h"
#include "image/message.h"

/* The events that remain of a target with EPOLLONESHOT after it has fired: it is disabled until it is armed again. */
#define HOW_TO_WATCH (EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE)

static bool epoll_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	return !strcmp(seen->link, "anon_inode:[eventpoll]");
}

/* ---- dump ---- */

/*
 * Preferably the number that the target was added under tells which file it is, or another descriptor of the holder.
 * But only another process may have it.
 */
static int find_target(const struct snapshot *snapshot, const struct file *epoll,
		       const struct kcmp_epoll_slot *slot, EventpollTfdEntry *entry)
{
	const struct seen_file *seen = epoll->seen;
	const struct descriptor *descriptor = task_find_descriptor(epoll->holder, slot->tfd);
	struct file *target = descriptor ? descriptor->file : NULL;
	int result = 0, number;

	if (!target || !files_is_target(seen, slot, epoll->holder->here, descriptor->fd))
		result = files_find_target(snapshot, seen, slot,
					   makedev(entry->dev >> 20, entry->dev & 0xfffff), entry->inode,
					   &target);
	if (result)
		return result;
	if (!target)
		return refuse(
			"process %d (%s): descriptor %d (epoll) watches a file that was added as descriptor %d, which the process has closed since",
			seen->holder.here, seen->holder.name, seen->fd, slot->tfd);
	if (file_lateness(snapshot, target) == FILE_NEEDS_THREAD)
		return refuse(
			"process %d (%s): descriptor %d (epoll) watches descriptor %d, which is about a thread: that is not supported yet",
			seen->holder.here, seen->holder.name, seen->fd, slot->tfd);
	if (descriptor && descriptor->file == target)
		return 0;
	message_set(entry, number, slot->tfd);
	number = task_number_of(epoll->holder, target);
	if (number >= 0)
		entry->tfd = (uint32_t)number;
	else
		message_set(entry, file, target->id);
	return 0;
}

/* "tfd:        3 events: c0000019 data:  123456789abcdef  pos:0 ino:110946 sdev:f" */
static int epoll_fdinfo(struct snapshot *snapshot unused, struct file *file, const char *key,
			const char *value)
{
	EventpollFileEntry *entry = file->entry->epfd;
	EventpollTfdEntry *target;

	if (strcmp(key, "tfd"))
		return 0;
	target = *grow(&entry->tfd, &entry->n_tfd) = message_new(EventpollTfdEntry, eventpoll_tfd_entry);
	target->has_dev = target->has_inode = target->has_pos = true;
	if (sscanf(value, "%u events: %x data: %" SCNx64 " pos: %" SCNu64 " ino: %" SCNx64 " sdev: %x",
		   &target->tfd, &target->events, &target->data, &target->pos, &target->inode,
		   &target->dev) != 6)
		return fail(EINVAL, "cannot understand the fdinfo of an epoll: %s", value);
	return 0;
}

static int epoll_describe(struct snapshot *snapshot unused, struct file *file)
{
	return file->holder ?
		       0 :
		       refuse_file(file->seen,
				   "an epoll that no process of the tree has open is not supported yet");
}

static int find_targets(const struct snapshot *snapshot, const struct file *file)
{
	const EventpollFileEntry *entry = file->entry->epfd;
	struct index counts = { 0 }; /* by number: how many files were added under it so far */
	int result = 0;

	for (size_t i = 0; file->holder && i < entry->n_tfd && !result; i++) {
		uint32_t number = entry->tfd[i]->tfd;
		uintptr_t count = (uintptr_t)index_find(&counts, number);
		const struct kcmp_epoll_slot slot = { .efd = file->seen->fd, .tfd = number, .toff = count };

		index_set(&counts, number, (void *)(count + 1));
		result = unless_refused(find_target(snapshot, file, &slot, entry->tfd[i]));
	}
	index_free(&counts);
	return result;
}

/* Now all files are known, also those that are only in flight. */
static int epoll_judge(struct snapshot *snapshot)
{
	const struct file_list *list = files_of_kind(snapshot, &file_kind_epoll);
	int result = 0;

	for (size_t i = 0; !result && i < list->count; i++)
		result = find_targets(snapshot, list->items[i]);
	return result;
}

/* ---- restore ---- */

/* NULL: there is none. */
static struct file *target_of(const struct snapshot *snapshot, const struct task *holder,
			      const EventpollTfdEntry *entry)
{
	const struct descriptor *descriptor;

	if (entry->has_file)
		return snapshot_find_file(snapshot, entry->file);
	descriptor = task_find_descriptor(holder, entry->tfd);
	return descriptor ? descriptor->file : NULL;
}

static int epoll_check(struct snapshot *snapshot, struct file *file)
{
	const EventpollFileEntry *entry = file->entry->epfd;

	for (size_t i = 0; file->holder && i < entry->n_tfd; i++) {
		const EventpollTfdEntry *watched = entry->tfd[i];
		const struct file *target;

		if (watched->tfd >= INT32_MAX || watched->number >= INT32_MAX)
			return fail(EINVAL, "files.img: file %u (epoll) watches an invalid descriptor",
				    file->id);
		target = target_of(snapshot, file->holder, watched);
		if (!target || !target->kind || target->is_only_path || target->is_only_mapped)
			return fail(
				EINVAL,
				"files.img: file %u (epoll) watches %s %u of process %d, which does not exist",
				file->id, watched->has_file ? "file" : "descriptor",
				watched->has_file ? watched->file : watched->tfd, file->holder->pid);
		if (file_lateness(snapshot, target) == FILE_NEEDS_THREAD)
			return fail(
				EOPNOTSUPP,
				"files.img: file %u (epoll) watches file %u, which is about a thread: that is not supported yet",
				file->id, target->id);
	}
	return 0;
}

static int open_epoll(struct snapshot *snapshot unused, struct file *file unused)
{
	int fd = epoll_create1(EPOLL_CLOEXEC);

	return fd < 0 ? fail(errno, "cannot create an epoll") : fd;
}

/*
 * Disables a target as if it had fired (EPOLLONESHOT): it is watched for any event, so that it fires here and not in
 * the task. If it has no event now, it stays armed for the events that cannot be masked (EPOLLERR, EPOLLHUP).
 */
static int put_to_sleep(int epoll, int number, struct epoll_event *event)
{
	struct epoll_event awake = *event, told;

	awake.events |= EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP;
	if (epoll_ctl(epoll, EPOLL_CTL_MOD, number, &awake) < 0)
		return -1;
	if (epoll_wait(epoll, &told, 1, 0) != 0)
		return 0;
	return epoll_ctl(epoll, EPOLL_CTL_MOD, number, event);
}

static int add_under(int epoll, int number, const EventpollTfdEntry *entry)
{
	struct epoll_event event = { .events = entry->events, .data.u64 = entry->data };

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, number, &event) < 0)
		return -1;
	return entry->events & ~HOW_TO_WATCH ? 0 : put_to_sleep(epoll, number, &event);
}

/* A copy of the descriptor under any number but `number`; -1 and errno. */
static int copy_aside(int fd, int number)
{
	autoclose int there = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	return there == number ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : steal_fd(&there);
}

/* Adds the target under its original number, which it gets temporarily. */
static int add(const struct file *file, const struct file *target, const EventpollTfdEntry *entry)
{
	int number = entry->has_number ? entry->number : entry->tfd, result;
	autoclose int epoll = copy_aside(file->fd, number), watched = copy_aside(target->fd, number);
	autoclose int in_the_way = copy_aside(number, number);

	if (epoll < 0 || watched < 0 || dup3(watched, number, O_CLOEXEC) < 0)
		return fail(errno, "cannot move a file to the temporary descriptor %d", number);
	result = add_under(epoll, number, entry);
	if (result)
		result = fail(errno, "cannot watch descriptor %d (%s)", number, target->kind->name);
	if (in_the_way < 0)
		close(number);
	else if (dup3(in_the_way, number, O_CLOEXEC) < 0)
		return fail(errno, "cannot restore descriptor %d", number);
	return result;
}

static int add_targets(const struct snapshot *snapshot, const struct file *file, const struct task *task)
{
	const EventpollFileEntry *entry = file->entry->epfd;
	int result = 0;

	/* Disabled targets first: their epoll_wait() must not find events of other targets. */
	for (int pass = 0; pass < 2; pass++)
		for (size_t i = 0; !result && i < entry->n_tfd; i++) {
			const struct file *target = target_of(snapshot, task, entry->tfd[i]);

			/*
			 * /dev/null cannot be watched. Where it replaces a terminal, the target is left out, and sends
			 * no events.
			 */
			if (!(entry->tfd[i]->events & ~HOW_TO_WATCH) == !pass &&
			    !terminal_is_replaced(target))
				result = add(file, target, entry->tfd[i]);
		}
	return result;
}

/* Sets up each epoll once, in the first process that has it. */
static int epoll_settle(struct snapshot *snapshot, struct task *task)
{
	int result = 0;

	for (size_t i = 0; !result && i < task->table->count; i++) {
		const struct descriptor *descriptor = &task->table->items[i];
		const struct file *file = descriptor->file;

		if (file->kind == &file_kind_epoll && file->holder == task &&
		    file->holder_fd == descriptor->fd)
			result = add_targets(snapshot, file, task);
		if (result)
			fail_in(result, "file %u (epoll)", file->id);
	}
	return result;
}

const struct file_kind file_kind_epoll = {
	.name = "epoll",
	.type = FD_TYPES__EVENTPOLL,
	.message = offsetof(FileEntry, epfd),
	.recognizes = epoll_recognizes,
	.fdinfo = epoll_fdinfo,
	.describe = epoll_describe,
	.judge = epoll_judge,
	.check = epoll_check,
	.open = open_epoll,
	.settle = epoll_settle,
};
