/*
 * inventory.h - inventory.img, which describes the images beside it.
 */
#ifndef CRIU_IMAGE_INVENTORY_H
#define CRIU_IMAGE_INVENTORY_H

#include "image/image.h"
#include "inventory.pb-c.h"

/*
 * A new inventory of the layout that this criu writes. The caller adds root_ids, root_cg_set and lsmtype, passes it to
 * image_store_commit(), and frees it with image_free().
 */
InventoryEntry *inventory_new(void);

/*
 * Sets img_version: other programs refuse a dump by it, if pages in its directory, or in that of a parent, are compressed,
 * instead of not finding them. Returns whether it has changed; that of a pre-dump does not.
 */
bool inventory_is_packed(const InventoryEntry *inventory);
bool inventory_set_packed(InventoryEntry *inventory, bool is_packed);

/* A new id for a snapshot: random, never 0. */
uint64_t inventory_new_id(void);

/*
 * Reads and checks inventory.img; *inventory is to be freed with image_free(). -errno, recorded; also -ENOENT, if the
 * directory is no complete dump, and an error if this program does not read the layout.
 */
int inventory_read(struct image_store *store, InventoryEntry **inventory) must_check;

/* For callers that need only the pages: accepts any layout of the rest. -ENOENT (not recorded): there is none. */
int inventory_read_memory(struct image_store *store, InventoryEntry **inventory) must_check;

/* Replaces the inventory of complete images, which stay complete at every instant. 0 or -errno, recorded. */
int inventory_replace(struct image_store *store, const InventoryEntry *inventory) must_check;

#endif
