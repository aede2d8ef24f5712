/*
 * fill.c - puts the pages that the images hold into a newborn's private memory, before its children are born.
 *
 * New memory is read into straight away, by two threads if there is much of it. Inherited memory is compared first, and only pages
 * that differ are written: the others stay shared with the parent. Threads are gone before anything is forked.
 *
 * Measured, 2 GiB, Linux 6.18, two CPUs, seconds; populating is MADV_POPULATE_WRITE ahead of each read:
 *
 *	images in the page cache: one thread 1.27, populating 0.77; two threads 0.49, populating 0.42
 *	… with huge pages (touch a page, MADV_COLLAPSE, which leaves no flag on the mapping): two threads 0.23
 *	images on the disk: two threads 1.0; O_DIRECT 1.4 - 2.2
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include "base/error.h"
#include "base/memory.h"
#include "memory/huge.h"
#include "restore/space.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define COMPARED_PAGES 64 /* at a time, of inherited memory */
#define MOST_VECTORS   64
#define CHUNK_SIZE     (1UL << 20)  /* one read */
#define POPULATED_FROM (64UL << 10) /* smaller pieces are not worth another system call */
#define AHEAD	       (16UL << 20) /* of the images on the disk are asked for while a chunk is read */
#define MOST_WORKERS   2
#define WORTH_A_WORKER 4096 /* pages */

/* ---- inherited memory ---- */

int space_drop(const struct vma *vma, uint64_t start, uint64_t end)
{
	if (start < end && madvise(at(vma->place + (start - vma->start)), end - start, MADV_DONTNEED) < 0)
		return fail(errno, "cannot drop inherited pages at %#llx", (unsigned long long)start);
	return 0;
}

/* The part of a run that lies in a mapping. */
struct piece {
	uint64_t start, size;
	uint64_t offset; /* in the pages image */
};

/* The first one from run *next on; false: there is none. */
static bool next_piece(const struct page_runs *runs, const struct vma *vma, size_t *next, struct piece *piece)
{
	const struct page_run *run = *next < runs->count ? &runs->items[*next] : NULL;

	if (!run || run->start >= vma->end)
		return false;
	piece->start = max(run->start, vma->start);
	piece->size = min(page_run_end(run), vma->end) - piece->start;
	piece->offset = run->offset + (piece->start - run->start);
	++*next;
	return true;
}

/* What the parent has and the images do not. */
static int drop_others(const struct page_runs *runs, const struct vma *vma)
{
	size_t next = page_runs_find(runs, vma->start);
	uint64_t right = vma->start; /* pages up to here are */
	struct piece piece;
	int result = 0;

	while (!result && next_piece(runs, vma, &next, &piece)) {
		result = space_drop(vma, right, piece.start);
		right = piece.start + piece.size;
	}
	return result ?: space_drop(vma, right, vma->end);
}

/* Pages that the parent has, too: only those that differ are written, so the others stay shared. */
static int fill_compared(const struct page_stack *stack, size_t layer, const struct vma *vma,
			 const struct piece *piece, char *buffer)
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
		struct piece piece;

		while (!result && next_piece(&runs, vma, &next, &piece))
			result = fill_compared(stack, layer, vma, &piece, buffer);
	}
	return result;
}

/* ---- new memory ---- */

/* One of those who share the work: each walks over all of it, and does what falls to it. */
struct worker {
	const struct task *task;
	size_t index, count;
	int result;
	pthread_t thread;

	/* the next read: pieces that follow each other in an image */
	struct iovec vectors[MOST_VECTORS];
	int vector_count;
	size_t layer;
	uint64_t offset, size;
	size_t chunk;	/* its number */
	uint64_t ahead; /* what was asked for last */
};

static void populate(const struct iovec *vector)
{
	/* Only speed depends on it. */
	if (vector->iov_len >= POPULATED_FROM)
		madvise(vector->iov_base, vector->iov_len, MADV_POPULATE_WRITE);
}

/* Chunks may be single pages, between which pages are that newer layers replace: once a megabyte is enough. */
static void ask_ahead(struct worker *worker)
{
	uint64_t from = round_down(worker->offset, CHUNK_SIZE) + AHEAD;

	if (worker->ahead == from)
		return;
	worker->ahead = from;
	if (from / CHUNK_SIZE % worker->count != worker->index) /* another worker comes by here, too */
		return;
	page_stack_ahead(&worker->task->newborn->memory, worker->layer, from, CHUNK_SIZE);
}

