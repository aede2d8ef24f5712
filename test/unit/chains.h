/*
 * chains.h - for unit tests of chains: snapshots that contain only memory, in directories 0, 1, 2 … below that of
 * images.h. Every page contains the number of its layer and its page number.
 */
#ifndef TEST_UNIT_CHAINS_H
#define TEST_UNIT_CHAINS_H

#include "images.h"
#include "memory/packed.h"
#include "memory/pagemap.h"
#include "memory/stack.h"
#include "pagemap.pb-c.h"

#define PAGES(number) ((uint64_t)(number)*PAGE_SIZE)
#define ID	      4711

struct entry {
	uint64_t page, count;
	unsigned flags;
};
#define HERE   PAGES_PRESENT
#define PARENT PAGES_IN_PARENT

static inline char *layer_path(unsigned layer)
{
	return format_text("%s/%u", directory, layer);
}

static inline struct image_store *layer_open(unsigned layer, bool for_writing)
{
	autofree char *path = layer_path(layer);
	struct image_store *store;

	assert_int_equal(image_store_open_directory(&store, path, for_writing), 0);
	return store;
}

static inline void set_parent(unsigned layer, const char *target)
{
	autofree char *link = format_text("%s/%u/parent", directory, layer);

	unlink(link);
	assert_int_equal(symlink(target, link), 0);
}

static inline void fill_page(char *page, unsigned layer, uint64_t number)
{
	memset(page, 'a' + layer % 26, PAGE_SIZE);
	snprintf(page, PAGE_SIZE, "layer %u page %lu", layer, (unsigned long)number);
}

static inline void write_pagemap(struct image_store *store, unsigned layer, const struct entry *entries,
				 size_t count, uint32_t pages_id)
{
	PagemapHead head = PAGEMAP_HEAD__INIT;
	struct image *pagemap, *pages;
	char page[PAGE_SIZE];

	head.pages_id = pages_id;
	assert_int_equal(image_create(store, &pagemap, IMAGE_PAGEMAP, ID), 0);
	assert_int_equal(image_create(store, &pages, IMAGE_PAGES, pages_id), 0);
	assert_int_equal(image_write(pagemap, &head.base), 0);
	for (size_t i = 0; i < count; i++) {
		PagemapEntry entry = PAGEMAP_ENTRY__INIT;

		entry.vaddr = PAGES(entries[i].page);
		message_set(&entry, nr_pages, entries[i].count);
		message_set(&entry, flags, entries[i].flags);
		assert_int_equal(image_write(pagemap, &entry.base), 0);
		for (uint64_t p = 0; entries[i].flags & HERE && p < entries[i].count; p++) {
			fill_page(page, layer, entries[i].page + p);
			assert_int_equal(image_write_bytes(pages, page, sizeof(page)), 0);
		}
	}
	assert_int_equal(image_close(pagemap), 0);
	assert_int_equal(image_close(pages), 0);
}

/*
 * Layers are numbered as in a chain: 0 is the newest. The parent of a layer is the next one, if `has_parent`. Its
 * snapshot_id is its number + 1.
 */
static inline void make_layer(unsigned layer, bool has_parent, const struct entry *entries, size_t count)
{
	struct image_store *store = layer_open(layer, true);
	InventoryEntry *inventory = inventory_new();
	autofree char *target = format_text("../%u", layer + 1);

	message_set(inventory, snapshot_id, layer + 1);
	if (has_parent) {
		message_set(inventory, parent_id, layer + 2);
		set_parent(layer, target);
	}
	write_pagemap(store, layer, entries, count, 1 + layer % 3);
	assert_int_equal(image_store_commit(store, &inventory->base), 0);
	image_free(inventory);
	image_store_close(store);
}

/* Compresses the pages of a layer. */
static inline void pack_layer(unsigned layer)
{
	autofree char *plain = format_text("%s/%u/pages-%u.img", directory, layer, 1 + layer % 3);
	autofree char *packed = format_text("%s/%u/pages-lz4-%u.img", directory, layer, 1 + layer % 3);
	int from = open(plain, O_RDONLY), to = open(packed, O_WRONLY | O_CREAT | O_EXCL, 0600);
	struct packer *packer = packer_open(to, false);
	struct packer_statistics statistics = { 0 };
	char page[PAGE_SIZE];

	assert_true(from >= 0 && to >= 0);
	while (read(from, page, sizeof(page)) == sizeof(page))
		assert_int_equal(packer_write(packer, page, sizeof(page)), 0);
	assert_int_equal(packer_close(packer, 0, &statistics), 0);
	assert_int_equal(unlink(plain), 0);
	close(from);
	close(to);
}

