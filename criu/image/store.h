/*
 * store.h - the operations of a store of images; private to criu/image.
 *
 * The catalog makes the names: they hold no text of a caller, and no slash.
 */
#ifndef CRIU_IMAGE_STORE_H
#define CRIU_IMAGE_STORE_H

#include "compiler.h"
#include "image/image.h"

/* All return -errno and record no failure: the caller knows what it was doing. */
struct image_store_ops {
	/* Return a descriptor: of an existing regular file; of a new file, which replaces an older one. */
	int (*open_read)(struct image_store *store, const char *name) must_check;
	int (*open_write)(struct image_store *store, const char *name) must_check;
	int (*open_change)(struct image_store *store, const char *name)
		must_check; /* as open_read, but also for writing */
	/* Calls `each` for every name, in any order. */
	int (*list)(struct image_store *store, void (*each)(void *context, const char *name), void *context)
		must_check;
	int (*remove)(struct image_store *store, const char *name) must_check;
	int (*rename)(struct image_store *store, const char *from, const char *to) must_check;
	/* Starts writing; called for several files before the first sync. The second may be called by any thread. */
	void (*begin_sync)(struct image_store *store, const char *name);
	void (*begin_sync_open)(int fd);
	/* Several threads may call it at the same time. */
	int (*sync_file)(struct image_store *store, const char *name) must_check;
	int (*sync_names)(struct image_store *store) must_check; /* names made, removed and renamed */
	void (*close)(struct image_store *store); /* frees what belongs to this kind of store */
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
	enum compression compression;
	int staging; /* the subdirectory of a new dump that replaces an older one; -1: none */
	struct created_image {
		char *name;
		bool has_begun; /* its writeback has, or will soon */
	} * created;
	size_t created_count;
	struct sync_begin *begin; /* store_sync.c; NULL: no thread */

	/* In memory */
	struct memory_file *files;
	size_t file_count;
};

/* The directory where images are created and read: the store's own, or a subdirectory during a dump. */
static inline int store_place(const struct image_store *store)
{
	return store->staging >= 0 ? store->staging : store->directory;
}

extern const struct image_store_ops directory_store_ops, memory_store_ops;

#define INVENTORY_NAME	   "inventory.img"
#define INVENTORY_NEW_NAME INVENTORY_NAME ".new"
#define PARENT_NAME	   "parent" /* a symbolic link to the directory of the parent snapshot */

/* As image_create(), but with a name of its own: inventory.img gets its final name only when it is synced. */
int image_create_as(struct image_store *store, struct image **image, enum image_kind kind, const char *name)
	must_check;

/* store_sync.c: syncs everything that has been created. */
int store_sync_created(struct image_store *store) must_check;
/* Closes the descriptor of a created image that is complete. If it is one of many small ones, its writeback begins. */
void store_close_created(struct image_store *store, size_t created, int fd, uint64_t size);
/* No more are closed. */
void store_end_begin(struct image_store *store);

/* Would a reader take a file of this name for part of a dump? Statistics are not part of it. */
bool is_of_a_dump(const char *name);
/* Lists the names in a directory. -errno, not recorded. */
int list_directory(int directory, void (*each)(void *context, const char *name), void *context) must_check;

/*
 * replace.c: a dump replaces an older one. All functions need the write lock, return 0 or -errno, and record no
 * failure.
 */
int replace_begin(int directory) must_check; /* returns a descriptor of the subdirectory for the new images */
int replace_commit(int directory)
	must_check; /* the new images are complete and synced: they become the dump; the older one is kept */
int replace_undo(int directory) must_check; /* from any state: only the older dump is there again */
int replace_finish(int directory)
	must_check; /* from any state that a crash has left: one dump is there, and nothing else */
bool replace_is_pending(int directory); /* is there any work for replace_finish()? Needs no lock */
bool replace_hides_dump(
	int directory); /* would a reader find no dump, or a part of one, before replace_finish()? */

#endif
