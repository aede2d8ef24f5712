/*
 * runs.h - consecutive pages with one source, and arrays of them. Pure: no system call is made here.
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

/* Appends pages behind the last run; joins them with it if they follow it, in memory and in the image, and are of its kind. */
void page_runs_add(struct page_runs *runs, const struct page_run *run);
/*
 * Pages of memory, of which nobody knows yet where they lie in an image. Neighbours are joined: with offsets equal to addresses, what
 * follows in memory follows in the image, too.
 */
void page_runs_add_range(struct page_runs *runs, uint64_t start, uint64_t end);
void page_runs_free(struct page_runs *runs);
/* The first run that ends behind `address`; runs->count if there is none. */
size_t page_runs_find(const struct page_runs *runs, uint64_t address);
/* Pages in [start, end). */
uint64_t page_runs_within(const struct page_runs *runs, uint64_t start, uint64_t end);
/* The part of a run that lies in some range. */
struct page_piece {
	uint64_t start, size; /* bytes */
	uint64_t offset;      /* in the pages image */
};

/*
 * Pieces of runs in [start, end), one a call: *next is the run to look at, at first page_runs_find(runs, start), and is moved on. false:
 * there is no more.
 */
bool page_runs_next_piece(const struct page_runs *runs, uint64_t start, uint64_t end, size_t *next,
			  struct page_piece *piece);
uint64_t page_runs_total(const struct page_runs *runs); /* pages */

/*
 * What a snapshot with a parent is made of, in ascending order: in layer 0 what is to be saved, in layer 1 what the parent has.
 * `changed` and `unchanged` are what the task has; they do not overlap. What is unchanged and not the parent's is saved: a promise
 * is only made where the parent keeps it.
 */
void page_runs_plan(const struct page_runs *changed, const struct page_runs *unchanged,
		    const struct page_runs *parent, struct page_runs *plan);

#endif
