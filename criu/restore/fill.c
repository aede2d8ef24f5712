/*
 * fill.c - puts the pages of the images into a newborn's private memory, before its children are created.
 *
 * New memory is read into directly (fill_new.c). Inherited memory is compared first, and only pages that differ are
 * written: the others stay shared with the parent. Protections are lifted before, and set afterwards.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include "base/error.h"
#include "base/memory.h"
#include "restore/space.h"

#define COMPARED_PAGES 64 /* at a time */

/* ---- inherited memory ---- */

int space_drop(const struct vma *vma, uint64_t start, uint64_t end)
{
	if (start < end && madvise(at(vma->place + (start - vma->start)), end - start, MADV_DONTNEED) < 0)
		return fail(errno, "cannot drop inherited pages at %#llx", (unsigned long long)start);
	return 0;
}

/* Drops pages that the parent has and the images do not. */
static int drop_others(const struct page_runs *runs, const struct vma *vma)
{
	size_t next = page_runs_find(runs, vma->start);
	uint64_t right = vma->start; /* pages are right up to here */
	struct page_piece piece;
	int result = 0;

	while (!result && page_runs_next_piece(runs, vma->start, vma->end, &next, &piece)) {
		result = space_drop(vma, right, piece.start);
		right = piece.start + piece.size;
	}
	return result ?: space_drop(vma, right, vma->end);
}

/* For pages that the parent has, too: writes only those that differ, so the others stay shared. */
static int fill_compared(const struct page_stack *stack, size_t layer, const struct vma *vma,
			 const struct page_piece *piece, char *buffer)
{
	char *place = at(vma->place + (piece->start - vma->start));

	for (uint64_t done = 0, take; done < piece->size; done += take) {
		int result;

		take = min(piece->size - done, COMPARED_PAGES * PAGE_SIZE);
		result = page_stack_read(stack, layer, buffer, take / PAGE_SIZE, piece->offset + done);
		if (result)
			return result;
		for (uint64_t page = 0; page < take; page += PAGE_SIZE)
			if (memcmp(place + done + page, buffer + page, PAGE_SIZE))
				memcpy(place + done + page, buffer + page, PAGE_SIZE);
	}
	return 0;
}

static int fill_inherited(const struct page_stack *stack, const struct vma *vma, char *buffer)
{
	int result = drop_others(&stack->runs, vma);

	for (size_t layer = 0; !result && layer < stack->layer_count; layer++) {
		struct page_runs runs = page_stack_layer(stack, layer);
		size_t next = page_runs_find(&runs, vma->start);
		struct page_piece piece;

		while (!result && page_runs_next_piece(&runs, vma->start, vma->end, &next, &piece))
			result = fill_compared(stack, layer, vma, &piece, buffer);
	}
	return result;
}

/* ---- all ---- */

static bool is_open(const struct vma *vma)
{
	return (vma->protection & (PROT_READ | PROT_WRITE)) == (PROT_READ | PROT_WRITE);
}

static bool has_pages(const struct page_stack *stack, const struct vma *vma)
{
	size_t first = page_runs_find(&stack->runs, vma->start);

	return first < stack->runs.count && stack->runs.items[first].start < vma->end;
}

/* Are pages written to it, or dropped from it? */
static bool is_touched(const struct page_stack *stack, const struct vma *vma)
{
	return is_mapped_by_us(vma) && vma_has_own_pages(vma) && !vma->is_held &&
	       (vma->is_inherited || has_pages(stack, vma));
}

int space_protect(const struct vma *vma, int protection)
{
	if (mprotect(at(vma->place), vma_length(vma), protection) < 0)
		return fail(errno, "cannot change the protection at %#llx", (unsigned long long)vma->start);
	return 0;
}

static int open_all(const struct task *task)
{
	const struct page_stack *stack = &task->newborn->memory;
	int result = 0;

	for (size_t i = 0; !result && i < task->space->vmas.count; i++) {
		const struct vma *vma = &task->space->vmas.items[i];

		if (is_touched(stack, vma) && has_pages(stack, vma) && (vma->is_inherited || !is_open(vma)))
			result = space_protect(vma, PROT_READ | PROT_WRITE);
	}
	return result;
}

static int protect_all(const struct task *task)
{
	const struct page_stack *stack = &task->newborn->memory;
	int result = 0;

	for (size_t i = 0; !result && i < task->space->vmas.count; i++) {
		const struct vma *vma = &task->space->vmas.items[i];

		if (is_touched(stack, vma) && (vma->is_inherited || !is_open(vma)))
			result = space_protect(vma, protection_while_made(vma));
	}
	return result;
}

int space_fill(const struct restore *restore, const struct task *task, uint64_t *pages)
{
	const struct page_stack *stack = &task->newborn->memory;
	autofree char *buffer = reallocate_array(NULL, COMPARED_PAGES,
						 PAGE_SIZE); /* untouched until it is needed */
	int result = open_all(task);

	for (size_t i = 0; !result && i < task->space->vmas.count; i++) {
		const struct vma *vma = &task->space->vmas.items[i];

		if (vma->flags & MAP_HUGETLB && is_mapped_by_us(vma) && vma_has_own_pages(vma))
			result = space_fill_huge(stack, vma);
		else if (vma->is_inherited)
			result = fill_inherited(stack, vma, buffer);
	}
	if (!result)
		result = space_make_huge(restore, task);
	if (!result && stack->runs.count)
		result = space_fill_new(restore, task);
	*pages += page_runs_total(&stack->runs);
	page_chain_rest(stack->chain);
	return result ?: protect_all(task);
}
