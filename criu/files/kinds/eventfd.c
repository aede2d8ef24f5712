/*
 * eventfd.c - eventfd(2): a counter.
 */
#include <errno.h>
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

static bool eventfd_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	return !strcmp(seen->link, "anon_inode:[eventfd]");
}

static int eventfd_fdinfo(struct snapshot *snapshot unused, struct file *file, const char *key,
			  const char *value)
{
	EventfdFileEntry *entry = file->entry->efd;

	if (!strcmp(key, "eventfd-count") && sscanf(value, "%" SCNx64, &entry->counter) != 1)
		return fail(EINVAL, "cannot understand the fdinfo of %s", file->seen->link);
	if (!strcmp(key, "eventfd-semaphore") && strtol(value, NULL, 10))
		message_set(entry, semaphore, true);
	return 0;
}

static int eventfd_describe(struct snapshot *snapshot unused, struct file *file)
{
	const struct seen_file *seen = file->seen;

	if (!fdinfo_find(seen, "eventfd-semaphore")) /* Linux 6.5 */
		log_warning(
			"process %d (%s): descriptor %d is assumed to be an eventfd without EFD_SEMAPHORE: this kernel does not "
			"report that flag (Linux 6.5 does)",
			seen->holder.here, seen->holder.name, seen->fd);
	if (file->entry->efd->counter == UINT64_MAX) /* only the kernel can set this value, not write(2) */
		return refuse(
			"process %d (%s): descriptor %d is an eventfd that has overflowed: it must be read first",
			seen->holder.here, seen->holder.name, seen->fd);
	return 0;
}

static int eventfd_check(struct snapshot *snapshot unused, struct file *file)
{
	if (file->entry->efd->counter == UINT64_MAX)
		return fail(EINVAL, "files.img: file %u is an eventfd with an invalid counter", file->id);
	return 0;
}

static int open_eventfd(struct snapshot *snapshot unused, struct file *file)
{
	const EventfdFileEntry *entry = file->entry->efd;
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | (entry->semaphore ? EFD_SEMAPHORE : 0)), result = 0;

	if (fd < 0)
		return fail(errno, "cannot create an eventfd");
	if (entry->counter)
		result = write_all(fd, &entry->counter,
				   sizeof(entry->counter)); /* eventfd() takes only 32 bits */
	if (!result)
		return fd;
	close(fd);
	return fail(-result, "cannot set an eventfd to %llu", (unsigned long long)entry->counter);
}

static const char *const fdinfo_needs[] = { "eventfd-count", NULL };

const struct file_kind file_kind_eventfd = {
	.name = "eventfd",
	.type = FD_TYPES__EVENTFD,
	.message = offsetof(FileEntry, efd),
	.recognizes = eventfd_recognizes,
	.fdinfo = eventfd_fdinfo,
	.fdinfo_needs = fdinfo_needs,
	.describe = eventfd_describe,
	.check = eventfd_check,
	.open = open_eventfd,
};
