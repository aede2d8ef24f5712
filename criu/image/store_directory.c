/*
 * store_directory.c - images as files of a directory.
 *
 * Every file is opened beneath the directory's own descriptor, and only regular files are opened: a symbolic link is
 * refused, and a pipe cannot block criu. Images hold the memory of other users, so a file is always a new one, created
 * by criu with mode 0600: an existing file may belong to another user or be readable by all.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include "base/memory.h"
#include "image/store.h"

static int open_regular(struct image_store *store, const char *name, int access)
{
	autoclose int fd = openat(store_place(store), name, access | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat status;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &status) < 0)
		return -errno;
	if (S_ISDIR(status.st_mode))
		return -EISDIR;
	if (!S_ISREG(status.st_mode))
		return -ENXIO;
	return steal_fd(&fd);
}

static int directory_open_read(struct image_store *store, const char *name)
{
	return open_regular(store, name, O_RDONLY);
}

static int open_change(struct image_store *store, const char *name)
{
	return open_regular(store, name, O_RDWR);
}

int list_directory(int at, void (*each)(void *context, const char *name), void *context)
{
	int own = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), result;
	DIR *directory = own < 0 ? NULL : fdopendir(own);
	const struct dirent *entry;

	if (!directory) {
		result = -errno;
		if (own >= 0)
			close(own);
		return result;
	}
	while (errno = 0, entry = readdir(directory))
		each(context, entry->d_name);
	result = -errno;
	closedir(directory);
	return result;
}

static int directory_list_names(struct image_store *store, void (*each)(void *context, const char *name),
				void *context)
{
	return list_directory(store_place(store), each, context);
}

static int directory_open_write(struct image_store *store, const char *name)
{
	/* Read and write, because deduplication and checksums read back what was written. */
	int flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
	int fd = openat(store_place(store), name, flags, 0600);

	if (fd < 0 && errno == EEXIST) {
		if (unlinkat(store_place(store), name, 0) < 0)
			return -errno;
		fd = openat(store_place(store), name, flags, 0600);
	}
	return fd < 0 ? -errno : fd;
}

static int directory_remove_file(struct image_store *store, const char *name)
{
	return unlinkat(store_place(store), name, 0) < 0 ? -errno : 0;
}

static int directory_rename_file(struct image_store *store, const char *from, const char *to)
{
	return renameat(store_place(store), from, store_place(store), to) < 0 ? -errno : 0;
}

/* Only a hint: if it fails, the later sync reports it. */
static void directory_begin_sync(struct image_store *store, const char *name)
{
	autoclose int fd = directory_open_read(store, name);

	if (fd >= 0)
		sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

static void directory_begin_sync_open(int fd)
{
	sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

/* The kernel reports a failed write to the first fsync(), even by a new descriptor (Linux 4.16). */
static int directory_sync_file(struct image_store *store, const char *name)
{
	autoclose int fd = directory_open_read(store, name);

	if (fd < 0)
		return fd;
	return fsync(fd) < 0 ? -errno : 0;
}

static int directory_sync_names(struct image_store *store)
{
	/* EINVAL: the file system cannot sync directories. */
	return fsync(store_place(store)) < 0 && errno != EINVAL ? -errno : 0;
}

static void close_directory(struct image_store *store)
{
	if (store->staging >= 0)
		close(store->staging);
	close(store->directory);
}

const struct image_store_ops directory_store_ops = {
	.open_read = directory_open_read,
	.open_write = directory_open_write,
	.open_change = open_change,
	.list = directory_list_names,
	.remove = directory_remove_file,
	.rename = directory_rename_file,
	.begin_sync = directory_begin_sync,
	.begin_sync_open = directory_begin_sync_open,
	.sync_file = directory_sync_file,
	.sync_names = directory_sync_names,
	.close = close_directory,
};
