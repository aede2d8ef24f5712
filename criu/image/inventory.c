/*
 * inventory.c - the mark of a complete dump, and which layout its images have.
 */
#include <errno.h>
#include <time.h>
#include "base/error.h"
#include "image/inventory.h"
#include "image/message.h"

/* 1: images without the common first word. 2: with it. */
#define OLDEST_VERSION 1
#define OUR_VERSION    2

InventoryEntry *inventory_new(void)
{
	InventoryEntry *inventory = message_new(InventoryEntry, inventory_entry);

	inventory->img_version = OUR_VERSION;
	message_set(inventory, fdinfo_per_id, true);
	message_set(inventory, ns_per_id, true);
	message_set(inventory, dump_time, time(NULL));
	inventory->made_by = copy_text("criu " CRIU_VERSION);
	return inventory;
}

static int check(const char *directory, const InventoryEntry *inventory)
{
	const char *maker = inventory->made_by ? inventory->made_by : "a criu that does not say its version";

	if (inventory->img_version < OLDEST_VERSION || inventory->img_version > OUR_VERSION)
		return fail(
			0,
			"%s/inventory.img: the images have format %u, made by %s; this criu reads %d to %d",
			directory, inventory->img_version, maker, OLDEST_VERSION, OUR_VERSION);
	if (!inventory->fdinfo_per_id || !inventory->ns_per_id)
		return fail(0, "%s/inventory.img: an old layout (%s by pid) that this criu does not read",
			    directory, inventory->fdinfo_per_id ? "namespaces" : "descriptors");
	return 0;
}

int inventory_read(struct image_store *store, InventoryEntry **inventory)
{
	int result = image_read_single(store, IMAGE_INVENTORY, 0, (ProtobufCMessage **)inventory);

	if (result == -ENOENT) {
		fail(0,
		     "%s is not a complete image directory: it has no inventory.img "
		     "(the dump was interrupted or is still going on)",
		     image_store_name(store));
		return -ENOENT;
	}
	if (result == 0)
		result = check(image_store_name(store), *inventory);
	if (result < 0) {
		image_free(*inventory);
		*inventory = NULL;
	}
	return result;
}
