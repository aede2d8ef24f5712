/*
 * signalfd.c - signalfd(2). The pending signals belong to the task that reads, not to the file.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "files/kind.h"

static bool signalfd_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	return !strcmp(seen->link, "anon_inode:[signalfd]");
}

static int signalfd_fdinfo(struct snapshot *snapshot unused, struct file *file, const char *key,
			   const char *value)
{
	if (!strcmp(key, "sigmask") && sscanf(value, "%" SCNx64, &file->entry->sgfd->sigmask) != 1)
		return fail(EINVAL, "cannot understand the fdinfo of %s", file->seen->link);
	return 0;
}

static int signalfd_describe(struct snapshot *snapshot unused, struct file *file unused)
{
	return 0; /* fdinfo has all of it */
}

static int signalfd_check(struct snapshot *snapshot unused, struct file *file unused)
{
	return 0; /* every mask is valid */
}

static int open_signalfd(struct snapshot *snapshot unused, struct file *file)
{
	uint64_t mask = file->entry->sgfd->sigmask;
	int fd = syscall(SYS_signalfd4, -1, &mask, sizeof(mask), SFD_CLOEXEC);

	return fd < 0 ? fail(errno, "cannot create a signalfd") : fd;
}

static const char *const fdinfo_needs[] = { "sigmask", NULL };

const struct file_kind file_kind_signalfd = {
	.name = "signalfd",
	.type = FD_TYPES__SIGNALFD,
	.message = offsetof(FileEntry, sgfd),
	.recognizes = signalfd_recognizes,
	.fdinfo = signalfd_fdinfo,
	.fdinfo_needs = fdinfo_needs,
	.describe = signalfd_describe,
	.check = signalfd_check,
	.open = open_signalfd,
};