static int finish_chunk(struct worker *worker)
{
	const struct page_stack *stack = &worker->task->newborn->memory;
	int result = 0;

	if (worker->vector_count && worker->chunk++ % worker->count == worker->index) {
		ask_ahead(worker);
		for (int i = 0; i < worker->vector_count; i++)
			populate(&worker->vectors[i]);
		result = page_stack_read_into(stack, worker->layer, worker->vectors, worker->vector_count,
					      worker->offset);
	}
	worker->vector_count = 0;
	worker->size = 0;
	return result;
}

static int add_piece(struct worker *worker, char *place, const struct piece *piece)
{
	for (uint64_t done = 0, take; done < piece->size; done += take) {
		uint64_t offset = piece->offset + done;
		bool is_full = worker->vector_count == MOST_VECTORS || worker->size == CHUNK_SIZE;
		int result = is_full || worker->offset + worker->size != offset ? finish_chunk(worker) : 0;

		if (result)
			return result;
		if (!worker->vector_count)
			worker->offset = offset;
		take = min(piece->size - done, CHUNK_SIZE - worker->size);
		worker->vectors[worker->vector_count++] = (struct iovec){ place + done, take };
		worker->size += take;
	}
	return 0;
}

static bool is_new(const struct vma *vma)
{
	return is_mapped_by_us(vma) && vma_is_private(vma) && !vma->is_inherited;
}

static void populate_span(struct worker *worker, const struct vma *vma, uint64_t start, uint64_t end)
{
	for (uint64_t size; start < end; start += size) {
		size = min(end - start, CHUNK_SIZE);
		if (worker->chunk++ % worker->count == worker->index)
			populate(&(struct iovec){ at(vma->place + (start - vma->start)), size });
	}
}

/*
 * What comes from many layers comes in single pages, and a fault for each of them costs more than to read it: neighbours are populated
 * together, whatever layers they are in.
 */
static void populate_area(struct worker *worker, const struct vma *vma)
{
	const struct page_runs *runs = &worker->task->newborn->memory.runs;
	size_t next = page_runs_find(runs, vma->start);
	uint64_t start = vma->start, end = start;
	struct piece piece;

	while (next_piece(runs, vma, &next, &piece)) {
		if (piece.start != end) {
			populate_span(worker, vma, start, end);
			start = piece.start;
		}
		end = piece.start + piece.size;
	}
	populate_span(worker, vma, start, end);
}

static void *populate_all(void *argument)
{
	struct worker *worker = argument;
	const struct vmas *vmas = &worker->task->vmas;

	for (size_t i = 0; i < vmas->count; i++)
		if (is_new(&vmas->items[i]))
			populate_area(worker, &vmas->items[i]);
	return NULL;
}

static int read_layer(struct worker *worker)
{
	const struct vmas *vmas = &worker->task->vmas;
	struct page_runs runs = page_stack_layer(&worker->task->newborn->memory, worker->layer);
	int result = 0;

	for (size_t i = 0; i < vmas->count; i++) {
		const struct vma *vma = &vmas->items[i];
		size_t next = is_new(vma) ? page_runs_find(&runs, vma->start) : runs.count;
		struct piece piece;

		while (!result && next_piece(&runs, vma, &next, &piece))
			result = add_piece(worker, at(vma->place + (piece.start - vma->start)), &piece);
	}
	return result ?: finish_chunk(worker);
}

/* Layer by layer: what is seen of an old one are single pages, which follow each other in its image. */
static void *read_pages(void *argument)
{
	struct worker *worker = argument;

	for (; !worker->result && worker->layer < worker->task->newborn->memory.layer_count; worker->layer++)
		worker->result = read_layer(worker);
	return NULL;
}

/* Transparent ones have private memory that is new, and shared memory that no file system holds. */
static bool may_have_huge_pages(const struct vma *vma)
{
	return vma->has_huge_pages && !(vma->flags & MAP_HUGETLB) && is_mapped_by_us(vma) &&
	       (vma_is_private(vma) ? is_new(vma) : vma->status & (VMA_ANON_SHARED | VMA_MEMFD));
}

static void make_block_huge(const struct worker *worker, const struct vma *vma, uint64_t start)
{
	const struct page_runs *runs = &worker->task->newborn->memory.runs;
	volatile char *place = at(vma->place + (start - vma->start));

	if ((uintptr_t)place % HUGE_BLOCK)
		return;
	if (!vma_is_private(vma)) {
		huge_collapse_shared((void *)place);
	} else if (page_runs_within(runs, start, start + HUGE_BLOCK) >= HUGE_BLOCK / PAGE_SIZE / 2) {
		*place = 0;
		huge_collapse((void *)place);
	}
}

