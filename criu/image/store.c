/*
 * store.c - opens and closes stores of images, and begins and completes a dump.
 *
 * A directory of images is complete or is visibly not, because a dump becomes complete in this order:
 *
 *	begin    images that belong to no complete dump are removed; a complete dump stays, and the new images are made
 *	         in a subdirectory (replace.c)
 *	commit   inventory.img.new is written; writeback starts for every file, then each is synced; the directory is
 *	         synced
 *	         inventory.img.new becomes inventory.img; the directory is synced; an older dump is replaced
 *
 * Why a sync for each file: measured on ext4 (virtio disk), 14 images of 3 KB and an empty pages image,
 * median:
 *
 *	fsync each, directory, then the inventory likewise                             2.8 ms
 *	start writing all, fsync each with the inventory among them, then rename       1.8 ms   <- this
 *	syncfs(), then rename                                                          1.0 ms
 *	the last two while another process has 400 MB unwritten on the disk      2.4 | 124 ms
 *
 * Started together, the writes are under way before the first fsync() waits for them, and its one journal commit serves
 * all files. Several threads sync many images (store_sync.c). syncfs() would make a frozen tree wait for the writes of
 * the whole machine.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "image/store.h"

static struct image_store *new_store(const struct image_store_ops *ops, char *name, int directory)
{
	struct image_store *store = allocate(sizeof(*store));

	store->ops = ops;
	store->name = name;
	store->directory = directory;
	store->staging = -1;
	return store;
}

/*
 * Syncs the name of a new directory at once. Without it, what is synced inside later could be lost with the directory.
 */
static int make_directory(const char *path)
{
	autofree char *parent = format_text("%s/..", path);
	autoclose int fd = -1;

	if (mkdir(path, 0700) < 0)
		return errno == EEXIST ? 0 : fail(errno, "cannot create the images directory %s", path);
	fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && fsync(fd) < 0 && errno != EINVAL)
		return fail(errno, "cannot sync the images directory %s", path);
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
	/* An open file description of its own: its lock is independent of the caller's. */
	own = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (own < 0)
		return fail(errno, "cannot open descriptor %d, the images directory", directory);
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

void image_store_set_compression(struct image_store *store, enum compression compression)
{
	store->compression = compression;
}

enum compression image_store_compression(const struct image_store *store)
{
	return store->compression;
}

bool image_store_has_created(const struct image_store *store, enum image_kind kind)
{
	unsigned long id;

	for (size_t i = 0; i < store->created_count; i++)
		if (image_name_is(store->created[i].name, kind, &id))
			return true;
	return false;
}

static void forget_created(struct image_store *store)
{
	for (size_t i = 0; i < store->created_count; i++)
		free(store->created[i].name);
	free(steal_pointer(&store->created));
	store->created_count = 0;
}

void image_store_close(struct image_store *store)
{
	if (!store)
		return;
	store_end_begin(store);
	image_store_unlock(store);
	forget_created(store);
	store->ops->close(store);
	free(store->name);
	free(store);
}

int image_store_directory(const struct image_store *store)
{
	return store->directory;
}

int image_store_new_directory(const struct image_store *store)
{
	return store->staging >= 0 ? store->staging : store->directory;
}

const char *image_store_name(const struct image_store *store)
{
	return store->name;
}

/* ---- begin ---- */

/*
 * Removes images that are no dump, because inventory.img is missing. A keeper, which ends with tracking.img (keeper.h),
 * notices.
 */
static int remove_incomplete(struct image_store *store)
{
	struct image_names names;
	int result = image_store_list(store, &names);

	for (size_t i = 0; !result && i < names.count; i++)
		if (is_of_a_dump(names.items[i]))
			result = image_store_remove(store, names.items[i]);
	image_names_free(&names);
	return result;
}

