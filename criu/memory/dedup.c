/*
 * dedup.c - frees unneeded pages of a chain, in three passes. The first finds what can be freed; it checks everything
 * and changes nothing. The second marks the directories that will lose pages, and syncs the marks. The third punches
 * holes. A crash in between leaves pages that could have been freed; a directory without a mark never lacks a page.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "base/error.h"
#include "base/index.h"
#include "base/memory.h"
#include "base/spans.h"
#include "image/inventory.h"
#include "image/message.h"
#include "memory/dedup.h"
#include "memory/pagemap.h"
#include "memory/pages_image.h"
#include "memory/stack.h"

static const enum image_kind pagemap_kinds[] = { IMAGE_PAGEMAP, IMAGE_SHMEM_PAGEMAP };

/* The pages of one pages image that can be freed. */
struct freed_pages {
	size_t layer;
	uint32_t pages_id;
	uint64_t size; /* size according to its pagemap */
	struct spans holes;
};

struct dedup {
	struct page_chain *chain;
	bool frees_seen; /* frees what the newest sees, in all layers; otherwise what it does not see, in its parents */
	struct index known; /* pages images, by layer and id */
	struct index done;  /* pagemaps, by kind and id */
	struct freed_pages *items;
	size_t count;
};

/* ---- what can be freed ---- */

/*
 * Adds the parts of an entry that are not seen: the gaps between the runs in it. Runs and entries are in the same
 * order.
 */
static void add_unseen(struct freed_pages *freed, const struct pagemap_entry *entry,
		       const struct page_runs *seen, size_t *next)
{
	uint64_t at = entry->offset, end = entry->offset + entry->count * PAGE_SIZE;

	for (; *next < seen->count && seen->items[*next].offset < end; ++*next) {
		const struct page_run *run = &seen->items[*next];

		if (run->offset > at)
			spans_add(&freed->holes, at, run->offset);
		at = run->offset + run->count * PAGE_SIZE;
		if (at > end) /* the run continues in the next entry */
			break;
	}
	if (at < end)
		spans_add(&freed->holes, at, end);
}

static void add_seen(struct freed_pages *freed, const struct page_runs *seen)
{
	for (size_t i = 0; i < seen->count; i++)
		spans_add(&freed->holes, seen->items[i].offset,
			  seen->items[i].offset + seen->items[i].count * PAGE_SIZE);
}

static int add_freed(struct dedup *dedup, size_t layer, const struct pagemap *pagemap,
		     struct freed_pages **added)
{
	struct image_store *store = page_chain_store(dedup->chain, layer);
	uint64_t key = (uint64_t)layer << 32 | pagemap->pages_id;
	char name[IMAGE_NAME_SIZE];

	if (pages_image_is_packed(store, pagemap->pages_id)) {
		fail_advice("criu flatten");
		return fail(0, "%s/%s is compressed: its pages cannot be freed", image_store_name(store),
			    image_file_name(name, IMAGE_PACKED_PAGES, pagemap->pages_id));
	}
	if (index_find(&dedup->known, key))
		return fail(EINVAL, "%s/%s belongs to two pagemaps: its pages cannot be freed",
			    image_store_name(store), image_file_name(name, IMAGE_PAGES, pagemap->pages_id));
	index_set(&dedup->known, key, dedup);
	*added = grow(&dedup->items, &dedup->count);
	**added =
		(struct freed_pages){ .layer = layer, .pages_id = pagemap->pages_id, .size = pagemap->size };
	return 0;
}

static int look_at_freed_layer(struct dedup *dedup, const struct page_stack *stack, size_t layer,
			       enum image_kind kind, unsigned long id)
{
	struct page_runs seen = page_stack_layer(stack, layer);
	struct freed_pages *freed = NULL;
	struct pagemap pagemap = { 0 };
	size_t next = 0;
	int result = pagemap_read(&pagemap, page_chain_store(dedup->chain, layer), kind, id);

	if (!result && pagemap.size)
		result = add_freed(dedup, layer, &pagemap, &freed);
	if (!result && pagemap.size && dedup->frees_seen)
		add_seen(freed, &seen);
	for (size_t i = 0; !result && !dedup->frees_seen && i < pagemap.count; i++)
		if (pagemap.entries[i].flags & PAGES_PRESENT)
			add_unseen(freed, &pagemap.entries[i], &seen, &next);
	pagemap_free(&pagemap);
	return result == -ENOENT ? 0 : result;
}

/*
 * Plans for the pages of one task, in all layers. A layer may have none of it: the task was created later, or had ended
 * before.
 */
