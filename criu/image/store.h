/*
 * store.h - what a place that holds images has to offer; private to criu/image.
 *
 * Names are made by the catalog: no caller's text reaches them, and they hold no slash.
 */
#ifndef CRIU_IMAGE_STORE_H
#define CRIU_IMAGE_STORE_H

#include "compiler.h"
#include "image/image.h"

/* All return -errno and record nothing: the caller knows what it was doing. */
struct image_store_ops {
	/* A descriptor: of a regular file; of a new file, in place of any older one. */
	int (*open_read)(struct image_store *store, const char *name) must_check;
	int (*open_write)(struct image_store *store, const char *name) must_check;
	int (*open_change)(struct image_store *store, const char *name)
		must_check; /* as open_read, to be written too */
	/* Calls `each` for every name, in any order. */
	int (*list)(struct image_store *store, void (*each)(void *context, const char *name), void *context)
		must_check;
	int (*remove)(struct image_store *store, const char *name) must_check;
	int (*rename)(struct image_store *store, const char *from, const char *to) must_check;
	void (*begin_sync)(struct image_store *store,
			   const char *name); /* of several files before the first is synced */
	/* By several threads at the same time. */
	int (*sync_file)(struct image_store *store, const char *name) must_check;
	int (*sync_names)(struct image_store *store) must_check; /* what was made, removed and renamed */
	void (*close)(struct image_store *store);		 /* what the store has of its own */
};

struct image_store {
	const struct image_store_ops *ops;
	char *name;    /* for messages */
	int directory; /* -1: in memory */

	/* image_store_lock() */
	bool is_locked;
	enum image_use use;

	/* Since image_store_begin() */
	bool is_begun;
	int staging; /* the subdirectory in which a dump is made that replaces an older one; -1: none */
	char **created;
	size_t created_count;

	/* In memory */
	struct memory_file *files;
	size_t file_count;
};

/* Where images are made and read: the directory itself, or a subdirectory for the time being. */
static inline int store_place(const struct image_store *store)
{
	return store->staging >= 0 ? store->staging : store->directory;
}

extern const struct image_store_ops directory_store_ops, memory_store_ops;

#define INVENTORY_NAME	   "inventory.img"
#define INVENTORY_NEW_NAME INVENTORY_NAME ".new"
#define PARENT_NAME	   "parent" /* a symbolic link to the directory of the parent snapshot */

/* As image_create(), under another name than the catalog's: inventory.img is called so once it is on disk. */
int image_create_as(struct image_store *store, struct image **image, enum image_kind kind, const char *name)
	must_check;

/* store_sync.c: all that has been created is on the disk. */
int store_sync_created(struct image_store *store) must_check;

/* Would a reader take a file of this name for part of a dump? Its statistics are none. */
bool is_of_a_dump(const char *name);
/* The names in a directory, by its descriptor. -errno, not recorded. */
int list_directory(int directory, void (*each)(void *context, const char *name), void *context) must_check;

/*
 * replace.c: how a dump takes the place of an older one. All of them need the write lock, return 0 or -errno, and record nothing.
 */
int replace_begin(int directory) must_check; /* a descriptor of the subdirectory to make the new images in */
int replace_commit(int directory)
	must_check; /* they are complete and on the disk: now they are the dump; the older one is aside */
int replace_undo(int directory)
	must_check; /* whatever has been done, the older dump is there again, and nothing else */
int replace_finish(int directory)
	must_check;			/* whatever a crash has left: one dump is there, and nothing else */
bool replace_is_pending(int directory); /* is there anything for replace_finish()? Needs no lock */
bool replace_hides_dump(
	int directory); /* … without which the dump would not be found? Else what is left is only in the way of a writer */

#endif