static int check_writable(const struct image_store *store)
{
	struct stat status;

	if (faccessat(store->directory, ".", W_OK, AT_EACCESS) < 0)
		return fail(errno, "cannot write to the images directory %s", store->name);
	/* A file of that name that is no link is not criu's to remove. */
	if (fstatat(store->directory, PARENT_NAME, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
	    !S_ISLNK(status.st_mode))
		return fail(EEXIST,
			    "%s/" PARENT_NAME " is in the way: it is not a link to a previous snapshot",
			    store->name);
	return 0;
}

static int begin_staging(struct image_store *store)
{
	int staging = replace_begin(store->directory);

	if (staging < 0)
		return fail(-staging, "cannot create a subdirectory for the new images in %s", store->name);
	log_info("%s holds an older dump, which stays until the new one is complete", store->name);
	/*
	 * Its tracking data is useless now: its keeper has to end (keeper.h), or the new dump could not track anything.
	 */
	if (unlinkat(store->directory, image_types[IMAGE_TRACKING].pattern, 0) < 0 && errno != ENOENT)
		log_warning("%s: cannot remove tracking.img of the older dump: %s", store->name,
			    strerror(errno));
	store->staging = staging;
	return 0;
}

static int link_parent(struct image_store *store, const char *target)
{
	if (store->staging < 0 && unlinkat(store->directory, PARENT_NAME, 0) < 0 && errno != ENOENT)
		return fail(errno, "cannot remove the old %s/" PARENT_NAME, store->name);
	if (!target)
		return 0;
	if (symlinkat(target, store_place(store), PARENT_NAME) < 0)
		return fail(errno, "cannot create the link %s/" PARENT_NAME, store->name);
	*grow(&store->created, &store->created_count) = (struct created_image){ copy_text(PARENT_NAME),
										true };
	return 0;
}

int image_store_begin(struct image_store *store, const char *parent)
{
	bool has_older = store->directory >= 0 && faccessat(store->directory, INVENTORY_NAME, F_OK, 0) == 0;
	int result = store->directory >= 0 ? check_writable(store) : 0;

	if (!result)
		result = has_older ? begin_staging(store) : remove_incomplete(store);
	store->is_begun = !result;
	if (!result && store->directory >= 0)
		result = link_parent(store, parent);
	return result;
}

/* ---- commit ---- */

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

/* The list of created files stays valid: they only move. */
static int replace_older(struct image_store *store)
{
	int result;

	close(steal_fd(&store->staging));
	result = replace_commit(store->directory);
	return result ? fail(-result, "cannot replace the older dump in %s", store->name) : 0;
}

int image_store_commit(struct image_store *store, const ProtobufCMessage *inventory)
{
	int result = write_inventory(store, inventory);

	if (result == 0)
		result = store_sync_created(store);
	if (result < 0)
		return result;
	result = store->ops->rename(store, INVENTORY_NEW_NAME, INVENTORY_NAME);
	if (result == 0)
		result = store->ops->sync_names(store);
	if (result < 0)
		return fail(-result, "cannot finish %s/" INVENTORY_NAME, store->name);
	return store->staging >= 0 ? replace_older(store) : 0;
}

/* ---- end ---- */

/* inventory.img first: without it the rest is no dump. */
static int remove_created(struct image_store *store)
{
	static const char *const marks[] = { INVENTORY_NAME, INVENTORY_NEW_NAME };
	int result = 0;

	for (size_t i = 0; i < array_size(marks); i++) {
		int removed = store->ops->remove(store, marks[i]);

		result = removed && removed != -ENOENT ? removed : result;
	}
	if (!result)
		result = store->ops->sync_names(store);
	for (size_t i = 0; i < store->created_count; i++) {
		int removed = store->ops->remove(store, store->created[i].name);

		result = removed && removed != -ENOENT ? removed : result;
	}
	return result;
}

void image_store_withdraw(struct image_store *store)
{
	bool replaces = store->directory >= 0 && replace_is_pending(store->directory);
	int result;

	store_end_begin(store);
	if (!store->is_begun)
		return;
	if (store->staging >= 0)
		close(steal_fd(&store->staging));
	result = replaces ? replace_undo(store->directory) : remove_created(store);
	if (result)
		log_error("cannot remove the images of the failed dump from %s: %s", store->name,
			  strerror(-result));
	forget_created(store);
	store->is_begun = false;
}

void image_store_settle(struct image_store *store)
{
	int result = store->directory >= 0 && replace_is_pending(store->directory) ?
			     replace_finish(store->directory) :
			     0;

	if (result)
		log_warning("cannot remove the older dump from %s: %s", store->name, strerror(-result));
	store->is_begun = false;
}
