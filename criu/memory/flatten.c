/*
 * flatten.c - merges a chain of snapshots into one directory. See flatten.h.
 *
 * In place, the order matters: after each step the directory still restores to the same memory.
 *
 *	for each pagemap that leaves pages to a parent:
 *	         pages-NEW.img with all of its pages, synced            NEW is in no pagemap and no name yet: unused
 *	         if it is compressed, inventory.img says so             before CRIU 4.2 would miss pages of this directory
 *	         pagemap-X.img.new, synced, becomes pagemap-X.img       it needs no parent any more; others still do
 *	the renames are synced; `parent` is removed, and that is synced
 *	inventory.img without parent_id                                 not checked any more since `parent` is gone
 *	         and, if no pages are compressed, it says so            compressed pages of a parent are not needed any more
 *	pages images that no pagemap names are removed                  the old ones, and leftovers of a crash
 *
 * New pages are compressed if any of them were before, or if the dump that merges its chain compresses.
 *
 * Images beside pages-N.img that describe its pages by position (hashes-N.img) are removed with it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/copy.h"
#include "base/error.h"
#include "base/index.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "image/inventory.h"
#include "image/message.h"
#include "memory/flatten.h"
#include "memory/packed.h"
#include "memory/pagemap.h"
#include "memory/pages_image.h"
#include "memory/stack.h"
#include "pagemap.pb-c.h"

#define BUFFER_SIZE (1UL << 20)

static const enum image_kind pagemap_kinds[] = { IMAGE_PAGEMAP, IMAGE_SHMEM_PAGEMAP };

struct flatten {
	struct page_chain *chain;
	struct image_store *from, *to; /* the same, in place */
	struct image_names names;      /* in `from` */
	struct copier copier;
	char *buffer; /* for compressed pages */
	struct flatten_statistics *statistics;
	uint32_t next_pages_id;
};

static bool is_in_place(const struct flatten *flatten)
{
	return flatten->from == flatten->to;
}

/* In place: tells whether pages are compressed, and perhaps that there is no parent. */
static int change_inventory(struct image_store *store, bool is_packed, bool forgets_parent)
{
	InventoryEntry *inventory;
	int result = inventory_read_memory(store, &inventory);
	bool has_changed;

	if (result)
		return result;
	has_changed = inventory_set_packed(inventory, is_packed);
	if (forgets_parent && inventory->has_parent_id) {
		inventory->has_parent_id = false;
		has_changed = true;
	}
	if (has_changed)
		result = inventory_replace(store, inventory);
	image_free(inventory);
	return result;
}

/* ---- one task ---- */

/* Assigns offsets to the pages in the order of their addresses; *size is the total. */
static uint64_t *place_runs(const struct page_runs *runs, uint64_t *size)
{
	uint64_t *places = allocate_array(runs->count + 1, sizeof(*places));

	*size = 0;
	for (size_t i = 0; i < runs->count; i++) {
		places[i] = *size;
		*size += runs->items[i].count * PAGE_SIZE;
	}
	return places;
}

/* The file system may share or copy them. */
static int copy_run(struct flatten *flatten, const struct page_run *run, const struct pages_image *from,
		    const struct image *to, uint64_t place)
{
	int result = interrupt_check();

	if (result)
		return result;
	result = copier_copy(&flatten->copier, pages_image_fd(from), run->offset, image_fd(to), place,
			     run->count * PAGE_SIZE);
	return result ? fail(-result, "cannot copy the pages of %s", pages_image_name(from)) : 0;
}

/* Layer by layer, so that only one source is open at a time. */
static int copy_layer(struct flatten *flatten, const struct page_stack *stack, size_t layer,
		      const uint64_t *places, struct image *image)
{
	struct image_store *store = page_chain_store(stack->chain, layer);
	struct page_runs runs = page_stack_layer(stack, layer);
	struct pages_image *pages = NULL;
	int result = runs.count ? pages_image_open(&pages, store, stack->layers[layer].pages_id) : 0;

	if (result || !runs.count)
		return result == -ENOENT ?
			       fail(ENOENT, "the pages of %s are missing", image_store_name(store)) :
			       result;
	for (size_t i = 0; !result && i < runs.count; i++)
		result = copy_run(flatten, &runs.items[i], pages, image,
				  places[page_runs_find(&stack->runs, runs.items[i].start)]);
	pages_image_close(pages);
	return result;
}