#define layer(number, has_parent, ...)                                                  \
	do {                                                                            \
		const struct entry entries_made[] = { __VA_ARGS__ };                    \
		make_layer(number, has_parent, entries_made, array_size(entries_made)); \
	} while (0)

struct opened {
	struct image_store *store;
	struct page_chain *chain;
	struct page_stack stack;
};

static inline struct opened open_stack(unsigned layer)
{
	struct opened opened = { .store = layer_open(layer, false) };

	assert_int_equal(page_chain_open(&opened.chain, opened.store), 0);
	assert_int_equal(page_stack_open(&opened.stack, opened.chain, IMAGE_PAGEMAP, ID), 0);
	return opened;
}

static inline void close_stack(struct opened *opened)
{
	page_stack_close(&opened->stack);
	page_chain_close(opened->chain);
	image_store_close(opened->store);
}

static inline void assert_page(const struct page_stack *stack, const struct page_run *run, uint64_t page)
{
	char expected[PAGE_SIZE], found[PAGE_SIZE];
	uint64_t offset = run->offset + (PAGES(page) - run->start);

	fill_page(expected, run->layer, page);
	assert_int_equal(page_stack_read(stack, run->layer, found, 1, offset), 0);
	assert_string_equal(found, expected);
	assert_memory_equal(found, expected, PAGE_SIZE);
}

/* Each page of the runs has the content that its layer has written. */
static inline void assert_pages(const struct page_stack *stack, const struct page_runs *runs)
{
	for (size_t i = 0; i < runs->count; i++)
		for (uint64_t page = 0; page < runs->items[i].count; page++)
			assert_page(stack, &runs->items[i], runs->items[i].start / PAGE_SIZE + page);
}

/* --- Random chains, and a model that has one number for each page: the layer that has it ---------------- */

#define MOST_PAGES 200
#define NOBODY	   -1

static inline void make_by_chance(unsigned layer, bool has_parent, unsigned pages, int *owner)
{
	static struct entry entries[MOST_PAGES];
	size_t count = 0;
	unsigned flags, last = 0;

	for (unsigned page = 0; page < pages; page++) {
		/* In stretches, with single pages among them. */
		if (!(rand() % 4))
			last = rand() % 3 ? HERE : rand() % 2 ? PARENT : 0;
		flags = last == PARENT && (!has_parent || owner[page] == NOBODY) ? 0 : last;
		if (flags != PARENT)
			owner[page] = flags ? (int)layer : NOBODY;
		if (!flags)
			continue;
		/* Adjacent entries mean the same as one. */
		if (count && entries[count - 1].page + entries[count - 1].count == page &&
		    entries[count - 1].flags == flags && rand() % 8)
			entries[count - 1].count++;
		else
			entries[count++] = (struct entry){ page, 1, flags };
	}
	make_layer(layer, has_parent, entries, count);
}

static inline void make_chain_by_chance(unsigned seed, unsigned layers, unsigned pages, int *owner)
{
	srand(seed);
	memset(owner, 0xff, MOST_PAGES * sizeof(*owner));
	for (unsigned layer = layers; layer--;)
		make_by_chance(layer, layer + 1 < layers, pages, owner);
}

static inline void assert_model(const struct page_stack *stack, const int *owner, unsigned pages)
{
	const struct page_runs *runs = &stack->runs;
	uint64_t expected = 0, seen = 0;

	for (unsigned page = 0; page < pages; page++) {
		size_t found = page_runs_find(runs, PAGES(page));
		bool is_there = found < runs->count && runs->items[found].start <= PAGES(page);

		assert_int_equal(is_there, owner[page] != NOBODY);
		if (is_there)
			assert_int_equal(runs->items[found].layer, owner[page]);
		expected += owner[page] != NOBODY;
	}
	assert_int_equal(page_runs_total(runs), expected);
	for (size_t i = 1; i < runs->count; i++)
		assert_true(page_run_end(&runs->items[i - 1]) <= runs->items[i].start);
	for (size_t layer = 0; layer < stack->layer_count; layer++) {
		struct page_runs own = page_stack_layer(stack, layer);

		for (size_t i = 0; i < own.count; i++) {
			assert_int_equal(own.items[i].layer, layer);
			assert_true(!i || own.items[i - 1].offset < own.items[i].offset);
		}
		seen += page_runs_total(&own);
	}
	assert_int_equal(seen, expected);
}

#endif
