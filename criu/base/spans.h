/*
 * spans.h - ranges of addresses, collected in any order and then sorted.
 */
#ifndef CRIU_BASE_SPANS_H
#define CRIU_BASE_SPANS_H

#include <stddef.h>
#include <stdint.h>

struct span {
	uint64_t start, end;
};

struct spans {
	struct span *items;
	size_t count;
};

void spans_add(struct spans *spans, uint64_t start, uint64_t end);
void spans_sort(struct spans *spans); /* by start; they may overlap */
void spans_free(struct spans *spans);

#endif