static int copy_plain(struct flatten *flatten, const struct page_stack *stack, const uint64_t *places,
		      uint64_t size, struct image *image)
{
	int result = copier_size(image_fd(image), size);

	if (result)
		fail(-result, "cannot set the size of %s to %llu bytes", image_name(image),
		     (unsigned long long)size);
	for (size_t layer = 0; !result && layer < stack->layer_count; layer++)
		result = copy_layer(flatten, stack, layer, places, image);
	return result;
}

/* Pages that are compressed together: by two threads only if there are many (packed_write.c). */
struct gathered {
	struct packer *packer;
	const char *name;
	char *buffer;
	size_t size;
};

static int pack(struct gathered *gathered)
{
	int result = packer_write(gathered->packer, gathered->buffer, gathered->size);

	gathered->size = 0;
	return result ? fail(-result, "cannot write %s", gathered->name) : 0;
}

static int gather(struct gathered *gathered, const struct page_stack *stack, const struct page_run *run)
{
	uint64_t size = run->count * PAGE_SIZE;
	int result = 0;

	for (uint64_t done = 0, take; !result && done < size; done += take) {
		take = min(size - done, BUFFER_SIZE - gathered->size);
		result = interrupt_check() ?:
				 page_stack_read(stack, run->layer, gathered->buffer + gathered->size,
						 take / PAGE_SIZE, run->offset + done);
		gathered->size += take;
		if (!result && gathered->size == BUFFER_SIZE)
			result = pack(gathered);
	}
	return result;
}

/* In the order of addresses, because compressed pages can only be appended. */
static int copy_packed(struct flatten *flatten, const struct page_stack *stack, struct image *image)
{
	struct gathered gathered = { .packer = packer_open(image_fd(image), false),
				     .name = image_name(image),
				     .buffer = flatten->buffer };
	struct packer_statistics statistics = { 0 };
	int result = 0, closed;

	for (size_t i = 0; !result && i < stack->runs.count; i++)
		result = gather(&gathered, stack, &stack->runs.items[i]);
	result = result ?: pack(&gathered);
	closed = packer_close(gathered.packer, result, &statistics);
	if (!result && closed)
		result = fail(-closed, "cannot write %s", image_name(image));
	flatten->copier.copied += statistics.packed;
	return result;
}

/* The kind of the new pages image. A dump that compresses may merge its chain. */
static enum image_kind choose_kind(const struct flatten *flatten, const struct page_stack *stack)
{
	if (image_store_compression(flatten->to) == COMPRESS_ALWAYS)
		return IMAGE_PACKED_PAGES;
	for (size_t layer = 0; layer < stack->layer_count; layer++)
		if (page_stack_layer(stack, layer).count &&
		    pages_image_is_packed(page_chain_store(stack->chain, layer),
					  stack->layers[layer].pages_id))
			return IMAGE_PACKED_PAGES;
	return IMAGE_PAGES;
}

static int copy_pages(struct flatten *flatten, const struct page_stack *stack, enum image_kind kind,
		      uint32_t pages_id)
{
	uint64_t size;
	autofree uint64_t *places = place_runs(&stack->runs, &size);
	struct image *image;
	int result = image_create(flatten->to, &image, kind, pages_id), closed;

	if (result)
		return result;
	result = kind == IMAGE_PACKED_PAGES ? copy_packed(flatten, stack, image) :
					      copy_plain(flatten, stack, places, size, image);
	closed = image_close(image);
	flatten->statistics->pages += size / PAGE_SIZE;
	return result ?: closed;
}

static int write_entries(struct image *pagemap, const struct page_runs *runs, uint32_t pages_id)
{
	int result = pagemap_write_head(pagemap, pages_id);

	for (size_t i = 0, next; !result && i < runs->count; i = next) {
		uint64_t count = runs->items[i].count;

		/* Adjacent runs become one entry, wherever they came from. */
		for (next = i + 1; next < runs->count && runs->items[next].flags == runs->items[i].flags &&
				   page_run_end(&runs->items[next - 1]) == runs->items[next].start;
		     next++)
			count += runs->items[next].count;
		result = pagemap_write_entry(pagemap, runs->items[i].start, count,
					     PAGES_PRESENT | runs->items[i].flags);
	}
	return result;
}

static int write_pagemap(struct flatten *flatten, const struct page_stack *stack, enum image_kind kind,
			 unsigned long id, uint32_t pages_id)
{
	struct image *pagemap;
	int result = is_in_place(flatten) ? image_create_beside(flatten->to, &pagemap, kind, id) :
					    image_create(flatten->to, &pagemap, kind, id);
	int closed;

	if (result)
		return result;
	result = write_entries(pagemap, &stack->runs, pages_id);
	closed = image_close(pagemap);
	return result ?: closed;
}

