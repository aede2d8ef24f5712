/*
 * memfd.c - memfd_create(2). Descriptors and mappings refer to its memory, several to one memory (memory/memfd.h).
 *
 * Each open file description is opened through /proc/self/fd, which gives it its own flags and position. The exception
 * is the one that memfd_create() returned, which does not count as a writer. While it is open, the memory can still be
 * executed, as fexecve(3) does with programs in memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/kind.h"
#include "image/message.h"
#include "memory/memfd.h"

static bool memfd_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	return S_ISREG(seen->stat.st_mode) && !seen->stat.st_nlink && memfd_is_link(seen->link);
}

static int memfd_file_describe(struct snapshot *snapshot, struct file *file)
{
	const struct seen_file *seen = file->seen;
	MemfdFileEntry *entry = file->entry->memfd;
	struct shared_memory *object;
	int result = shared_memory_look(snapshot, seen->holder.proc, seen->place, seen->stat.st_dev,
					seen->stat.st_ino, &object);

	entry->pos = seen->info.position;
	if (result)
		return result;
	result = memfd_describe(snapshot, object, seen->link);
	if (result > 0)
		return refuse("process %d (%s): %s: deleted files are not supported yet", seen->holder.here,
			      seen->holder.name, seen->link);
	entry->inode_id = result ? 0 : object->memfd->inode_id;
	return result;
}

/* ---- restore ---- */

static int memfd_check(struct snapshot *snapshot, struct file *file)
{
	const MemfdFileEntry *entry = file->entry->memfd;

	if (entry->pos > INT64_MAX)
		return fail(EINVAL, "files.img: file %u is a memfd with an invalid position", file->id);
	if (!memfd_find(snapshot, entry->inode_id))
		return fail(EINVAL, "files.img: file %u refers to memory %u, which is missing in memfd.img",
			    file->id, entry->inode_id);
	return 0;
}

/* For each memory, finds the first file that can be the one that memfd_create() returned. */
static void find_originals(struct snapshot *snapshot)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_memfd);

	for (size_t i = 0; i < files->count; i++) {
		const struct file *file = files->items[i];
		const MemfdFileEntry *entry = file->entry->memfd;
		struct shared_memory *object = memfd_find(snapshot, entry->inode_id);

		if (object && !object->is_anonymous && !object->original && file->holder &&
		    !(entry->flags & O_PATH) && (entry->flags & O_ACCMODE) == O_RDWR)
			object->original = file->id;
	}
}

static int memfd_file_load(struct snapshot *snapshot)
{
	int result = memfd_load(snapshot);

	if (!result)
		find_originals(snapshot);
	return result;
}

static int reopen(const struct file *file, const struct shared_memory *object)
{
	const MemfdFileEntry *entry = file->entry->memfd;
	int flags = entry->flags & ~(O_CREAT | O_EXCL | O_TRUNC);
	char path[32];
	int fd;

	/* It is only mapped. A mapping that could become writable would prevent sealing the memory. */
	if (!file_is_open(file))
		flags = file->needs_writable_mapping && !(object->memfd->seals & F_SEAL_WRITE) ? O_RDWR :
												 O_RDONLY;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", object->fd);
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? fail(errno, "cannot open memfd %s with its original flags (%#o)", object->memfd->name,
			     entry->flags) :
			fd;
}

static int adopt(const struct shared_memory *object)
{
	int fd = fcntl(object->fd, F_DUPFD_CLOEXEC, 0);

	return fd < 0 ? fail(errno, "no free descriptor") : fd;
}

static int open_memfd(struct snapshot *snapshot, struct file *file)
{
	const MemfdFileEntry *entry = file->entry->memfd;
	const struct shared_memory *object = memfd_find(snapshot, entry->inode_id);
	int fd = object->original == file->id ? adopt(object) : reopen(file, object);

	if (fd >= 0 && entry->pos && !(entry->flags & O_PATH) && lseek(fd, entry->pos, SEEK_SET) < 0) {
		close(fd);
		return fail(errno, "cannot set the position of memfd %s to %llu", object->memfd->name,
			    (unsigned long long)entry->pos);
	}
	return fd;
}

const struct file_kind file_kind_memfd = {
	.name = "memfd",
	.type = FD_TYPES__MEMFD,
	.message = offsetof(FileEntry, memfd),
	.recognizes = memfd_recognizes,
	.describe = memfd_file_describe,
	.save = memfd_save,
	.load = memfd_file_load,
	.check = memfd_check,
	.open = open_memfd,
};
