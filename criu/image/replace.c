/*
 * replace.c - replaces an older dump in a directory by a new one. At every instant, and after every crash, one of the
 * two is complete and can be found.
 *
 * The new images are made in a subdirectory, whose name tells how far the replacement has come:
 *
 *	.incoming   images of a dump that is being made; worthless after a crash
 *	.complete   a complete, synced dump: the dump of this directory. The images beside the subdirectory are older
 *	.moving     the older images have left the directory; these move up, inventory.img last
 *	.leaving    the older images on their way out, inventory.img first
 *	.previous   all of the older images, while the new dump can still be undone
 *
 *	                       directory   .incoming  .complete  .moving  .leaving  .previous
 *	begin                     old        new…
 *	commit: rename            old                    new                       <- here the new one becomes the dump
 *	        move the old out  (old)                  new              (old)
 *	        rename                                   new                          old
 *	        rename, move up   (new)                           (new)               old
 *	                          new                                                 old
 *	finish                    new
 *	undo    rename            new                    old                       from here on like a commit
 *
 * After a crash replace_finish() continues from the state that the names tell. A rename is synced before the next step
 * relies on it. If an undo crashes, the result is the older dump or the new one, which is complete as well.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/memory.h"
#include "image/store.h"

#define INCOMING ".incoming"
#define COMPLETE ".complete"
#define MOVING	 ".moving"
#define LEAVING	 ".leaving"
#define PREVIOUS ".previous"

static bool exists(int directory, const char *name)
{
	return faccessat(directory, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static int sync_directory(int directory)
{
	/* EINVAL: the file system cannot sync directories. */
	return fsync(directory) < 0 && errno != EINVAL ? -errno : 0;
}

static int rename_synced(int directory, const char *from, const char *to)
{
	return renameat(directory, from, directory, to) < 0 ? -errno : sync_directory(directory);
}

static int open_below(int directory, const char *name)
{
	int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* ---- all images of a directory ---- */

struct transfer {
	int from, to; /* to is -1: they are removed */
	bool takes_all, takes_inventory;
	struct image_names names;
};

static void note_name(void *context, const char *name)
{
	struct transfer *transfer = context;

	if (!strcmp(name, ".") || !strcmp(name, "..") || !strcmp(name, INVENTORY_NAME))
		return;
	if (transfer->takes_all || is_of_a_dump(name) || !strcmp(name, PARENT_NAME))
		*grow(&transfer->names.items, &transfer->names.count) = copy_text(name);
}

static int transfer_one(const struct transfer *transfer, const char *name)
{
	int done = transfer->to < 0 ? unlinkat(transfer->from, name, 0) :
				      renameat(transfer->from, name, transfer->to, name);

	return done < 0 && errno != ENOENT ? -errno : 0;
}

static int transfer_rest(struct transfer *transfer)
{
	int result = list_directory(transfer->from, note_name, transfer);

	for (size_t i = 0; !result && i < transfer->names.count; i++)
		result = transfer_one(transfer, transfer->names.items[i]);
	image_names_free(&transfer->names);
	return result;
}

/* Moves the dump out of the directory, inventory.img first: what is left never looks complete. */
static int move_out(int directory, int to)
{
	struct transfer transfer = { .from = directory, .to = to };
	int result = transfer_one(&transfer, INVENTORY_NAME) ?: sync_directory(directory);

	if (!result && to >= 0)
		result = sync_directory(to);
	return result ?: transfer_rest(&transfer);
}

/*
 * Moves a dump into the directory, inventory.img last: it looks complete only when it is. Removes the empty
 * subdirectory.
 */
static int move_up(int directory, const char *name)
{
	struct transfer transfer = { .to = directory, .takes_all = true };
	autoclose int from = open_below(directory, name);
	int result;

	if (from < 0)
		return from;
	transfer.from = from;
	result = transfer_rest(&transfer) ?: sync_directory(directory);
	if (!result)
		result = transfer_one(&transfer, INVENTORY_NAME) ?: sync_directory(directory);
	if (!result && unlinkat(directory, name, AT_REMOVEDIR) < 0)
		result = -errno;
	return result;
}

static int remove_whole(int directory, const char *name)
{
	autoclose int from = open_below(directory, name);
	struct transfer transfer = { .from = from, .to = -1, .takes_all = true };
	int result;

	if (from < 0)
		return from == -ENOENT ? 0 : from;
	result = transfer_one(&transfer, INVENTORY_NAME) ?: transfer_rest(&transfer);
	return result ?: unlinkat(directory, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

/* ---- the way of a dump ---- */

int replace_begin(int directory)
{
	int fd;

	if (mkdirat(directory, INCOMING, 0700) < 0)
		return -errno;
	fd = open_below(directory, INCOMING);
	if (fd < 0)
		unlinkat(directory, INCOMING, AT_REMOVEDIR);
	return fd;
}

static int keep_aside(int directory)
{
	autoclose int leaving = -1;

	if (mkdirat(directory, LEAVING, 0700) < 0)
		return -errno;
	leaving = open_below(directory, LEAVING);
	if (leaving < 0)
		return leaving;
	return move_out(directory, leaving)    ?:
		       sync_directory(leaving) ?:
						 rename_synced(directory, LEAVING, PREVIOUS);
}

/* Continues from COMPLETE, when the directory holds no older images. */
static int move_in(int directory)
{
	return rename_synced(directory, COMPLETE, MOVING) ?: move_up(directory, MOVING);
}

int replace_commit(int directory)
{
	return rename_synced(directory, INCOMING, COMPLETE) ?: keep_aside(directory) ?: move_in(directory);
}

/*
 * The older dump is in the directory, in LEAVING, or in PREVIOUS. replace_finish() finds it there, as soon as the new
 * one is no longer COMPLETE.
 */
int replace_undo(int directory)
{
	int result = 0;

	if (exists(directory, COMPLETE))
		result = rename_synced(directory, COMPLETE, INCOMING);
	else if (exists(directory, MOVING))
		result = rename_synced(directory, MOVING, INCOMING);
	if (!result && exists(directory, PREVIOUS))
		result = rename_synced(directory, PREVIOUS, COMPLETE);
	return result ?: replace_finish(directory);
}

bool replace_is_pending(int directory)
{
	return exists(directory, INCOMING) || exists(directory, PREVIOUS) || replace_hides_dump(directory);
}

bool replace_hides_dump(int directory)
{
	return exists(directory, COMPLETE) || exists(directory, MOVING) || exists(directory, LEAVING) ||
	       (exists(directory, PREVIOUS) && !exists(directory, INVENTORY_NAME));
}

/* Decides which dump stays if there are two. Afterwards its images are the only ones in the directory. */
static int choose_dump(int directory)
{
	if (exists(directory, COMPLETE))
		return move_out(directory, -1) ?: move_in(directory);
	if (exists(directory, MOVING))
		return move_up(directory, MOVING);
	if (exists(directory, LEAVING))
		return move_up(directory, LEAVING);
	/* An undo was interrupted: the new dump has lost its mark already. */
	if (exists(directory, PREVIOUS) && !exists(directory, INVENTORY_NAME))
		return rename_synced(directory, PREVIOUS, COMPLETE) ?: choose_dump(directory);
	return 0;
}

int replace_finish(int directory)
{
	static const char *const leftovers[] = { INCOMING, LEAVING, PREVIOUS };
	int result = choose_dump(directory);

	for (size_t i = 0; !result && i < array_size(leftovers); i++)
		result = remove_whole(directory, leftovers[i]);
	return result ?: sync_directory(directory);
}
