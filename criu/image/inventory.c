/*
 * inventory.c - reads and writes inventory.img: it marks a dump as complete and tells the layout of its images.
 */
#include <errno.h>
#include <sys/random.h>
#include <time.h>
#include "base/error.h"
#include "base/time.h"
#include "image/inventory.h"
#include "image/message.h"

/* Version 1: images without the common first word. Version 2: with it. Version 3: with compressed pages; ours. */
#define OLDEST_VERSION 1
#define OUR_VERSION    2
#define PACKED_VERSION 3
#define LATEST_VERSION PACKED_VERSION

/* Never 0, which stands for none. If the kernel gives no random numbers, the clock makes the id unique. */
uint64_t inventory_new_id(void)
{
	uint64_t id;

	if (getrandom(&id, sizeof(id), 0) != sizeof(id))
		id = monotonic_time() ^ (uint64_t)time(NULL) << 32;
	return id ?: 1;
}

InventoryEntry *inventory_new(void)
{
	InventoryEntry *inventory = message_new(InventoryEntry, inventory_entry);

	inventory->img_version = OUR_VERSION;
	message_set(inventory, fdinfo_per_id, true);
	message_set(inventory, ns_per_id, true);
	message_set(inventory, dump_time, time(NULL));
	message_set(inventory, snapshot_id, inventory_new_id());
	inventory->made_by = copy_text("criu " CRIU_VERSION);
	return inventory;
}

bool inventory_is_packed(const InventoryEntry *inventory)
{
	return inventory->img_version == PACKED_VERSION;
}

bool inventory_set_packed(InventoryEntry *inventory, bool is_packed)
{
	if (!inventory->img_version || is_packed == inventory_is_packed(inventory))
		return false;
	inventory->img_version = is_packed ? PACKED_VERSION : OUR_VERSION;
	return true;
}

static int check_version(const char *directory, const InventoryEntry *inventory)
{
	const char *maker = inventory->made_by ? inventory->made_by : "an unknown version of criu";

	if (inventory->img_version >= OLDEST_VERSION && inventory->img_version <= LATEST_VERSION)
		return 0;
	return fail(
		0,
		"%s/inventory.img: the images have format %u (made by %s), but this criu reads formats %d to %d",
		directory, inventory->img_version, maker, OLDEST_VERSION, LATEST_VERSION);
}

static int check_inventory_layout(const char *directory, const InventoryEntry *inventory)
{
	if (inventory->fdinfo_per_id && inventory->ns_per_id)
		return 0;
	return fail(
		0,
		"%s/inventory.img: the images have an old layout (%s by pid), which this criu does not read",
		directory, inventory->fdinfo_per_id ? "namespaces" : "descriptors");
}

/* Another criu writes 0 in a pre-dump, which has no layout but that of pages. */
static int check_kind(const char *directory, const InventoryEntry *inventory)
{
	if (!inventory->has_pre_dump_mode)
		return 0;
	fail_advice("restore the dump that was made after it");
	return fail(0, "%s is a pre-dump: it holds memory and nothing else", directory);
}

static int read_inventory(struct image_store *store, InventoryEntry **inventory, bool is_whole)
{
	const char *directory = image_store_name(store);
	int result = image_read_single(store, IMAGE_INVENTORY, 0, (ProtobufCMessage **)inventory);

	if (result < 0)
		return result;
	if (is_whole)
		result = check_kind(directory, *inventory)	      ?:
				 check_version(directory, *inventory) ?:
				 check_inventory_layout(directory, *inventory);
	else if ((*inventory)->img_version)
		result = check_version(directory, *inventory);
	if (result < 0) {
		image_free(*inventory);
		*inventory = NULL;
	}
	return result;
}

int inventory_read(struct image_store *store, InventoryEntry **inventory)
{
	int result = read_inventory(store, inventory, true);

	if (result == -ENOENT)
		fail(0,
		     "%s is not a complete image directory: it has no inventory.img "
		     "(the dump was interrupted or is still going on)",
		     image_store_name(store));
	return result;
}

int inventory_replace(struct image_store *store, const InventoryEntry *inventory)
{
	struct image *image;
	int result = image_create_beside(store, &image, IMAGE_INVENTORY, 0), closed;

	if (result)
		return result;
	result = image_write(image, &inventory->base);
	closed = image_close(image);
	if (result || closed)
		return result ?: closed;
	return image_store_replace(store, IMAGE_INVENTORY, 0) ?: image_store_sync(store);
}

int inventory_read_memory(struct image_store *store, InventoryEntry **inventory)
{
	return read_inventory(store, inventory, false);
}
