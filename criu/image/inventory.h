/*
 * inventory.h - what inventory.img says about the images beside it.
 */
#ifndef CRIU_IMAGE_INVENTORY_H
#define CRIU_IMAGE_INVENTORY_H

#include "image/image.h"
#include "inventory.pb-c.h"

/*
 * An inventory of the layout we write, made now. The caller adds root_ids, root_cg_set and lsmtype, gives it
 * to image_store_commit() and frees it with image_free().
 */
InventoryEntry *inventory_new(void);

/* What names a snapshot: random, never 0. */
uint64_t inventory_new_id(void);

/*
 * Reads and checks inventory.img; *inventory is to be freed with image_free(). -errno, recorded: also
 * -ENOENT, for a directory that is not a complete dump, and for a layout that this program does not read.
 */
int inventory_read(struct image_store *store, InventoryEntry **inventory) must_check;

/* For who wants nothing but the pages: any layout of the rest is right. -ENOENT (not recorded): there is none. */
int inventory_read_memory(struct image_store *store, InventoryEntry **inventory) must_check;

/* Another inventory for images that are complete, and stay so at every instant. 0 or -errno, recorded. */
int inventory_replace(struct image_store *store, const InventoryEntry *inventory) must_check;

#endif
