/*
 * stack.c - finds the layer of a chain that has each page: one walk from the newest to the oldest. See stack.h.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "arch.h"
#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "memory/pagemap.h"
#include "memory/pages_image.h"
#include "memory/stack.h"

/*
 * The state of a walk. The pages in the newest layer are numbered from 0, in ascending order. So there is one bit for
 * each page, however its neighbours are stored in other layers.
 */
struct walk {
	struct page_chain *chain;
	enum image_kind kind;
	unsigned long id;
	page_visitor *visit;
	void *context;
	struct pagemap pagemap;	      /* of the current layer */
	const struct page_runs *only; /* NULL: all are wanted */
	struct page_runs *pages;      /* all pages: see page_stack_walk() */
	size_t page_count;
	uint64_t *found; /* a bit for each page; pages not found yet must be in the next layer */
	size_t left;	 /* number of pages not found yet */
};

/* ---- errors ---- */

static struct image_store *store_of(const struct walk *walk, size_t layer)
{
	return page_chain_store(walk->chain, layer);
}

/* "DIR/pagemap-1.img leaves the page at 0x1000 to its parent": the message names the image to look at. */
static int fail_absent(const struct walk *walk, size_t layer, uint64_t address)
{
	char name[IMAGE_NAME_SIZE];

	image_file_name(name, walk->kind, walk->id);
	if (layer == page_chain_length(walk->chain))
		return fail(EINVAL,
			    "%s/%s leaves the page at %#" PRIx64
			    " to a parent snapshot, and there is no link 'parent' beside it",
			    image_store_name(store_of(walk, layer - 1)), name, address);
	return fail(EINVAL, "%s/%s leaves the page at %#" PRIx64 " to its parent, and %s has no such page",
		    image_store_name(store_of(walk, layer - 1)), name, address,
		    image_store_name(store_of(walk, layer)));
}

/* ---- one layer ---- */

static int check_pages_size(const struct walk *walk, size_t layer, const struct pagemap *pagemap)
{
	struct image_store *store = store_of(walk, layer);
	char missing[IMAGE_NAME_SIZE], name[IMAGE_NAME_SIZE];
	struct pages_image *pages;
	int result = pages_image_open(&pages, store, pagemap->pages_id);

	image_file_name(missing, IMAGE_PAGES, pagemap->pages_id);
	image_file_name(name, walk->kind, walk->id);
	if (result == -ENOENT)
		return fail(0, "%s/%s, which %s refers to, is missing", image_store_name(store), missing,
			    name);
	if (result)
		return result;
	if (pages_image_size(pages) < pagemap->size)
		result = fail(EINVAL, "%s is too short: it has %" PRIu64 " bytes, but %s needs %" PRIu64,
			      pages_image_name(pages), pages_image_size(pages), name, pagemap->size);
	pages_image_close(pages);
	return result;
}

static size_t number_of(const struct page_run *stretch, uint64_t address)
{
	return (stretch->offset + (address - stretch->start)) / PAGE_SIZE;
}

static uint64_t address_of(const struct page_run *stretch, size_t number)
{
	return stretch->start + (number * PAGE_SIZE - stretch->offset);
}

/* Takes the pages of an entry, or of a part of it, that no newer layer has: pages [page, end) of a stretch. */
static int take_pages(struct walk *walk, const struct pagemap_entry *entry, size_t layer,
		      const struct page_run *stretch, size_t page, size_t end)
{
	struct page_run run;
	int result = 0;

	for (size_t behind; !result && (page = bits_find(walk->found, page, end, false)) < end;
	     page = behind) {
		behind = bits_find(walk->found, page, end, true);
		run = (struct page_run){
			.start = address_of(stretch, page),
			.count = behind - page,
			.layer = layer,
			.flags = entry->flags & PAGES_LAZY,
		};
		run.offset = entry->offset + (run.start - entry->start);
		bits_set(walk->found, page, behind);
		walk->left -= run.count;
		result = walk->visit(walk->context, &run, walk->pagemap.pages_id, page);
	}
	return result;
}

