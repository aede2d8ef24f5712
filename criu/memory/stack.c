/*
 * stack.c - which layer of a chain has which page: one walk from the newest to the oldest. See stack.h.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "arch/arch.h"
#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "memory/pagemap.h"
#include "memory/stack.h"

/* Pages that follow each other, and the number of the first. */
struct stretch {
	uint64_t start, end; /* bytes */
	size_t first;
};

/*
 * Which images of each layer a walk reads, and what for: the pages that the newest layer names have numbers, from 0 on, in ascending
 * order. So of each page there is a bit, however its neighbours come to lie in other layers.
 */
struct walk {
	struct page_stack *stack;
	enum image_kind kind;
	unsigned long id;
	struct pagemap pagemap; /* of the layer that is being taken */
	struct stretch *stretches;
	size_t stretch_count;
	size_t pages;
	uint64_t *found; /* a bit a page; those that are not found yet are what the next layer must have */
	size_t left;	 /* so many are not */
};

/* ---- errors ---- */

static struct image_store *store_of(const struct walk *walk, size_t layer)
{
	return page_chain_store(walk->stack->chain, layer);
}

/* "DIR/pagemap-1.img leaves the page at 0x1000 to its parent": whoever reads it can look there. */
static int fail_absent(const struct walk *walk, size_t layer, uint64_t address)
{
	char name[IMAGE_NAME_SIZE];

	image_file_name(name, walk->kind, walk->id);
	if (layer == page_chain_length(walk->stack->chain))
		return fail(EINVAL,
			    "%s/%s leaves the page at %#" PRIx64
			    " to a parent snapshot, and there is no `parent` beside it",
			    image_store_name(store_of(walk, layer - 1)), name, address);
	return fail(EINVAL, "%s/%s leaves the page at %#" PRIx64 " to its parent, and %s has no such page",
		    image_store_name(store_of(walk, layer - 1)), name, address,
		    image_store_name(store_of(walk, layer)));
}

/* ---- one layer ---- */

/* Behind the last layer: where all ends. */
static size_t start_of_layer(const struct page_stack *stack, size_t layer)
{
	return layer < stack->layer_count ? stack->layers[layer].first : stack->by_layer.count;
}

static bool has_runs(const struct page_stack *stack, size_t layer)
{
	return page_stack_layer(stack, layer).count != 0;
}

static int check_pages(const struct walk *walk, size_t layer, const struct pagemap *pagemap)
{
	struct image_store *store = store_of(walk, layer);
	char pages[IMAGE_NAME_SIZE], name[IMAGE_NAME_SIZE];
	struct image *image;
	int result = image_open(store, &image, IMAGE_PAGES, pagemap->pages_id);

	image_file_name(pages, IMAGE_PAGES, pagemap->pages_id);
	image_file_name(name, walk->kind, walk->id);
	if (result == -ENOENT)
		return fail(0, "%s/%s, which %s refers to, is missing", image_store_name(store), pages, name);
	if (!result && image_size(image) < pagemap->size)
		result = fail(EINVAL,
			      "%s/%s is too short: it has %" PRIu64 " bytes, and %s promises %" PRIu64,
			      image_store_name(store), pages, image_size(image), name, pagemap->size);
	image_close(image);
	return result;
}

/* What nobody has yet of an entry, or of a part of it: pages [page, end) of a stretch. */
static void take_pages(struct walk *walk, const struct pagemap_entry *entry, size_t layer,
		       const struct stretch *stretch, size_t page, size_t end)
{
	struct page_run run;

	for (size_t behind; (page = bits_find(walk->found, page, end, false)) < end; page = behind) {
		behind = bits_find(walk->found, page, end, true);
		run = (struct page_run){
			.start = stretch->start + (page - stretch->first) * PAGE_SIZE,
			.count = behind - page,
			.layer = layer,
			.flags = entry->flags & PAGES_LAZY,
		};
		run.offset = entry->offset + (run.start - entry->start);
		page_runs_add(&walk->stack->by_layer, &run);
		bits_set(walk->found, page, behind);
		walk->left -= run.count;
	}
}

static uint64_t address_of(const struct walk *walk, size_t page)
{
	const struct stretch *stretch = walk->stretches;

	while (page - stretch->first >= (stretch->end - stretch->start) / PAGE_SIZE)
		stretch++;
	return stretch->start + (page - stretch->first) * PAGE_SIZE;
}

/* Pages [from, end) are in no entry of a layer. */
static int pass_by(const struct walk *walk, size_t layer, size_t from, size_t end)
{
	size_t page = bits_find(walk->found, from, end, false);

	return page < end ? fail_absent(walk, layer, address_of(walk, page)) : 0;
}

/* Both are sorted: they are gone through side by side. Before anything is taken, there must be as much as the pagemap promises. */
static int take_entries(struct walk *walk, size_t layer)
{
	const struct pagemap *pagemap = &walk->pagemap;
	size_t current = 0, told = 0; /* a stretch; up to this page the layer has told */
	bool is_checked = false;
	int result = 0;

	for (size_t i = 0; !result && i < pagemap->count; i++) {
		const struct pagemap_entry *entry = &pagemap->entries[i];
		uint64_t entry_end = entry->start + entry->count * PAGE_SIZE;

		while (current < walk->stretch_count && walk->stretches[current].end <= entry->start)
			current++;
		for (size_t j = current;
		     !result && j < walk->stretch_count && walk->stretches[j].start < entry_end; j++) {
			const struct stretch *stretch = &walk->stretches[j];
			uint64_t from = max(stretch->start, entry->start), to = min(stretch->end, entry_end);
			size_t page = stretch->first + (from - stretch->start) / PAGE_SIZE;

			result = pass_by(walk, layer, told, page);
			told = page + (to - from) / PAGE_SIZE;
			if (result || !(entry->flags & PAGES_PRESENT) ||
			    bits_find(walk->found, page, told, false) == told)
				continue;
			if (!is_checked)
				result = check_pages(walk, layer, pagemap);
			is_checked = true;
			if (!result)
				take_pages(walk, entry, layer, stretch, page, told);
		}
	}
	return result ?: pass_by(walk, layer, told, walk->pages);
}

