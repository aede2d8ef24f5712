/*
 * search.h - binary search in arrays that are sorted by an address, which is the first member of each item.
 */
#ifndef CRIU_BASE_SEARCH_H
#define CRIU_BASE_SEARCH_H

#include <stddef.h>
#include <stdint.h>

/* The index of the first of `count` items of `size` bytes whose address is `address` or above, or `count`. */
static inline size_t search_address(const void *items, size_t count, size_t size, uint64_t address)
{
	size_t low = 0, high = count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (*(const uint64_t *)((const char *)items + middle * size) < address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

#endif
