/*
 * stack.c - which layer of a chain has which page: one walk from the newest to the oldest. See stack.h.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/memory.h"
#include "base/spans.h"
#include "memory/pagemap.h"
#include "memory/stack.h"

/* Which images of each layer a walk reads. */
struct walk {
	struct page_stack *stack;
	enum image_kind kind;
	unsigned long id;
	/* What no layer up to now has, and the next must; there is room for what will be added. */
	struct spans wanted;
	struct spans spare; /* the other one: they take turns */
	size_t room, spare_room;
};

static void want(struct spans *wanted, uint64_t start, uint64_t end)
{
	if (wanted->count && wanted->items[wanted->count - 1].end == start)
		wanted->items[wanted->count - 1].end = end;
	else
		wanted->items[wanted->count++] = (struct span){ start, end };
}

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

/* Takes what is wanted from [*at…end) and lies in one entry; *at is behind it then. */
static void take_piece(struct page_stack *stack, const struct pagemap_entry *entry, size_t layer,
		       uint64_t *at, uint64_t end, struct spans *wanted)
{
	struct page_run piece = {
		.start = *at,
		.layer = layer,
		.offset = entry->offset + (*at - entry->start),
		.flags = entry->flags & PAGES_LAZY,
	};

	*at = min(end, entry->start + entry->count * PAGE_SIZE);
	piece.count = (*at - piece.start) / PAGE_SIZE;
	if (entry->flags & PAGES_PRESENT)
		page_runs_add(&stack->by_layer, &piece);
	else
		want(wanted, piece.start, *at);
}

/* What was wanted up to now; walk->wanted is empty then. Each entry, and each end of a span, begins at most one piece. */
static struct spans take_turns(struct walk *walk, size_t entries)
{
	struct spans wanted = walk->wanted, spare = walk->spare;
	size_t needed = wanted.count + entries, room = walk->spare_room;

	if (room < needed) {
		spans_free(&spare);
		room = needed;
		spare.items = allocate_array(room, sizeof(*spare.items));
	}
	walk->spare = wanted;
	walk->spare_room = walk->room;
	walk->wanted = (struct spans){ spare.items, 0 };
	walk->room = room;
	return wanted;
}

/* Both are sorted: they are gone through side by side. What is the parent's is wanted from then on. */
static int take_wanted(struct walk *walk, size_t layer, const struct pagemap *pagemap)
{
	const struct pagemap_entry *entry = pagemap->entries, *end = entry + pagemap->count;
	struct spans wanted = take_turns(walk, pagemap->count);
	int result = 0;

	for (size_t i = 0; !result && i < wanted.count; i++) {
		uint64_t at = wanted.items[i].start;

		while (at < wanted.items[i].end) {
			while (entry < end && entry->start + entry->count * PAGE_SIZE <= at)
				entry++;
			if (entry == end || entry->start > at) {
				result = fail_absent(walk, layer, at);
				break;
			}
			take_piece(walk->stack, entry, layer, &at, wanted.items[i].end, &walk->wanted);
		}
	}
	return result;
}

/* Of the newest layer, that is, for which nobody has said yet what is wanted. */
static void want_all(struct walk *walk, const struct pagemap *pagemap)
{
	take_turns(walk, pagemap->count);
	for (size_t i = 0; i < pagemap->count; i++)
		want(&walk->wanted, pagemap->entries[i].start,
		     pagemap->entries[i].start + pagemap->entries[i].count * PAGE_SIZE);
}

static int take_layer(struct walk *walk, size_t layer)
{
	struct page_stack *stack = walk->stack;
	struct pagemap pagemap;
	int result;

	if (layer == page_chain_length(stack->chain))
		return fail_absent(walk, layer, walk->wanted.items[0].start);
	result = pagemap_read(&pagemap, store_of(walk, layer), walk->kind, walk->id);
	if (result == -ENOENT && layer)
		result = fail_absent(walk, layer, walk->wanted.items[0].start);
	if (!result && !layer)
		want_all(walk, &pagemap);
	if (!result) {
		*grow(&stack->layers, &stack->layer_count) =
			(struct stack_layer){ .pages_id = pagemap.pages_id, .first = stack->by_layer.count };
		result = take_wanted(walk, layer, &pagemap);
	}
	if (!result && has_runs(stack, layer))
		result = check_pages(walk, layer, &pagemap);
	pagemap_free(&pagemap);
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
	struct page_run *from = allocate_array(count, sizeof(*from)),
			*to = allocate_array(count, sizeof(*to));

	memcpy(from, stack->by_layer.items, count * sizeof(*from));
	for (size_t width = 1; width < stack->layer_count; width *= 2) {
		struct page_run *merged = to;

		for (size_t layer = 0; layer < stack->layer_count; layer += 2 * width)
			merge(to, from, start_of_layer(stack, layer), start_of_layer(stack, layer + width),
			      start_of_layer(stack, layer + 2 * width));
		to = from;
		from = merged;
	}
	free(to);
	return from;
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
	for (size_t layer = 1; !result && walk.wanted.count; layer++)
		result = take_layer(&walk, layer);
	spans_free(&walk.wanted);
	spans_free(&walk.spare);
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

void page_stack_ahead(const struct page_stack *stack, size_t layer, uint64_t offset, uint64_t size)
{
	page_chain_ahead(stack->chain, layer, stack->layers[layer].pages_id, offset, size);
}