/* Handles pages [from, end) that are in no entry of a layer. */
static int pass_by(const struct walk *walk, size_t layer, size_t from, size_t end)
{
	const struct page_run *stretch = walk->pages->items;
	size_t page = bits_find(walk->found, from, end, false);

	if (page >= end)
		return 0;
	while (page >= number_of(stretch, page_run_end(stretch)))
		stretch++;
	return fail_absent(walk, layer, address_of(stretch, page));
}

/* Both lists are sorted, so one pass is enough. First, the pages image must be as long as its pagemap requires. */
static int take_entries(struct walk *walk, size_t layer)
{
	const struct pagemap *pagemap = &walk->pagemap;
	const struct page_runs *pages = walk->pages;
	size_t current = 0, told = 0; /* the current stretch; the page up to which the layer has been read */
	bool is_checked = false;
	int result = 0;

	for (size_t i = 0; !result && i < pagemap->count; i++) {
		const struct pagemap_entry *entry = &pagemap->entries[i];
		uint64_t entry_end = entry->start + entry->count * PAGE_SIZE;

		while (current < pages->count && page_run_end(&pages->items[current]) <= entry->start)
			current++;
		for (size_t j = current; !result && j < pages->count && pages->items[j].start < entry_end;
		     j++) {
			const struct page_run *stretch = &pages->items[j];
			size_t page = number_of(stretch, max(stretch->start, entry->start));

			result = pass_by(walk, layer, told, page);
			told = number_of(stretch, min(page_run_end(stretch), entry_end));
			if (result || !(entry->flags & PAGES_PRESENT) ||
			    bits_find(walk->found, page, told, false) == told)
				continue;
			if (!is_checked)
				result = check_pages_size(walk, layer, pagemap);
			is_checked = true;
			if (!result)
				result = take_pages(walk, entry, layer, stretch, page, told);
		}
	}
	return result ?: pass_by(walk, layer, told, walk->page_count);
}

static void want(struct walk *walk, uint64_t start, uint64_t end)
{
	uint64_t count = (end - start) / PAGE_SIZE;

	page_runs_add(
		walk->pages,
		&(struct page_run){ .start = start, .count = count, .offset = walk->page_count * PAGE_SIZE });
	walk->page_count += count;
}

/* The newest layer determines which pages exist. */
static int want_pages(struct walk *walk)
{
	const struct pagemap *pagemap = &walk->pagemap;
	char name[IMAGE_NAME_SIZE];

	for (size_t i = 0; i < pagemap->count; i++) {
		const struct pagemap_entry *entry = &pagemap->entries[i];
		uint64_t end = entry->start + entry->count * PAGE_SIZE;

		if (!walk->only)
			want(walk, entry->start, end);
		for (size_t j = walk->only ? page_runs_find(walk->only, entry->start) : 0;
		     walk->only && j < walk->only->count && walk->only->items[j].start < end; j++)
			want(walk, max(entry->start, walk->only->items[j].start),
			     min(end, page_run_end(&walk->only->items[j])));
	}
	if (walk->page_count > arch_task_size() / PAGE_SIZE)
		return fail(EINVAL, "%s/%s lists more pages than an address space has",
			    image_store_name(store_of(walk, 0)), image_file_name(name, walk->kind, walk->id));
	walk->left = walk->page_count;
	walk->found = allocate_array(BITS_WORDS(walk->page_count), sizeof(*walk->found));
	return 0;
}

static int take_layer(struct walk *walk, size_t layer)
{
	int result;

	if (layer == page_chain_length(walk->chain))
		return pass_by(walk, layer, 0, walk->page_count);
	result = pagemap_read(&walk->pagemap, store_of(walk, layer), walk->kind, walk->id);
	if (result == -ENOENT && layer)
		return pass_by(walk, layer, 0, walk->page_count);
	if (!result && !layer)
		result = want_pages(walk);
	return result ?: take_entries(walk, layer);
}