static int plan_task(struct dedup *dedup, enum image_kind kind, unsigned long id)
{
	struct page_stack stack;
	int result;

	if (index_find(&dedup->done, id << 1 | (kind == IMAGE_PAGEMAP)))
		return 0;
	index_set(&dedup->done, id << 1 | (kind == IMAGE_PAGEMAP), dedup);
	result = page_stack_open(&stack, dedup->chain, kind, id);
	if (result == -ENOENT)
		result = 0;
	for (size_t layer = !dedup->frees_seen; !result && layer < page_chain_length(dedup->chain); layer++)
		result = look_at_freed_layer(dedup, &stack, layer, kind, id);
	page_stack_close(&stack);
	return result;
}

static int plan_directory(struct dedup *dedup, size_t layer)
{
	struct image_names names;
	int result = image_store_list(page_chain_store(dedup->chain, layer), &names);

	for (size_t i = 0; !result && i < names.count; i++)
		for (size_t kind = 0; !result && kind < array_size(pagemap_kinds); kind++) {
			unsigned long id;

			if (image_name_is(names.items[i], pagemap_kinds[kind], &id))
				result = plan_task(dedup, pagemap_kinds[kind], id);
		}
	image_names_free(&names);
	return result;
}

/* ---- what may be changed ---- */

/*
 * A file with several names may be part of another snapshot. A file that is shorter than its pagemap requires is
 * damaged. Whether the file system can punch holes is tried behind the end of the file, where nothing is lost.
 */
static int check_pages_file(const struct image_store *store, const struct freed_pages *freed,
			    const char *name, int fd)
{
	struct stat status;

	if (fstat(fd, &status) < 0)
		return fail(errno, "cannot stat %s/%s", image_store_name(store), name);
	if (status.st_nlink != 1)
		return fail(0, "%s/%s has several links: its pages cannot be freed", image_store_name(store),
			    name);
	if ((uint64_t)status.st_size < freed->size)
		return fail(EINVAL, "%s/%s is too short", image_store_name(store), name);
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, round_up(status.st_size, PAGE_SIZE),
		      PAGE_SIZE) < 0)
		return fail(errno, "cannot free pages of %s/%s", image_store_name(store), name);
	return 0;
}

static int open_freed(const struct dedup *dedup, const struct freed_pages *freed, char name[IMAGE_NAME_SIZE])
{
	struct image_store *store = page_chain_store(dedup->chain, freed->layer);

	image_file_name(name, IMAGE_PAGES, freed->pages_id);
	return image_open_to_change(store, IMAGE_PAGES, freed->pages_id);
}

/* Removes ranges that are holes already. */
static void forget_holes(struct freed_pages *freed, int fd)
{
	size_t kept = 0;

	for (size_t i = 0; i < freed->holes.count; i++) {
		struct span *hole = &freed->holes.items[i];
		off_t data = lseek(fd, hole->start, SEEK_DATA);

		if (data >= 0 && (uint64_t)data < hole->end)
			freed->holes.items[kept++] = (struct span){ round_down((uint64_t)data, PAGE_SIZE),
								    hole->end };
	}
	freed->holes.count = kept;
}

static int check_all(struct dedup *dedup)
{
	int result = 0;

	for (size_t i = 0; !result && i < dedup->count; i++) {
		struct freed_pages *freed = &dedup->items[i];
		char name[IMAGE_NAME_SIZE];
		autoclose int fd = -1;

		if (!freed->holes.count)
			continue;
		fd = open_freed(dedup, freed, name);
		result = fd < 0 ? fd :
				  check_pages_file(page_chain_store(dedup->chain, freed->layer), freed, name,
						   fd);
		if (!result)
			forget_holes(freed, fd);
	}
	return result;
}

/* ---- the mark ---- */

static int mark_layer(struct image_store *store, uint64_t freed_for)
{
	InventoryEntry *inventory;
	int result = inventory_read_memory(store, &inventory);

	if (result)
		return result == -ENOENT ?
			       fail(ENOENT, "%s has no inventory.img any more", image_store_name(store)) :
			       result;
	message_set(inventory, freed_for, freed_for);
	result = inventory_replace(store, inventory);
	image_free(inventory);
	return result;
}

