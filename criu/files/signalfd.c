/*
 * signalfd.c - signalfd(2): signals to be read. Which ones wait is known by the task that reads, not by the file.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "files/kind.h"
#include "image/message.h"

static bool recognizes(const struct seen_file *seen)
{
	return !strcmp(seen->link, "anon_inode:[signalfd]");
}

static int describe(struct snapshot *snapshot unused, struct file *file, FownEntry *owner)
{
	const struct seen_file *seen = file->seen;
	SignalfdEntry *entry = file->entry->sgfd = message_new(SignalfdEntry, signalfd_entry);
	const char *mask = strstr(seen->info.rest, "sigmask:");

	entry->id = file->id;
	entry->flags = seen->info.flags & ~O_CLOEXEC;
	entry->fown = owner;
	if (!mask || sscanf(mask, "sigmask: %" SCNx64, &entry->sigmask) != 1)
		return fail(EINVAL, "cannot understand the fdinfo of %s", seen->link);
	return 0;
}

static int check(struct snapshot *snapshot unused, struct file *file)
{
	return file->entry->sgfd ?
		       0 :
		       fail(EINVAL, "file %u in files.img is a signalfd but has no description", file->id);
}

static int open_signalfd(struct snapshot *snapshot unused, struct file *file)
{
	const SignalfdEntry *entry = file->entry->sgfd;
	uint64_t mask = entry->sigmask;
	int fd = syscall(SYS_signalfd4, -1, &mask, sizeof(mask), SFD_CLOEXEC);

	if (fd < 0)
		return fail(errno, "cannot make a signalfd");
	if (fcntl(fd, F_SETFL, entry->flags) < 0) {
		close(fd);
		return fail(errno, "cannot set the flags of a signalfd (%#o)", entry->flags);
	}
	return fd;
}

static const FownEntry *owner(const struct file *file)
{
	return file->entry->sgfd->fown;
}

const struct file_kind file_kind_signalfd = {
	.name = "signalfd",
	.type = FD_TYPES__SIGNALFD,
	.recognizes = recognizes,
	.describe = describe,
	.check = check,
	.open = open_signalfd,
	.owner = owner,
};