int page_stack_walk(struct page_chain *chain, enum image_kind kind, unsigned long id,
		    const struct page_runs *only, struct page_runs *pages, page_visitor *visit, void *context)
{
	struct walk walk = { .chain = chain,
			     .kind = kind,
			     .id = id,
			     .only = only,
			     .pages = pages,
			     .visit = visit,
			     .context = context };
	int result = take_layer(&walk, 0);

	for (size_t layer = 1; !result && walk.left; layer++)
		result = take_layer(&walk, layer);
	free(walk.found);
	pagemap_free(&walk.pagemap);
	return result;
}

/* ---- all of them ---- */

/* For the layer behind the last one: the end of all. */
static size_t start_of_layer(const struct page_stack *stack, size_t layer)
{
	return layer < stack->layer_count ? stack->layers[layer].first : stack->by_layer.count;
}

static bool has_runs(const struct page_stack *stack, size_t layer)
{
	return page_stack_layer(stack, layer).count != 0;
}

/* Merges two adjacent sorted stretches of `from` into one of `to`. */
static void merge(struct page_run *to, const struct page_run *from, size_t start, size_t middle, size_t end)
{
	size_t left = start, right = middle;

	for (size_t i = start; i < end; i++)
		to[i] = left < middle && (right == end || from[left].start < from[right].start) ?
				from[left++] :
				from[right++];
}

/* Each layer is sorted: pairs of layers are merged, then pairs of pairs. Returns a new array. */
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

/* Nearly always there is only one layer, or only one with pages: then both orders are the same. */
static void sort_runs(struct page_stack *stack)
{
	size_t layers = 0;

	for (size_t i = 0; i < stack->layer_count; i++)
		layers += has_runs(stack, i);
	stack->runs = stack->by_layer;
	if (layers > 1)
		stack->runs.items = merge_layers(stack);
}

/* A page_visitor. Layers in between without visible pages have no runs. */
static int list(void *context, const struct page_run *run, uint32_t pages_id, uint64_t number unused)
{
	struct page_stack *stack = context;

	while (stack->layer_count <= run->layer)
		*grow(&stack->layers, &stack->layer_count) =
			(struct stack_layer){ .pages_id = pages_id, .first = stack->by_layer.count };
	page_runs_add(&stack->by_layer, run);
	return 0;
}

int page_stack_open(struct page_stack *stack, struct page_chain *chain, enum image_kind kind,
		    unsigned long id)
{
	struct page_runs pages = { 0 };
	int result;

	*stack = (struct page_stack){ .chain = chain };
	result = page_stack_walk(chain, kind, id, NULL, &pages, list, stack);
	page_runs_free(&pages);
	if (result)
		page_stack_close(stack);
	else
		sort_runs(stack);
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

int page_stack_read_range(const struct page_stack *stack, uint64_t start, uint64_t count, void *buffer)
{
	uint64_t end = start + count * PAGE_SIZE;
	int result = 0;

	memset(buffer, 0, count * PAGE_SIZE);
	for (size_t i = page_runs_find(&stack->runs, start);
	     !result && i < stack->runs.count && stack->runs.items[i].start < end; i++) {
		const struct page_run *run = &stack->runs.items[i];
		uint64_t from = max(run->start, start), to = min(page_run_end(run), end);

		result = page_stack_read(stack, run->layer, (char *)buffer + (from - start),
					 (to - from) / PAGE_SIZE, run->offset + (from - run->start));
	}
	return result;
}

void page_stack_ahead(const struct page_stack *stack, size_t layer, uint64_t offset, uint64_t size)
{
	page_chain_ahead(stack->chain, layer, stack->layers[layer].pages_id, offset, size);
}
