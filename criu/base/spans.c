/*
 * spans.c - ranges of addresses. See spans.h.
 */
#include <stdlib.h>
#include "base/memory.h"
#include "base/spans.h"

void spans_add(struct spans *spans, uint64_t start, uint64_t end)
{
	*grow(&spans->items, &spans->count) = (struct span){ start, end };
}

static int compare_spans(const void *left, const void *right)
{
	const struct span *a = left, *b = right;

	return a->start < b->start ? -1 : a->start > b->start;
}

void spans_sort(struct spans *spans)
{
	if (spans->count)
		qsort(spans->items, spans->count, sizeof(*spans->items), compare_spans);
}

void spans_free(struct spans *spans)
{
	free(spans->items);
	*spans = (struct spans){ 0 };
}
