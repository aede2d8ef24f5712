/*
 * huge.c - huge pages (hugetlb) in a restore: checks that there are enough, and provides them for private memory.
 *
 * A mapping reserves its pages when it is created (unless MAP_NORESERVE), so mmap() fails if not enough are free. A
 * mapping that is inherited over fork() reserves nothing: a write that finds no free page is a SIGBUS. So
 * MADV_POPULATE_WRITE (Linux 5.14) requests the pages before anything is written.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include "base/error.h"
#include "base/memory.h"
#include "base/spans.h"
#include "kernel_constants.h"
#include "memory/huge.h"
#include "memory/memfd.h"
#include "restore/space.h"

#define COMPARED_PAGES 64 /* at a time */

/* ---- are there enough? ---- */

/* The need for one size. */
struct need {
	uint64_t page_size;
	uint64_t pages;
};

struct needs {
	struct need *items;
	size_t count;
};

static void add_need(struct needs *needs, uint64_t page_size, uint64_t bytes)
{
	struct need *need = NULL;

	for (size_t i = 0; i < needs->count; i++)
		if (needs->items[i].page_size == page_size)
			need = &needs->items[i];
	if (!need) {
		need = grow(&needs->items, &needs->count);
		need->page_size = page_size;
	}
	need->pages += bytes / page_size;
}

/* Adds the huge pages that contain the runs, within [start, end). */
static void add_runs(struct spans *spans, const struct page_runs *runs, uint64_t start, uint64_t end,
		     uint64_t page_size)
{
	for (size_t i = page_runs_find(runs, start); i < runs->count && runs->items[i].start < end; i++)
		spans_add(spans, round_down(max(runs->items[i].start, start), page_size),
			  round_up(min(page_run_end(&runs->items[i]), end), page_size));
}

/* The number of bytes in at least one span. */
static uint64_t count_spans(struct spans *spans)
{
	uint64_t bytes = 0, from = 0;

	spans_sort(spans);
	for (size_t i = 0; i < spans->count; i++) {
		from = max(from, spans->items[i].start);
		if (spans->items[i].end > from)
			bytes += spans->items[i].end - from;
		from = max(from, spans->items[i].end);
	}
	spans_free(spans);
	return bytes;
}

/* Pages that a child inherits take nothing from the pool until parent or child writes to them. */
static uint64_t count_inherited(const struct task *task, const struct vma *vma)
{
	const struct task *parent = memory_origin(task);
	const struct vmas *theirs = parent ? &parent->space->vmas : NULL;
	uint64_t bytes = 0;

	for (size_t i = 0; theirs && i < theirs->count; i++) {
		const struct vma *other = &theirs->items[i];
		uint64_t start = max(other->start, vma->start), end = min(other->end, vma->end);

		if (start < end && !(other->status & VMA_GUARD_RANGE) && space_is_continued(other, vma))
			bytes += end - start;
	}
	return bytes;
}

static void count_private(struct needs *needs, const struct task *task)
{
	for (size_t i = 0; i < task->space->vmas.count; i++) {
		const struct vma *vma = &task->space->vmas.items[i];
		uint64_t page_size = vma_page_size(vma), inherited;
		struct spans present = { 0 };

		if (!(vma->flags & MAP_HUGETLB) || !vma_has_own_pages(vma))
			continue;
		inherited = count_inherited(task, vma);
		if (!(vma->flags & MAP_NORESERVE)) {
			add_need(needs, page_size, vma_length(vma) - inherited);
		} else if (!inherited) {
			add_runs(&present, &task->newborn->memory.runs, vma->start, vma->end, page_size);
			add_need(needs, page_size, count_spans(&present));
		}
	}
}

static const struct shared_memory *object_of(const struct snapshot *snapshot, const struct vma *vma)
{
	const struct file *file = vma->status & VMA_MEMFD ? snapshot_find_file(snapshot, vma->object) : NULL;

	if (vma->status & VMA_ANON_SHARED)
		return shared_memory_find((struct snapshot *)snapshot, vma->object);
	return file && vma->status & VMA_FILE_SHARED ? memfd_find(snapshot, file->entry->memfd->inode_id) :
						       NULL;
}

