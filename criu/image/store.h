/*
 * store.h - what a place that holds images has to offer; private to criu/image.
 *
 * Names are made by the catalog: no caller's text reaches them, and they hold no slash.
 */
#ifndef CRIU_IMAGE_STORE_H
#define CRIU_IMAGE_STORE_H

#include "image/image.h"

/* All return -errno and record nothing: the caller knows what it was doing. */
struct image_store_ops {
	/* A descriptor: of a regular file; of a new file, in place of any older one. */
	int (*open_read)(struct image_store *store, const char *name);
	int (*open_write)(struct image_store *store, const char *name);
	int (*open_change)(struct image_store *store, const char *name); /* as open_read, to be written too */
	/* Calls `each` for every name, in any order. */
	int (*list)(struct image_store *store, void (*each)(void *context, const char *name), void *context);
	int (*remove)(struct image_store *store, const char *name);
	int (*rename)(struct image_store *store, const char *from, const char *to);
	void (*begin_sync)(struct image_store *store,
			   const char *name); /* of several files before the first is synced */
	int (*sync_file)(struct image_store *store, const char *name);
	int (*sync_names)(struct image_store *store); /* what was made, removed and renamed */
	void (*close)(struct image_store *store);     /* what the store has of its own */
};

struct image_store {
	const struct image_store_ops *ops;
	char *name;    /* for messages */
	int directory; /* -1: in memory */

	/* Since image_store_begin() */
	char **created;
	size_t created_count;

	/* In memory */
	struct memory_file *files;
	size_t file_count;
};

extern const struct image_store_ops directory_store_ops, memory_store_ops;

/* As image_create(), under another name than the catalog's: inventory.img is called so once it is on disk. */
int image_create_as(struct image_store *store, struct image **image, enum image_kind kind, const char *name);

#endif
