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

uint64_t page_runs_total(const struct page_runs *runs)
{
	uint64_t total = 0;

	for (size_t i = 0; i < runs->count; i++)
		total += runs->items[i].count;
	return total;
}
