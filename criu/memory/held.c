/*
 * held.c - see held.h.
 */
#include <stdlib.h>
#include "base/memory.h"
#include "memory/held.h"

/* Pages of one writer, and of all. */
#define SMALL	  ((1536UL << 10) / PAGE_SIZE)
#define MOST_HELD ((128UL << 20) / PAGE_SIZE)

bool held_writers_add(struct held_writers *held, struct page_writer *writer, uint64_t pages)
{
	if (pages > SMALL || held->pages + pages > MOST_HELD)
		return false;
	held->pages += pages;
	*grow(&held->items, &held->count) = writer;
	return true;
}

int held_writers_close(struct held_writers *held, int result)
{
	for (size_t i = 0; i < held->count; i++)
		result = page_writer_close(held->items[i], result);
	free(held->items);
	*held = (struct held_writers){ 0 };
	return result;
}
