/*
 * runs.h - runs of consecutive pages with one source, and arrays of them. It makes no system call.
 */
#ifndef CRIU_MEMORY_RUNS_H
#define CRIU_MEMORY_RUNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "compiler.h"

struct page_run {
	uint64_t start;	 /* address (of shared memory: offset) of the first page, bytes */
	uint64_t count;	 /* pages */
	uint64_t offset; /* in the pages image, bytes … */
	uint32_t layer;	 /* … of this directory of a chain; 0: this one */
	uint32_t flags;	 /* of a pagemap entry: PAGES_LAZY */
};

struct page_runs {
	struct page_run *items; /* sorted by start, disjoint */
	size_t count;
};

static inline uint64_t page_run_end(const struct page_run *run)
{
	return run->start + run->count * PAGE_SIZE;
}

/*
 * Appends pages behind the last run. They are merged with it if they follow it, in memory and in the image, and are of
 * the same kind.
 */
void page_runs_add(struct page_runs *runs, const struct page_run *run);
/*
 * Adds pages of memory whose place in an image is not known yet. Adjacent ones are merged: with offsets equal to
 * addresses, pages that follow in memory follow in the image, too.
 */
void page_runs_add_range(struct page_runs *runs, uint64_t start, uint64_t end);
void page_runs_free(struct page_runs *runs);
/* The index of the first run that ends behind `address`; runs->count if there is none. */
size_t page_runs_find(const struct page_runs *runs, uint64_t address);
/* The number of pages in [start, end). */
uint64_t page_runs_within(const struct page_runs *runs, uint64_t start, uint64_t end);
/* The part of a run that is in a range. */
struct page_piece {
	uint64_t start, size; /* bytes */
	uint64_t offset;      /* in the pages image */
};

/*
 * Returns the pieces of runs in [start, end), one for each call: *next is the run to look at, at first
 * page_runs_find(runs, start), and is advanced. false: no more.
 */
bool page_runs_next_piece(const struct page_runs *runs, uint64_t start, uint64_t end, size_t *next,
			  struct page_piece *piece);
uint64_t page_runs_total(const struct page_runs *runs); /* pages */

/*
 * Computes the content of a snapshot with a parent, in ascending order: layer 0 is to be saved, layer 1 is left to the
 * parent. `changed` and `unchanged` are the task's pages; they do not overlap. Unchanged pages that the parent does not
 * have are saved: only pages that the parent has are left to it.
 */
void page_runs_plan(const struct page_runs *changed, const struct page_runs *unchanged,
		    const struct page_runs *parent, struct page_runs *plan);

#endif