/* In place: from now on the new pages are those of the task. */
static int use_pages(struct image_store *store, enum image_kind pages_kind, uint32_t pages_id,
		     enum image_kind kind, unsigned long id)
{
	int result = image_store_sync_image(store, pages_kind, pages_id);

	if (!result && pages_kind == IMAGE_PACKED_PAGES)
		result = change_inventory(store, true, false);
	return result ?: image_store_sync(store) ?: image_store_replace(store, kind, id);
}

static int write_task(struct flatten *flatten, const struct page_stack *stack, enum image_kind kind,
		      unsigned long id)
{
	uint32_t pages_id = flatten->next_pages_id++;
	enum image_kind pages_kind = choose_kind(flatten, stack);
	int result = copy_pages(flatten, stack, pages_kind, pages_id) ?:
			     write_pagemap(flatten, stack, kind, id, pages_id);

	if (!result && is_in_place(flatten))
		result = use_pages(flatten->to, pages_kind, pages_id, kind, id);
	return result;
}

/* In place, a pagemap that needs no parent stays as it is. */
static int flatten_task(struct flatten *flatten, enum image_kind kind, unsigned long id)
{
	struct page_stack stack;
	int result = page_stack_open(&stack, flatten->chain, kind, id);

	if (!result && (!is_in_place(flatten) || stack.layer_count > 1))
		result = write_task(flatten, &stack, kind, id);
	page_stack_close(&stack);
	return result;
}

/* ---- all tasks ---- */

static bool is_pagemap(const char *name, enum image_kind *kind, unsigned long *id)
{
	for (size_t i = 0; i < array_size(pagemap_kinds); i++) {
		*kind = pagemap_kinds[i];
		if (image_name_is(name, *kind, id))
			return true;
	}
	return false;
}

static int flatten_tasks(struct flatten *flatten)
{
	int result = 0;

	for (size_t i = 0; !result && i < flatten->names.count; i++) {
		enum image_kind kind;
		unsigned long id;

		if (is_pagemap(flatten->names.items[i], &kind, &id))
			result = flatten_task(flatten, kind, id);
	}
	return result;
}

/* pages-N.img, or an image that describes its pages by position. */
static bool is_beside_pages(const char *name, unsigned long *pages_id)
{
	return image_name_is(name, IMAGE_PAGES, pages_id) ||
	       image_name_is(name, IMAGE_PACKED_PAGES, pages_id) ||
	       image_name_is(name, IMAGE_HASHES, pages_id);
}

/* Numbers above all existing ones: 0 is unused. */
static int choose_pages_id(struct flatten *flatten)
{
	unsigned long highest = 0, id;

	for (size_t i = 0; i < flatten->names.count; i++)
		if (is_beside_pages(flatten->names.items[i], &id))
			highest = max(highest, id);
	if (highest >= UINT32_MAX - flatten->names.count)
		return fail(EINVAL, "%s has no free numbers for pages images",
			    image_store_name(flatten->from));
	flatten->next_pages_id = highest + 1;
	return 0;
}

static int begin_flattening(struct flatten *flatten, struct image_store *from, struct image_store *to,
			    struct flatten_statistics *statistics)
{
	InventoryEntry *inventory;
	int result;

	*statistics = (struct flatten_statistics){ 0 };
	*flatten = (struct flatten){ .from = from, .to = to, .statistics = statistics };
	result = image_store_lock(to, IMAGES_ARE_WRITTEN)	 ?:
			 image_store_lock(from, IMAGES_ARE_READ) ?:
								   inventory_read_memory(from, &inventory);
	if (result)
		return result == -ENOENT ? fail(0, "%s is not a complete snapshot: it has no inventory.img",
						image_store_name(from)) :
					   result;
	image_free(inventory);
	flatten->buffer = reallocate_array(NULL, BUFFER_SIZE, 1);
	result = page_chain_open_locked(&flatten->chain, from, IMAGES_ARE_READ) ?:
			 image_store_list(from, &flatten->names)		?:
										  choose_pages_id(flatten);
	if (!result)
		statistics->layers = page_chain_length(flatten->chain);
	return result;
}

static int end(struct flatten *flatten, int result)
{
	flatten->statistics->shared = flatten->copier.shared;
	flatten->statistics->copied = flatten->copier.copied;
	page_chain_close(flatten->chain);
	image_names_free(&flatten->names);
	free(flatten->buffer);
	return result;
}

/* ---- in place ---- */

