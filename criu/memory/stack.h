/*
 * stack.h - the memory of one task, or one shared memory, as a whole chain of snapshots holds it.
 *
 * A snapshot's pagemap tells that a page is here, or in the parent; a page that is in no entry does not exist, whatever
 * the parent has:
 *
 *	first, 1      03:3         0B:6               18:4          03 04 05 0B…10 18 19 1A 1B are here
 *	second, 0     03:2:P 05:1  0B:4:P 0F:3   17:2     19:3:P    05 0F 10 11 17 18 are here
 *	              ----------------------------------------------
 *	the stack     03:2@1 05:1@0 0B:4@1 0F:3@0 17:2@0 19:3@1
 *
 * All layers are read once, from the newest to the oldest, with the pages that are still missing, so the work is
 * proportional to the number of entries. A page that is left to a parent and found nowhere is an error, before anything
 * is created from it.
 */
#ifndef CRIU_MEMORY_STACK_H
#define CRIU_MEMORY_STACK_H

#include "memory/chain.h"
#include "memory/runs.h"

/*
 * Pages that follow each other, in memory and in pages-<pages_id>.img of a layer. `number` is the index of the first
 * one if all pages of the stack were in one image. A non-zero result ends the walk.
 */
typedef int page_visitor(void *context, const struct page_run *run, uint32_t pages_id, uint64_t number)
	must_check;

/*
 * Visits the places of the pages (those of `only`; NULL: all): layer by layer from the newest on, by address in each.
 * Adds them to *pages with their offsets in that one image; the memory that the walk needs does not grow with the
 * chain. -ENOENT (not recorded): the newest layer has no such image.
 */
int page_stack_walk(struct page_chain *chain, enum image_kind kind, unsigned long id,
		    const struct page_runs *only, struct page_runs *pages, page_visitor *visit, void *context)
	must_check;

struct page_stack {
	struct page_runs runs;	   /* by address: sorted, disjoint, final; with layer and offset */
	struct page_runs by_layer; /* the same, by layer and then by address: the order on the disk */
	struct page_chain *chain;  /* not owned */
	struct stack_layer {
		uint32_t pages_id;
		size_t first; /* index of its first run in by_layer */
	} * layers;	      /* up to the last one with visible pages */
	size_t layer_count;
};

/* Keeps the result of a whole walk. To be closed in any case. */
int page_stack_open(struct page_stack *stack, struct page_chain *chain, enum image_kind kind,
		    unsigned long id) must_check;
void page_stack_close(struct page_stack *stack);

/* The runs of one layer; nothing to be freed. Reading in this order is fast: sequential in the same image. */
struct page_runs page_stack_layer(const struct page_stack *stack, size_t layer);

/* Reads `count` pages of a layer with visible pages, from `offset` on. */
int page_stack_read(const struct page_stack *stack, size_t layer, void *buffer, uint64_t count,
		    uint64_t offset) must_check;
/* The same, into `count` buffers (the vectors are changed). */
int page_stack_read_into(const struct page_stack *stack, size_t layer, struct iovec *places, int count,
			 uint64_t offset) must_check;
/* Reads `count` pages from address `start` on, in whatever layers they are; missing pages become zeros. */
int page_stack_read_range(const struct page_stack *stack, uint64_t start, uint64_t count, void *buffer)
	must_check;
/* Announces pages that will be read soon. */
void page_stack_ahead(const struct page_stack *stack, size_t layer, uint64_t offset, uint64_t size);

#endif