/* Counts pages in the images, and those that mappings reserve. */
static int count_shared(struct needs *needs, const struct snapshot *snapshot, struct page_chain *chain,
			const struct shared_memory *object)
{
	struct spans spans = { 0 };
	struct page_stack stack;
	const struct task *task;
	int result = page_stack_open(&stack, chain, IMAGE_SHMEM_PAGEMAP, object->id);

	if (result && result != -ENOENT)
		return result;
	add_runs(&spans, &stack.runs, 0, object->size, object->page_size);
	page_stack_close(&stack);
	for_each_leader (task, snapshot, OBJECT_MEMORY)
		for (size_t i = 0; i < task->space->vmas.count; i++) {
			const struct vma *vma = &task->space->vmas.items[i];

			if (vma->flags & MAP_HUGETLB && !(vma->flags & MAP_NORESERVE) &&
			    object_of(snapshot, vma) == object)
				spans_add(&spans, vma->offset, vma->offset + vma_length(vma));
		}
	add_need(needs, object->page_size, count_spans(&spans));
	return 0;
}

static int check_need(const struct need *need)
{
	unsigned long long kilobytes = need->page_size >> 10, found = 0;
	int result = huge_pool_free(need->page_size, (uint64_t *)&found);

	if (result)
		return fail(
			-result,
			"the processes have memory in huge pages of %llu KiB, but this host has no pages of this size",
			kilobytes);
	if (need->pages <= found)
		return 0;
	fail_advice("echo %llu more > /sys/kernel/mm/hugepages/hugepages-%llukB/nr_hugepages",
		    (unsigned long long)need->pages - found, kilobytes);
	return fail(ENOMEM, "the processes need %" PRIu64 " huge pages of %llu KiB, but only %llu are free",
		    need->pages, kilobytes, found);
}

int restore_check_huge_pages(const struct snapshot *snapshot, struct page_chain *chain)
{
	const struct shared_memories *all = shared_memories_of(snapshot);
	struct needs needs = { 0 };
	const struct task *task;
	int result = 0;

	for (size_t i = 0; !result && i < all->count; i++)
		if (all->items[i].page_size && !all->items[i].is_kept)
			result = count_shared(&needs, snapshot, chain, &all->items[i]);
	for_each_leader (task, snapshot, OBJECT_MEMORY)
		count_private(&needs, task);
	for (size_t i = 0; !result && i < needs.count; i++)
		result = check_need(&needs.items[i]);
	free(needs.items);
	return result;
}

/* ---- private memory ---- */

static int get_page(const struct vma *vma, uint64_t start)
{
	uint64_t size = vma_page_size(vma);

	/* An older kernel does not support it. */
	if (madvise(at(vma->place + (start - vma->start)), size, MADV_POPULATE_WRITE) == 0 || errno == EINVAL)
		return 0;
	return fail(ENOMEM, "cannot get a huge page of %" PRIu64 " KiB for %#" PRIx64, size >> 10, start);
}

/* Fills a huge page that the parent has, too. It stays shared if all of it is equal. */
static int fill_inherited_huge(const struct page_stack *stack, const struct vma *vma, uint64_t start,
			       char *buffer)
{
	uint64_t size = min(vma_page_size(vma), COMPARED_PAGES * PAGE_SIZE);
	bool is_own = false;

	for (uint64_t from = start; from < start + vma_page_size(vma); from += size) {
		char *place = at(vma->place + (from - vma->start));
		int result = page_stack_read_range(stack, from, size / PAGE_SIZE, buffer);

		if (!result && !memcmp(place, buffer, size))
			continue;
		result = result ?: is_own ? 0 : get_page(vma, start);
		if (result)
			return result;
		is_own = true;
		memcpy(place, buffer, size);
	}
	return 0;
}

int space_fill_huge(const struct page_stack *stack, const struct vma *vma)
{
	autofree char *buffer = reallocate_array(NULL, COMPARED_PAGES, PAGE_SIZE);
	uint64_t size = vma_page_size(vma);
	int result = 0;

	for (uint64_t start = vma->start; !result && start < vma->end; start += size) {
		size_t first = page_runs_find(&stack->runs, start);
		bool is_there = first < stack->runs.count && stack->runs.items[first].start < start + size;

		if (!vma->is_inherited)
			result = is_there ? get_page(vma, start) : 0;
		else if (is_there)
			result = fill_inherited_huge(stack, vma, start, buffer);
		else
			result = space_drop(vma, start, start + size);
	}
	return result;
}