/* Where there were huge pages there are huge pages again, if the kernel has some: without, nothing but speed is lost. */
static void *make_huge(void *argument)
{
	struct worker *worker = argument;
	const struct vmas *vmas = &worker->task->vmas;
	size_t block = 0;

	for (size_t i = 0; i < vmas->count; i++) {
		const struct vma *vma = &vmas->items[i];

		if (!may_have_huge_pages(vma))
			continue;
		for (uint64_t start = round_up(vma->start, HUGE_BLOCK); start + HUGE_BLOCK <= vma->end;
		     start += HUGE_BLOCK)
			if (block++ % worker->count == worker->index)
				make_block_huge(worker, vma, start);
	}
	return NULL;
}

static size_t workers_for(const struct task *task)
{
	cpu_set_t cpus;

	if (page_runs_total(&task->newborn->memory.runs) < WORTH_A_WORKER ||
	    sched_getaffinity(0, sizeof(cpus), &cpus) < 0)
		return 1;
	return min(CPU_COUNT(&cpus), MOST_WORKERS);
}

/* We are the first worker; if there is no thread for another, his part is done by us, afterwards. */
static int share_work(const struct task *task, void *(*work)(void *))
{
	size_t count = workers_for(task), started = 1;
	struct worker workers[MOST_WORKERS];
	int result = 0;

	for (size_t i = 0; i < count; i++)
		workers[i] = (struct worker){ .task = task, .index = i, .count = count };
	while (started < count && !pthread_create(&workers[started].thread, NULL, work, &workers[started]))
		started++;
	work(&workers[0]);
	for (size_t i = 1; i < count; i++) {
		if (i < started)
			pthread_join(workers[i].thread, NULL);
		else
			work(&workers[i]);
	}
	for (size_t i = 0; i < count; i++)
		result = result ?: workers[i].result;
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

/* Pages are put into it, or taken out of it. */
static bool is_touched(const struct page_stack *stack, const struct vma *vma)
{
	return is_mapped_by_us(vma) && vma_is_private(vma) && (vma->is_inherited || has_pages(stack, vma));
}

static int protect(const struct vma *vma, int protection)
{
	if (mprotect(at(vma->place), vma_length(vma), protection) < 0)
		return fail(errno, "cannot change the protection at %#llx", (unsigned long long)vma->start);
	return 0;
}

static int open_all(const struct task *task)
{
	const struct page_stack *stack = &task->newborn->memory;
	int result = 0;

	for (size_t i = 0; !result && i < task->vmas.count; i++) {
		const struct vma *vma = &task->vmas.items[i];

		if (is_touched(stack, vma) && has_pages(stack, vma) && (vma->is_inherited || !is_open(vma)))
			result = protect(vma, PROT_READ | PROT_WRITE);
	}
	return result;
}

static int protect_all(const struct task *task)
{
	const struct page_stack *stack = &task->newborn->memory;
	int result = 0;

	for (size_t i = 0; !result && i < task->vmas.count; i++) {
		const struct vma *vma = &task->vmas.items[i];

		if (is_touched(stack, vma) && (vma->is_inherited || !is_open(vma)))
			result = protect(vma, vma->protection);
	}
	return result;
}

int space_fill(const struct task *task, uint64_t *pages)
{
	const struct page_stack *stack = &task->newborn->memory;
	autofree char *buffer = allocate(COMPARED_PAGES * PAGE_SIZE);
	bool has_huge_pages = false;
	int result = open_all(task);

	for (size_t i = 0; !result && i < task->vmas.count; i++) {
		const struct vma *vma = &task->vmas.items[i];

		has_huge_pages |= vma->has_huge_pages;
		if (vma->flags & MAP_HUGETLB && is_mapped_by_us(vma) && vma_is_private(vma))
			result = space_fill_huge(stack, vma);
		else if (vma->is_inherited)
			result = fill_inherited(stack, vma, buffer);
	}
	if (!result && has_huge_pages)
		result = share_work(task, make_huge);
	if (!result && stack->layer_count > 1)
		result = share_work(task, populate_all);
	if (!result && stack->runs.count)
		result = share_work(task, read_pages);
	*pages += page_runs_total(&stack->runs);
	page_chain_rest(stack->chain);
	return result ?: protect_all(task);
}
