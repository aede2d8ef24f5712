/*
 * runs.c - arrays of page runs. See runs.h.
 */
#include <stdlib.h>
#include "base/memory.h"
#include "memory/runs.h"

void page_runs_add(struct page_runs *runs, const struct page_run *run)
{
	struct page_run *last = runs->count ? &runs->items[runs->count - 1] : NULL;

	if (last && page_run_end(last) == run->start && last->layer == run->layer &&
	    last->flags == run->flags && last->offset + last->count * PAGE_SIZE == run->offset)
		last->count += run->count;
	else
		*grow(&runs->items, &runs->count) = *run;
}

void page_runs_add_range(struct page_runs *runs, uint64_t start, uint64_t end)
{
	page_runs_add(runs, &(struct page_run){
				    .start = start, .count = (end - start) / PAGE_SIZE, .offset = start });
}

void page_runs_free(struct page_runs *runs)
{
	free(runs->items);
	*runs = (struct page_runs){ 0 };
}

size_t page_runs_find(const struct page_runs *runs, uint64_t address)
{
	size_t low = 0, high = runs->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (page_run_end(&runs->items[middle]) <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

uint64_t page_runs_within(const struct page_runs *runs, uint64_t start, uint64_t end)
{
	uint64_t pages = 0;

	for (size_t i = page_runs_find(runs, start); i < runs->count && runs->items[i].start < end; i++)
		pages += (min(page_run_end(&runs->items[i]), end) - max(runs->items[i].start, start)) /
			 PAGE_SIZE;
	return pages;
}

bool page_runs_next_piece(const struct page_runs *runs, uint64_t start, uint64_t end, size_t *next,
			  struct page_piece *piece)
{
	const struct page_run *run = *next < runs->count ? &runs->items[*next] : NULL;

	if (!run || run->start >= end)
		return false;
	piece->start = max(run->start, start);
	piece->size = min(page_run_end(run), end) - piece->start;
	piece->offset = run->offset + (piece->start - run->start);
	++*next;
	return true;
}

uint64_t page_runs_total(const struct page_runs *runs)
{
	uint64_t total = 0;

	for (size_t i = 0; i < runs->count; i++)
		total += runs->items[i].count;
	return total;
}

static void add_planned(struct page_runs *plan, uint64_t start, uint64_t end, uint32_t layer)
{
	if (start < end)
		page_runs_add(plan, &(struct page_run){ .start = start,
							.count = (end - start) / PAGE_SIZE,
							.layer = layer,
							.offset = start });
}

static void plan_unchanged(const struct page_run *run, const struct page_runs *parent, size_t *next,
			   struct page_runs *plan)
{
	uint64_t cursor = run->start, end = page_run_end(run);

	while (*next < parent->count && page_run_end(&parent->items[*next]) <= cursor)
		++*next;
	for (size_t i = *next; i < parent->count && parent->items[i].start < end; i++) {
		uint64_t from = max(parent->items[i].start, cursor);
		uint64_t to = min(page_run_end(&parent->items[i]), end);

		add_planned(plan, cursor, from, 0);
		add_planned(plan, from, to, 1);
		cursor = to;
	}
	add_planned(plan, cursor, end, 0);
}

void page_runs_plan(const struct page_runs *changed, const struct page_runs *unchanged,
		    const struct page_runs *parent, struct page_runs *plan)
{
	size_t next_changed = 0,
	       next = unchanged->count ? page_runs_find(parent, unchanged->items[0].start) : 0;

	for (size_t i = 0; i < unchanged->count || next_changed < changed->count;) {
		const struct page_run *run = &changed->items[next_changed];

		if (next_changed < changed->count &&
		    (i == unchanged->count || run->start < unchanged->items[i].start)) {
			add_planned(plan, run->start, page_run_end(run), 0);
			next_changed++;
		} else {
			plan_unchanged(&unchanged->items[i++], parent, &next, plan);
		}
	}
}