static int remove_parent(struct image_store *store)
{
	return image_store_remove(store, "parent") ?: image_store_sync(store);
}

/* The pages images that the pagemaps of a directory name. */
struct used_pages {
	struct index ids;
	bool is_packed; /* any of them */
};

static int note_used(struct image_store *store, const struct image_names *names, struct used_pages *used)
{
	int result = 0;

	for (size_t i = 0; !result && i < names->count; i++) {
		struct pagemap pagemap = { 0 };
		enum image_kind kind;
		unsigned long id;

		if (is_pagemap(names->items[i], &kind, &id)) {
			result = pagemap_read(&pagemap, store, kind, id);
			index_set(&used->ids, pagemap.pages_id, used);
			used->is_packed |= pages_image_is_packed(store, pagemap.pages_id);
		}
		pagemap_free(&pagemap);
	}
	return result;
}

static int remove_unused(struct image_store *store, const struct image_names *names,
			 const struct used_pages *used)
{
	int result = 0;

	for (size_t i = 0; !result && i < names->count; i++) {
		unsigned long id;

		if (is_beside_pages(names->items[i], &id) && !index_find(&used->ids, id))
			result = image_store_remove(store, names->items[i]);
	}
	return result;
}

/* What was needed only together with a parent. Even if there was none, a crash may have left something to remove. */
static int forget_old(struct image_store *store)
{
	struct used_pages used = { 0 };
	struct image_names names;
	int result = image_store_list(store, &names) ?: note_used(store, &names, &used);

	if (!result)
		result = change_inventory(store, used.is_packed, true) ?: remove_unused(store, &names, &used);
	image_names_free(&names);
	index_free(&used.ids);
	return result;
}

int flatten_in_place(struct image_store *store, struct flatten_statistics *statistics)
{
	struct flatten flatten;
	int result = begin_flattening(&flatten, store, store, statistics);

	/* If the link to the parent was lost, pages that are left to it are an error. */
	result = result ?: flatten_tasks(&flatten);
	if (!result && statistics->layers > 1)
		result = image_store_sync(store) ?: remove_parent(store);
	return end(&flatten, result ?: forget_old(store) ?: image_store_sync(store));
}

/* ---- into a new directory ---- */

static bool is_image(const char *name)
{
	size_t length = strlen(name);

	return length > 4 && !strcmp(name + length - 4, ".img");
}

static int check_target_is_empty(struct image_store *out)
{
	struct image_names names;
	int result = image_store_list(out, &names);

	for (size_t i = 0; !result && i < names.count; i++)
		if (is_image(names.items[i]) || !strcmp(names.items[i], "parent"))
			result = fail(EEXIST, "%s already contains images (%s)", image_store_name(out),
				      names.items[i]);
	image_names_free(&names);
	return result;
}

/* Tracking data belongs to one directory: the next snapshot after the new one compares bytes, once. */
static bool is_copied(const char *name)
{
	enum image_kind kind;
	unsigned long id;

	return is_image(name) && !is_pagemap(name, &kind, &id) && !is_beside_pages(name, &id) &&
	       !image_name_is(name, IMAGE_INVENTORY, &id) && !image_name_is(name, IMAGE_TRACKING, &id);
}

static int copy_others(struct flatten *flatten)
{
	int result = 0;

	for (size_t i = 0; !result && i < flatten->names.count; i++)
		if (is_copied(flatten->names.items[i]))
			result = image_store_copy(flatten->to, flatten->from, flatten->names.items[i],
						  &flatten->copier);
	return result;
}

static int complete_target(struct flatten *flatten)
{
	InventoryEntry *inventory;
	int result = inventory_read_memory(flatten->from, &inventory);

	if (result)
		return result;
	inventory->has_parent_id = false;
	inventory_set_packed(inventory, image_store_has_created(flatten->to, IMAGE_PACKED_PAGES));
	result = image_store_commit(flatten->to, &inventory->base);
	image_free(inventory);
	return result;
}

int flatten_into(struct image_store *store, struct image_store *out, struct flatten_statistics *statistics)
{
	struct flatten flatten;
	int result = begin_flattening(&flatten, store, out, statistics);

	result = result ?: check_target_is_empty(out) ?: image_store_begin(out, NULL);
	if (!result) {
		interrupt_begin();
		result = copy_others(&flatten) ?: flatten_tasks(&flatten) ?: complete_target(&flatten);
		result ? image_store_withdraw(out) : image_store_settle(out);
		interrupt_end();
	}
	return end(&flatten, result);
}
