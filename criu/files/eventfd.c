/*
 * eventfd.c - eventfd(2): a counter.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "files/kind.h"
#include "image/message.h"

static bool recognizes(const struct seen_file *seen)
{
	return !strcmp(seen->link, "anon_inode:[eventfd]");
}

static int describe(struct snapshot *snapshot unused, struct file *file, FownEntry *owner)
{
	const struct seen_file *seen = file->seen;
	EventfdFileEntry *entry = file->entry->efd = message_new(EventfdFileEntry, eventfd_file_entry);
	const char *semaphore = strstr(seen->info.rest, "eventfd-semaphore:"); /* Linux 6.5 */
	const char *count = strstr(seen->info.rest, "eventfd-count:");

	entry->id = file->id;
	entry->flags = seen->info.flags & ~O_CLOEXEC;
	entry->fown = owner;
	if (!count || sscanf(count, "eventfd-count: %" SCNx64, &entry->counter) != 1)
		return fail(EINVAL, "cannot understand the fdinfo of %s", seen->link);
	if (semaphore && strtol(strchr(semaphore, ':') + 1, NULL, 10))
		message_set(entry, semaphore, true);
	if (!semaphore)
		log_warning(
			"process %d (%s): file %d is taken for an eventfd without EFD_SEMAPHORE, which this kernel does not "
			"tell (Linux 6.5)",
			seen->task->pid, seen->task->name, seen->fd);
	if (entry->counter == UINT64_MAX) /* only the kernel can bring it there, not write(2) */
		return refuse("process %d (%s): file %d is an eventfd that has overflowed: read it first",
			      seen->task->pid, seen->task->name, seen->fd);
	return 0;
}

static int check(struct snapshot *snapshot unused, struct file *file)
{
	const EventfdFileEntry *entry = file->entry->efd;

	if (!entry || entry->counter == UINT64_MAX)
		return fail(EINVAL, "file %u in files.img is no possible eventfd", file->id);
	return 0;
}

static int open_eventfd(struct snapshot *snapshot unused, struct file *file)
{
	const EventfdFileEntry *entry = file->entry->efd;
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | (entry->semaphore ? EFD_SEMAPHORE : 0)), result = 0;

	if (fd < 0)
		return fail(errno, "cannot make an eventfd");
	if (entry->counter)
		result = write_all(fd, &entry->counter, sizeof(entry->counter));
	if (result)
		fail(-result, "cannot set an eventfd to %llu", (unsigned long long)entry->counter);
	else if (fcntl(fd, F_SETFL, entry->flags) < 0)
		result = fail(errno, "cannot set the flags of an eventfd (%#o)", entry->flags);
	if (result)
		close(fd);
	return result ?: fd;
}

static const FownEntry *owner(const struct file *file)
{
	return file->entry->efd->fown;
}

const struct file_kind file_kind_eventfd = {
	.name = "eventfd",
	.type = FD_TYPES__EVENTFD,
	.recognizes = recognizes,
	.describe = describe,
	.check = check,
	.open = open_eventfd,
	.owner = owner,
};
