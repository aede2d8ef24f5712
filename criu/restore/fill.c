/*
 * fill.c - puts the pages that the images hold into a newborn's private memory, before its children are born.
 *
 * New memory is read into straight away. Inherited memory is compared first, and only pages that differ are written: the others
 * stay shared with the parent.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "base/error.h"
#include "base/memory.h"
#include "restore/space.h"

#define COMPARED_PAGES 64 /* at a time, of inherited memory */

static int drop(const struct vma *vma, uint64_t start, uint64_t end)
{
	if (start < end && madvise(at(vma->place + (start - vma->start)), end - start, MADV_DONTNEED) < 0)
		return fail(errno, "cannot drop inherited pages at %#llx", (unsigned long long)start);
	return 0;
}

/* Pages that the parent has, too: only those that differ are written, so the others stay shared. */
static int fill_inherited(const struct page_layer *layer, char *place, uint64_t count, uint64_t offset,
			  char *buffer)
{
	for (uint64_t done = 0, take; done < count; done += take) {
		int result;

		take = min(count - done, (uint64_t)COMPARED_PAGES);
		result = page_layer_read(layer, buffer, take, offset + done * PAGE_SIZE);
		if (result)
			return result;
		for (uint64_t page = 0; page < take; page++) {
			char *ours = place + (done + page) * PAGE_SIZE, *theirs = buffer + page * PAGE_SIZE;

			if (memcmp(ours, theirs, PAGE_SIZE))
				memcpy(ours, theirs, PAGE_SIZE);
		}
	}
	return 0;
}

static int fill_area(const struct page_layer *layer, const struct vma *vma, char *buffer, uint64_t *pages)
{
	uint64_t filled = vma->start; /* inherited pages up to here are right */
	int result = 0;

	for (size_t i = page_runs_find(&layer->runs, vma->start);
	     !result && i < layer->runs.count && layer->runs.items[i].start < vma->end; i++) {
		const struct page_run *run = &layer->runs.items[i];
		uint64_t start = max(run->start, vma->start), end = min(page_run_end(run), vma->end);
		uint64_t count = (end - start) / PAGE_SIZE, offset = run->offset + (start - run->start);
		char *place = at(vma->place + (start - vma->start));

		if (vma->is_inherited)
			result = drop(vma, filled, start) ?:
							    fill_inherited(layer, place, count, offset, buffer);
		else
			result = page_layer_read(layer, place, count, offset);
		filled = end;
		*pages += count;
	}
	return result || !vma->is_inherited ? result : drop(vma, filled, vma->end);
}

static bool has_pages(const struct page_layer *layer, const struct vma *vma)
{
	size_t first = page_runs_find(&layer->runs, vma->start);

	return first < layer->runs.count && layer->runs.items[first].start < vma->end;
}

static int protect(const struct vma *vma, int protection)
{
	if (mprotect(at(vma->place), vma_length(vma), protection) < 0)
		return fail(errno, "cannot change the protection at %#llx", (unsigned long long)vma->start);
	return 0;
}

int space_fill(const struct task *task, uint64_t *pages)
{
	const struct page_layer *layer = &task->newborn->memory;
	autofree char *buffer = allocate(COMPARED_PAGES * PAGE_SIZE);
	int result = 0;

	for (size_t i = 0; !result && i < task->vmas.count; i++) {
		const struct vma *vma = &task->vmas.items[i];
		bool is_open = (vma->protection & (PROT_READ | PROT_WRITE)) == (PROT_READ | PROT_WRITE);

		if (!is_mapped_by_us(vma) || !vma_is_private(vma) ||
		    (!vma->is_inherited && !has_pages(layer, vma)))
			continue;
		if (!is_open && has_pages(layer, vma))
			result = protect(vma, PROT_READ | PROT_WRITE);
		result = result ?: fill_area(layer, vma, buffer, pages);
		if (!result && (!is_open || vma->is_inherited))
			result = protect(vma, vma->protection);
	}
	return result;
}