/* The newest layer says what is wanted. */
static int want_all(struct walk *walk)
{
	const struct pagemap *pagemap = &walk->pagemap;
	struct stretch *last = NULL;
	char name[IMAGE_NAME_SIZE];

	for (size_t i = 0; i < pagemap->count; i++) {
		const struct pagemap_entry *entry = &pagemap->entries[i];

		if (!last || last->end != entry->start) {
			last = grow(&walk->stretches, &walk->stretch_count);
			*last = (struct stretch){ .start = entry->start, .first = walk->pages };
		}
		last->end = entry->start + entry->count * PAGE_SIZE;
		walk->pages += entry->count;
	}
	if (walk->pages > arch_task_size() / PAGE_SIZE)
		return fail(EINVAL, "%s/%s names more pages than any memory has",
			    image_store_name(store_of(walk, 0)), image_file_name(name, walk->kind, walk->id));
	walk->left = walk->pages;
	walk->found = allocate_array(BITS_WORDS(walk->pages), sizeof(*walk->found));
	return 0;
}

static int take_layer(struct walk *walk, size_t layer)
{
	struct page_stack *stack = walk->stack;
	struct pagemap *pagemap = &walk->pagemap;
	int result;

	if (layer == page_chain_length(stack->chain))
		return pass_by(walk, layer, 0, walk->pages);
	result = pagemap_read(pagemap, store_of(walk, layer), walk->kind, walk->id);
	if (result == -ENOENT && layer)
		return pass_by(walk, layer, 0, walk->pages);
	if (!result && !layer)
		result = want_all(walk);
	if (!result) {
		*grow(&stack->layers, &stack->layer_count) =
			(struct stack_layer){ .pages_id = pagemap->pages_id, .first = stack->by_layer.count };
		result = take_entries(walk, layer);
	}
	return result;
}

/* ---- all of them ---- */

/* Two neighbouring stretches of `from`, each sorted, become one of `to`. */
static void merge(struct page_run *to, const struct page_run *from, size_t start, size_t middle, size_t end)
{
	size_t left = start, right = middle;

	for (size_t i = start; i < end; i++)
		to[i] = left < middle && (right == end || from[left].start < from[right].start) ?
				from[left++] :
				from[right++];
}

/* Layers are sorted in themselves: pairs of them are merged, then pairs of pairs. What is returned is new. */
static struct page_run *merge_layers(const struct page_stack *stack)
{
	size_t count = stack->by_layer.count;
	const struct page_run *from = stack->by_layer.items;
	struct page_run *merged = NULL, *other = NULL;

	for (size_t width = 1; width < stack->layer_count; width *= 2) {
		struct page_run *to = other ?: reallocate_array(NULL, count, sizeof(*to));

		for (size_t layer = 0; layer < stack->layer_count; layer += 2 * width)
			merge(to, from, start_of_layer(stack, layer), start_of_layer(stack, layer + width),
			      start_of_layer(stack, layer + 2 * width));
		other = merged;
		from = merged = to;
	}
	free(other);
	return merged;
}

/* Nearly always there is but one layer, or but one that has pages: then both orders are one. */
static void sort_runs(struct page_stack *stack)
{
	size_t layers = 0;

	for (size_t i = 0; i < stack->layer_count; i++)
		layers += has_runs(stack, i);
	stack->runs = stack->by_layer;
	if (layers > 1)
		stack->runs.items = merge_layers(stack);
}

int page_stack_open(struct page_stack *stack, struct page_chain *chain, enum image_kind kind,
		    unsigned long id)
{
	struct walk walk = { .stack = stack, .kind = kind, .id = id };
	int result;

	*stack = (struct page_stack){ .chain = chain };
	result = take_layer(&walk, 0);
	for (size_t layer = 1; !result && walk.left; layer++)
		result = take_layer(&walk, layer);
	if (result)
		page_stack_close(stack);
	else
		sort_runs(stack);
	free(walk.stretches);
	free(walk.found);
	pagemap_free(&walk.pagemap);
	return result;
}

void page_stack_close(struct page_stack *stack)
{
	if (stack->runs.items != stack->by_layer.items)
		page_runs_free(&stack->runs);
	page_runs_free(&stack->by_layer);
	free(stack->layers);
	*stack = (struct page_stack){ .chain = stack->chain };
}

struct page_runs page_stack_layer(const struct page_stack *stack, size_t layer)
{
	size_t first, end;

	if (layer >= stack->layer_count)
		return (struct page_runs){ 0 };
	first = stack->layers[layer].first;
	end = start_of_layer(stack, layer + 1);
	return (struct page_runs){ stack->by_layer.items + first, end - first };
}

int page_stack_read(const struct page_stack *stack, size_t layer, void *buffer, uint64_t count,
		    uint64_t offset)
{
	return page_stack_read_into(stack, layer, &(struct iovec){ buffer, count * PAGE_SIZE }, 1, offset);
}

int page_stack_read_into(const struct page_stack *stack, size_t layer, struct iovec *places, int count,
			 uint64_t offset)
{
	return page_chain_read(stack->chain, layer, stack->layers[layer].pages_id, places, count, offset);
}

void page_stack_ahead(const struct page_stack *stack, size_t layer, uint64_t offset, uint64_t size)
{
	page_chain_ahead(stack->chain, layer, stack->layers[layer].pages_id, offset, size);
}
