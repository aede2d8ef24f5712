/*
 * epoll.c - epoll(7) instances, and the files that they watch.
 *
 * For the kernel, a target is an open file and the number that it was added under. That descriptor may have been closed
 * since, or may be another file now: kcmp(2) tells which file the target is. Restore adds the targets in the first
 * newborn that has the epoll, before descriptors are arranged. A signalfd is watched for the process that adds it.
 * While every file is still open, each can temporarily get the number it needs.
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

static bool leads_to(const struct seen_file *epoll, const struct task *task, int fd,
		     const struct kcmp_epoll_slot *target)
{
	return syscall(SYS_kcmp, task->here, epoll->holder.here, KCMP_EPOLL_TFD, fd, target) == 0;
}

/* Finds a descriptor of the target in the holder: preferably the number that it was added under. */
static int find_target(const struct task *holder, const struct seen_file *seen,
		       const struct kcmp_epoll_slot *target, EventpollTfdEntry *entry)
{
	if (task_find_descriptor(holder, target->tfd) && leads_to(seen, holder, target->tfd, target))
		return 0;
	for (size_t i = 0; i < holder->table->count; i++) {
		const struct descriptor *descriptor = &holder->table->items[i];

		if (descriptor->file->seen->stat.st_ino != entry->inode ||
		    !leads_to(seen, holder, descriptor->fd, target))
			continue;
		message_set(entry, number, entry->tfd);
		entry->tfd = descriptor->fd;
		return 0;
	}
	return refuse(
		"process %d (%s): descriptor %d (epoll) watches a file that was added as descriptor %d, which the process has closed since",
		seen->holder.here, seen->holder.name, seen->fd, target->tfd);
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
	const EventpollFileEntry *entry = file->entry->epfd;
	struct index counts = { 0 }; /* by number: how many files were added under it so far */
	int result = 0;

	if (!file->holder)
		return refuse_file(file->seen,
				   "an epoll that no process of the tree has open is not supported yet");
	for (size_t i = 0; i < entry->n_tfd && !result; i++) {
		uint32_t number = entry->tfd[i]->tfd;
		uintptr_t count = (uintptr_t)index_find(&counts, number);
		const struct kcmp_epoll_slot slot = { .efd = file->seen->fd, .tfd = number, .toff = count };

		index_set(&counts, number, (void *)(count + 1));
		result = unless_refused(find_target(file->holder, file->seen, &slot, entry->tfd[i]));
	}
	index_free(&counts);
	return result;
}

/* ---- restore ---- */

static int epoll_check(struct snapshot *snapshot unused, struct file *file)
{
	const EventpollFileEntry *entry = file->entry->epfd;
	const struct task *holder = file->holder;

	for (size_t i = 0; holder && i < entry->n_tfd; i++)
		if (entry->tfd[i]->tfd >= INT32_MAX || entry->tfd[i]->number >= INT32_MAX ||
		    !task_find_descriptor(holder, entry->tfd[i]->tfd))
			return fail(
				EINVAL,
				"files.img: file %u (epoll) watches descriptor %u of process %d, which does not exist",
				file->id, entry->tfd[i]->tfd, holder->pid);
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

static int add_targets(const struct file *file, const struct task *task)
{
	const EventpollFileEntry *entry = file->entry->epfd;
	int result = 0;

	/* Disabled targets first: their epoll_wait() must not find events of other targets. */
	for (int pass = 0; pass < 2; pass++)
		for (size_t i = 0; !result && i < entry->n_tfd; i++) {
			const struct file *target = task_find_descriptor(task, entry->tfd[i]->tfd)->file;

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
static int epoll_settle(struct snapshot *snapshot unused, struct task *task)
{
	int result = 0;

	for (size_t i = 0; !result && i < task->table->count; i++) {
		const struct descriptor *descriptor = &task->table->items[i];
		const struct file *file = descriptor->file;

		if (file->kind == &file_kind_epoll && file->holder == task &&
		    file->holder_fd == descriptor->fd)
			result = add_targets(file, task);
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
	.check = epoll_check,
	.open = open_epoll,
	.settle = epoll_settle,
};
