/*
 * store.c - opening and closing places that hold images, and the two ends of a dump.
 *
 * The order in which a dump becomes complete (DESIGN: a directory of images is complete or is visibly not):
 *
 *	begin    inventory.img of an earlier dump is removed, and the removal is on disk
 *	         images are created
 *	commit   inventory.img.new is written; writing out starts for every file, then each is synced; the directory is synced
 *	         inventory.img.new becomes inventory.img; the directory is synced
 *
 * Why a sync for each file: measured on ext4 (virtio disk), 14 images of 3 KB and an empty pages image,
 * median:
 *
 *	fsync each, directory, then the inventory likewise                             2.8 ms
 *	start writing all, fsync each with the inventory among them, then rename       1.8 ms   <- this
 *	syncfs(), then rename                                                          1.0 ms
 *	the last two while somebody else has 400 MB unwritten on the same disk   2.4 | 124 ms
 *
 * Started together, the writes have left before the first fsync() asks for them, and its one journal commit
 * serves all files. syncfs() would make a frozen tree wait for the rest of the machine.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "image/store.h"

#define INVENTORY_NAME	   "inventory.img"
#define INVENTORY_NEW_NAME INVENTORY_NAME ".new"
#define PARENT_NAME	   "parent" /* a symbolic link to the directory of the parent snapshot */

static struct image_store *new_store(const struct image_store_ops *ops, char *name, int directory)
{
	struct image_store *store = allocate(sizeof(*store));

	store->ops = ops;
	store->name = name;
	store->directory = directory;
	return store;
}

/* A new directory has its name on disk from the start: what is synced in it later would else be nowhere. */
static int make_directory(const char *path)
{
	autofree char *parent = format_text("%s/..", path);
	autoclose int fd = -1;

	if (mkdir(path, 0700) < 0)
		return errno == EEXIST ? 0 : fail(errno, "cannot make the images directory %s", path);
	fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && fsync(fd) < 0 && errno != EINVAL)
		return fail(errno, "cannot bring the images directory %s to the disk", path);
	return 0;
}

int image_store_open_directory(struct image_store **store, const char *path, bool for_writing)
{
	int directory;
	int result = for_writing ? make_directory(path) : 0;

	if (result < 0)
		return result;
	directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0 && errno == ENOENT) {
		fail(0, "no such directory: %s", path);
		return -ENOENT;
	}
	if (directory < 0)
		return fail(errno, "cannot open the images directory %s", path);
	*store = new_store(&directory_store_ops, copy_text(path), directory);
	return 0;
}

int image_store_open_fd(struct image_store **store, int directory, bool for_writing unused)
{
	autofree char *link = format_text("/proc/self/fd/%d", directory);
	char *name = NULL;
	struct stat status;
	int own;

	if (fstat(directory, &status) < 0)
		return fail(errno, "cannot use descriptor %d as the images directory", directory);
	if (!S_ISDIR(status.st_mode))
		return fail(ENOTDIR, "cannot use descriptor %d as the images directory", directory);
	own = fcntl(directory, F_DUPFD_CLOEXEC, 3);
	if (own < 0)
		return fail(errno, "cannot keep descriptor %d, the images directory", directory);
	if (read_link_at(AT_FDCWD, link, &name) < 0)
		name = steal_pointer(&link);
	*store = new_store(&directory_store_ops, name, own);
	return 0;
}

int image_store_open_memory(struct image_store **store)
{
	*store = new_store(&memory_store_ops, copy_text("memory"), -1);
	return 0;
}

void image_store_close(struct image_store *store)
{
	if (!store)
		return;
	store->ops->close(store);
	for (size_t i = 0; i < store->created_count; i++)
		free(store->created[i]);
	free(store->created);
	free(store->name);
	free(store);
}

int image_store_directory(const struct image_store *store)
{
	return store->directory;
}

const char *image_store_name(const struct image_store *store)
{
	return store->name;
}

static int remove_if_there(struct image_store *store, const char *name)
{
	int result = store->ops->remove(store, name);

	if (result == -ENOENT)
		return 0;
	return result < 0 ? fail(-result, "cannot remove the old %s/%s", store->name, name) : 1;
}

int image_store_begin(struct image_store *store)
{
	int removed = remove_if_there(store, INVENTORY_NAME);
	int result = 0;

	/* Some file systems write names in another order than we made them: the old inventory goes first. */
	if (removed > 0)
		result = store->ops->sync_names(store);
	if (result < 0)
		return fail(-result, "cannot sync the images directory %s", store->name);
	if (removed < 0)
		return removed;
	removed = remove_if_there(store, INVENTORY_NEW_NAME);
	/* What an earlier snapshot noted here is of no use any more; who waits for it (keeper.h) is to see it go. */
	if (removed >= 0)
		removed = remove_if_there(store, image_types[IMAGE_TRACKING].pattern);
	return min(removed, 0);
}

int image_store_link_parent(struct image_store *store, const char *target)
{
	/* Whatever stands under that name and is no link is not ours to remove. */
	struct stat status;

	if (store->directory < 0)
		return 0;
	if (fstatat(store->directory, PARENT_NAME, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
	    (!S_ISLNK(status.st_mode) || unlinkat(store->directory, PARENT_NAME, 0) < 0))
		return fail(S_ISLNK(status.st_mode) ? errno : EEXIST, "cannot remove the old %s/" PARENT_NAME,
			    store->name);
	if (target && symlinkat(target, store->directory, PARENT_NAME) < 0)
		return fail(errno, "cannot make the link %s/" PARENT_NAME, store->name);
	return 0;
}

static int sync_created(struct image_store *store)
{
	int result;

	for (size_t i = 0; i < store->created_count; i++)
		store->ops->begin_sync(store, store->created[i]);
	for (size_t i = 0; i < store->created_count; i++) {
		result = store->ops->sync_file(store, store->created[i]);
		if (result < 0)
			return fail(-result, "cannot bring %s/%s to the disk", store->name,
				    store->created[i]);
	}
	result = store->ops->sync_names(store);
	return result < 0 ? fail(-result, "cannot sync the images directory %s", store->name) : 0;
}

static int write_inventory(struct image_store *store, const ProtobufCMessage *inventory)
{
	struct image *image;
	int result = image_create_as(store, &image, IMAGE_INVENTORY, INVENTORY_NEW_NAME);
	int closed;

	if (result < 0)
		return result;
	result = image_write(image, inventory);
	closed = image_close(image);
	return min(result, closed);
}

int image_store_commit(struct image_store *store, const ProtobufCMessage *inventory)
{
	int result = write_inventory(store, inventory);

	if (result == 0)
		result = sync_created(store);
	if (result < 0)
		return result;
	result = store->ops->rename(store, INVENTORY_NEW_NAME, INVENTORY_NAME);
	if (result == 0)
		result = store->ops->sync_names(store);
	return result < 0 ? fail(-result, "cannot finish %s/" INVENTORY_NAME, store->name) : 0;
}