static int mark_all(struct dedup *dedup, uint64_t freed_for, size_t *layers)
{
	size_t length = page_chain_length(dedup->chain);
	autofree bool *loses = allocate_array(length, sizeof(*loses));
	int result = 0;

	for (size_t i = 0; i < dedup->count; i++)
		loses[dedup->items[i].layer] |= dedup->items[i].holes.count != 0;
	for (size_t layer = 0; !result && layer < length; layer++)
		if (loses[layer]) {
			result = mark_layer(page_chain_store(dedup->chain, layer), freed_for);
			++*layers;
		}
	return result;
}

/* ---- punching ---- */

static int punch(const struct dedup *dedup, const struct freed_pages *freed,
		 struct dedup_statistics *statistics)
{
	struct image_store *store = page_chain_store(dedup->chain, freed->layer);
	struct stat before, after;
	char name[IMAGE_NAME_SIZE];
	autoclose int fd = freed->holes.count ? open_freed(dedup, freed, name) : -1;

	if (!freed->holes.count)
		return 0;
	if (fd < 0)
		return fd;
	if (fstat(fd, &before) < 0)
		return fail(errno, "cannot stat %s/%s", image_store_name(store), name);
	for (size_t i = 0; i < freed->holes.count; i++) {
		const struct span *hole = &freed->holes.items[i];

		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, hole->start,
			      hole->end - hole->start) < 0)
			return fail(errno, "cannot free pages of %s/%s", image_store_name(store), name);
		statistics->pages += (hole->end - hole->start) / PAGE_SIZE;
	}
	if (fstat(fd, &after) < 0)
		return fail(errno, "cannot stat %s/%s", image_store_name(store), name);
	if (after.st_blocks < before.st_blocks)
		statistics->bytes += (before.st_blocks - after.st_blocks) * 512;
	return 0;
}

/* ---- all ---- */

static int run_dedup(struct dedup *dedup, uint64_t freed_for, struct dedup_statistics *statistics)
{
	int result = 0;

	*statistics = (struct dedup_statistics){ 0 };
	for (size_t layer = 0; !result && layer < page_chain_length(dedup->chain); layer++)
		result = plan_directory(dedup, layer);
	result = result ?: check_all(dedup) ?: mark_all(dedup, freed_for, &statistics->layers);
	for (size_t i = 0; !result && i < dedup->count; i++)
		result = punch(dedup, &dedup->items[i], statistics);
	for (size_t i = 0; i < dedup->count; i++)
		spans_free(&dedup->items[i].holes);
	free(dedup->items);
	index_free(&dedup->known);
	index_free(&dedup->done);
	return result;
}

/* The chain may have been opened before its newest snapshot was complete. */
static int read_layer(struct page_chain *chain, size_t layer, uint64_t *snapshot, bool *is_pre_dump)
{
	InventoryEntry *inventory;
	const char *name = image_store_name(page_chain_store(chain, layer));
	int result = inventory_read_memory(page_chain_store(chain, layer), &inventory);

	if (result)
		return result == -ENOENT ?
			       fail(0, "%s is not a complete snapshot: it has no inventory.img", name) :
			       result;
	*snapshot = inventory->snapshot_id;
	*is_pre_dump = inventory->has_pre_dump_mode;
	image_free(inventory);
	return 0;
}

/* A pre-dump cannot be restored, so a snapshot that can be must not lose pages to it. */
static int check_use(struct page_chain *chain, uint64_t *snapshot)
{
	bool is_pre_dump, is_parent_one = true;
	uint64_t parent;
	int result = read_layer(chain, 0, snapshot, &is_pre_dump);

	for (size_t layer = 1; !result && is_pre_dump && layer < page_chain_length(chain); layer++) {
		result = read_layer(chain, layer, &parent, &is_parent_one);
		if (!result && !is_parent_one)
			return fail(0,
				    "%s is a pre-dump: it cannot replace pages of %s, which can be restored",
				    image_store_name(page_chain_store(chain, 0)),
				    image_store_name(page_chain_store(chain, layer)));
	}
	return result;
}

int page_chain_dedup(struct page_chain *chain, struct dedup_statistics *statistics)
{
	struct dedup dedup = { .chain = chain };
	uint64_t snapshot = 0;

	return page_chain_lock(chain, IMAGES_ARE_WRITTEN) ?:
		       check_use(chain, &snapshot)	  ?:
							    run_dedup(&dedup, snapshot, statistics);
}

int page_chain_consume(struct page_chain *chain, struct dedup_statistics *statistics)
{
	struct dedup dedup = { .chain = chain, .frees_seen = true };

	return page_chain_lock(chain, IMAGES_ARE_WRITTEN) ?:
							    run_dedup(&dedup, inventory_new_id(), statistics);
}
