/*
 * store_memory.c - images in memory, for tests: a list of named memfds, so that code that works on the descriptor of an
 * image works here, too.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include "base/memory.h"
#include "image/store.h"

struct memory_file {
	char *name;
	int fd;
};

static struct memory_file *find_file(struct image_store *store, const char *name)
{
	for (size_t i = 0; i < store->file_count; i++)
		if (strcmp(store->files[i].name, name) == 0)
			return &store->files[i];
	return NULL;
}

/* Returns a descriptor with an offset of its own. */
static int memory_open_again(const struct memory_file *file)
{
	autofree char *path = format_text("/proc/self/fd/%d", file->fd);
	int fd = open(path, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int memory_open_read(struct image_store *store, const char *name)
{
	struct memory_file *file = find_file(store, name);

	return file ? memory_open_again(file) : -ENOENT;
}

static int memory_list_names(struct image_store *store, void (*each)(void *context, const char *name),
			     void *context)
{
	for (size_t i = 0; i < store->file_count; i++)
		each(context, store->files[i].name);
	return 0;
}

static int memory_remove_file(struct image_store *store, const char *name)
{
	struct memory_file *file = find_file(store, name);

	if (!file)
		return -ENOENT;
	free(file->name);
	close(file->fd);
	*file = store->files[--store->file_count];
	return 0;
}

static int memory_open_write(struct image_store *store, const char *name)
{
	autoclose int fd = memfd_create(name, MFD_CLOEXEC);
	struct memory_file *file;

	if (fd < 0)
		return -errno;
	memory_remove_file(store, name);
	file = grow(&store->files, &store->file_count);
	file->name = copy_text(name);
	file->fd = steal_fd(&fd);
	return memory_open_again(file);
}

static int memory_rename_file(struct image_store *store, const char *from, const char *to)
{
	struct memory_file *file = find_file(store, from);

	if (!file)
		return -ENOENT;
	memory_remove_file(store, to);
	file = find_file(store, from);
	free(file->name);
	file->name = copy_text(to);
	return 0;
}

static void memory_begin_sync(struct image_store *store unused, const char *name unused)
{
}

static int memory_sync_file(struct image_store *store, const char *name)
{
	return find_file(store, name) ? 0 : -ENOENT;
}

static int memory_sync_names(struct image_store *store unused)
{
	return 0;
}

static void close_files(struct image_store *store)
{
	while (store->file_count)
		memory_remove_file(store, store->files[0].name);
	free(store->files);
}

const struct image_store_ops memory_store_ops = {
	.open_read = memory_open_read,
	.open_write = memory_open_write,
	.open_change = memory_open_read, /* a memfd is always writable */
	.list = memory_list_names,
	.remove = memory_remove_file,
	.rename = memory_rename_file,
	.begin_sync = memory_begin_sync,
	.sync_file = memory_sync_file,
	.sync_names = memory_sync_names,
	.close = close_files,
};
