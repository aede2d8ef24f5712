/*
 * grown.c - restore: files that are longer than at the dump, and --grown-files. See grown.h.
 *
 * CRIU 4.2 does not save the size of a file that is open only for writing, and accepts any.
 *
 * A log has grown if its process ran on after the dump (--leave-running), or if somebody else writes to it, too. Nobody
 * but the user can tell whether the addition may be lost, or may stay.
 *
 * A file is cut only in the last step of the restore, when no error can end the restore any more: so a restore that
 * fails has changed nothing. Everything that could prevent it is checked before there are processes. Only files to
 * which the processes write themselves are cut, and none to which another process writes: that one would lose what it
 * has written, and go on behind a hole. The kernel tells, because it grants no read lease on a file that is open for
 * writing.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kinds/grown.h"

static int other_size(const RegFileEntry *entry, const struct stat *found)
{
	return fail(EINVAL, "%s has %lld bytes now and had %llu when the process was dumped", entry->name,
		    (long long)found->st_size, (unsigned long long)entry->size);
}

static bool is_written(const RegFileEntry *entry)
{
	return !(entry->flags & O_PATH) && (entry->flags & O_ACCMODE) != O_RDONLY;
}

static int cannot_cut(const RegFileEntry *entry, const char *why)
{
	fail_advice("--grown-files=keep");
	return fail(EINVAL,
		    "%s cannot be cut back to the %llu bytes that it had when the process was dumped: %s",
		    entry->name, (unsigned long long)entry->size, why);
}

static int check_lease(const RegFileEntry *entry, int fd)
{
	if (fcntl(fd, F_SETLEASE, F_RDLCK) == 0) {
		fcntl(fd, F_SETLEASE, F_UNLCK);
		return 0;
	}
	if (errno == EAGAIN)
		return cannot_cut(entry, "another process has it open for writing");
	return cannot_cut(entry, "the kernel does not tell criu whether another process writes to it");
}

static int check_cut(const RegFileEntry *entry)
{
	autoclose int fd = open(entry->name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct statx found;

	if (fd < 0)
		return fail(errno, "cannot open %s", entry->name);
	if (!statx(fd, "", AT_EMPTY_PATH, 0, &found) &&
	    found.stx_attributes & (STATX_ATTR_APPEND | STATX_ATTR_IMMUTABLE))
		return cannot_cut(entry, "an attribute of the file forbids it (lsattr)");
	return check_lease(entry, fd);
}

int grown_check(struct grown *grown, enum grown_files policy, struct file *file, const struct stat *found)
{
	const RegFileEntry *entry = file->entry->reg;
	int result = 0;

	if (!entry->has_size && policy == GROWN_CUT && is_written(entry))
		log_warning("%s is not cut: the images do not tell how long it was", entry->name);
	if (!entry->has_size || entry->size == (uint64_t)found->st_size)
		return 0;
	/* A program or a library that is longer is another one. */
	if (entry->size > (uint64_t)found->st_size || file->is_only_mapped || !file_is_open(file))
		return other_size(entry, found);
	if (policy == GROWN_REFUSED) {
		fail_advice("--grown-files=keep to keep what was added, --grown-files=cut to cut it off");
		return other_size(entry, found);
	}
	if (policy == GROWN_CUT && is_written(entry)) {
		result = check_cut(entry);
		if (!result) {
			*(struct file **)grow(&grown->items, &grown->count) = file;
			file->is_changed_last = true;
		}
	}
	return result;
}

static void cut(const struct file *file)
{
	const RegFileEntry *entry = file->entry->reg;
	struct stat now;

	if (fstat(file->fd, &now) < 0 || (uint64_t)now.st_size <= entry->size)
		return; /* another descriptor of it has been cut */
	if (ftruncate(file->fd, entry->size) < 0)
		log_warning("%s could not be cut back to %llu bytes: %s", entry->name,
			    (unsigned long long)entry->size, strerror(errno));
	else
		log_info("%s: cut from %lld to %llu bytes", entry->name, (long long)now.st_size,
			 (unsigned long long)entry->size);
}

void grown_cut(const struct grown *grown)
{
	for (size_t i = 0; i < grown->count; i++)
		cut(grown->items[i]);
}

void grown_free(struct grown *grown)
{
	free(grown->items);
	*grown = (struct grown){ 0 };
}
