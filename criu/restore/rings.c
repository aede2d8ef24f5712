/*
 * rings.c - recreates the AIO rings (io_setup) of tasks.
 *
 * The content of a ring is filled like any other memory (fill.c). Two things are not in that memory: the position from
 * which the kernel continues, and the number by which it knows the ring. So a new ring is advanced to the same head and
 * tail (memory/aio.c), and rings are created in the order of their numbers; for a missing number, a ring is created and
 * destroyed again. Then mremap() moves the ring to its place; the kernel follows (Linux 3.19).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "memory/aio.h"
#include "restore/space.h"

struct ring {
	const struct vma *vma;
	struct aio_header header;
};

struct rings {
	struct ring *items; /* by id */
	size_t count;
};

/* ---- what the images say ---- */

static const AioRingEntry *find_entry(const struct task *task, uint64_t start)
{
	for (size_t i = 0; i < task->space->mm->n_aios; i++)
		if (task->space->mm->aios[i]->id == start)
			return task->space->mm->aios[i];
	return NULL;
}

static int read_header(const struct task *task, const struct vma *vma, struct aio_header *header)
{
	const struct page_stack *stack = &task->newborn->memory;
	size_t at = page_runs_find(&stack->runs, vma->start);
	const struct page_run *run = at < stack->runs.count ? &stack->runs.items[at] : NULL;
	autofree char *page = allocate(PAGE_SIZE);
	int result;

	if (!run || run->start > vma->start)
		return fail(EINVAL, "pagemap-%d.img: the AIO ring at %#" PRIx64 " is missing", task->pid,
			    vma->start);
	result = page_stack_read(stack, run->layer, page, 1, run->offset + (vma->start - run->start));
	*header = *(const struct aio_header *)(const void *)page;
	return result;
}

static int check_ring_entry(const struct task *task, const struct vma *vma)
{
	const AioRingEntry *entry = find_entry(task, vma->start);
	uint64_t length = vma_length(vma);

	if (vma->status & ~(VMA_REGULAR | VMA_AIO_RING))
		return fail(EINVAL,
			    "mm-%d.img: the mapping at %#" PRIx64
			    " is an AIO ring and something else, too (status %#x)",
			    task->pid, vma->start, vma->status);
	if (!entry || entry->ring_len != length || vma->offset || !aio_most_requests(length))
		return fail(EINVAL, "mm-%d.img: the AIO ring at %#" PRIx64 " has no description", task->pid,
			    vma->start);
	if (entry->nr_req < aio_least_requests(length) || entry->nr_req > aio_most_requests(length))
		return fail(EINVAL,
			    "mm-%d.img: an AIO ring of %" PRIu64 " bytes for %u requests is impossible",
			    task->pid, length, entry->nr_req);
	return 0;
}

static int compare_ring_ids(const void *left, const void *right)
{
	const struct ring *a = left, *b = right;

	return a->header.id < b->header.id ? -1 : a->header.id > b->header.id;
}

static int read_rings(const struct task *task, struct rings *rings)
{
	int result = 0;

	for (size_t i = 0; !result && i < task->space->vmas.count; i++) {
		const struct vma *vma = &task->space->vmas.items[i];
		struct ring *ring;

		if (!(vma->status & VMA_AIO_RING))
			continue;
		ring = grow(&rings->items, &rings->count);
		ring->vma = vma;
		result = check_ring_entry(task, vma) ?: read_header(task, vma, &ring->header);
		if (!result && aio_check_header(&ring->header, vma_length(vma)))
			result = fail(EINVAL, "the pages of process %d have no valid AIO ring at %#" PRIx64,
				      task->pid, vma->start);
	}
	if (rings->count)
		qsort(rings->items, rings->count, sizeof(*rings->items), compare_ring_ids);
	return result;
}

/* ---- check ---- */

/* The needs of all rings together. */
struct needs {
	struct aio_lengths lengths;
	uint64_t requests; /* as counted against the limit */
};

static int check_rings(const struct task *task, const struct rings *rings, struct needs *needs)
{
	uint64_t next = 0; /* id */

	if (task->space->mm->n_aios != rings->count)
		return fail(EINVAL, "mm-%d.img describes %zu AIO rings, but has %zu", task->pid,
			    task->space->mm->n_aios, rings->count);
	for (size_t i = 0; i < rings->count; i++) {
		const struct aio_header *header = &rings->items[i].header;
		uint64_t length = vma_length(rings->items[i].vma);
		uint32_t unread = (header->tail + header->slots - header->head) % header->slots, most;
		int result;

		if (header->id < next)
			return fail(EINVAL, "the pages of process %d have two AIO rings with number %u",
				    task->pid, header->id);
		needs->requests += header->id - next + aio_least_requests(length);
		next = (uint64_t)header->id + 1;
		result = aio_find_most(&needs->lengths, length, &most);
		if (result)
			return result;
		if (unread > most)
			return fail(
				EINVAL,
				"an AIO ring of %u slots has %u completions, but at most %u are possible on this machine",
				header->slots, unread, most);
	}
	return 0;
}

static uint64_t read_number(const char *path)
{
	autofree char *text = NULL;

	return read_text_at(AT_FDCWD, path, &text) > 0 ? strtoull(text, NULL, 10) : 0;
}

static int check_limit(uint64_t requests)
{
	uint64_t used = read_number("/proc/sys/fs/aio-nr"), limit = read_number("/proc/sys/fs/aio-max-nr");

	if (requests <= limit && used <= limit - requests)
		return 0;
	fail_advice("a larger number in /proc/sys/fs/aio-max-nr");
	return fail(EAGAIN, "AIO rings for %" PRIu64 " requests exceed this machine's limit of %" PRIu64,
		    requests, limit);
}

int rings_check(const struct snapshot *snapshot)
{
	struct needs needs = { 0 };
	const struct task *task;
	int result = 0;

	for_each_leader (task, snapshot, OBJECT_MEMORY) {
		struct rings rings = { 0 };

		if (result || task->state == TASK_DEAD)
			continue;
		result = read_rings(task, &rings) ?: check_rings(task, &rings, &needs);
		free(rings.items);
		if (result)
			fail_in(result, "process %d (%s)", task->pid, task->name);
	}
	aio_lengths_free(&needs.lengths);
	return result ?: needs.requests ? check_limit(needs.requests) : 0;
}

/* ---- make ---- */

struct spares {
	aio_context_t *items;
	size_t count;
};

/* The kernel assigns the lowest free number. */
static int reserve_ids(struct spares *spares, uint32_t *next, uint32_t id)
{
	int result = 0;

	for (; !result && *next < id; ++*next)
		result = aio_make_smallest(grow(&spares->items, &spares->count));
	return result;
}

/* The memory at the ring's place, or in the refuge, is mapped already. The ring replaces it. */
static int make_ring(const struct ring *ring)
{
	uint64_t length = vma_length(ring->vma);
	void *place = at(ring->vma->place);
	aio_context_t made;
	int result = aio_make(length, &made);

	if (result)
		return result;
	if (aio_header_of(made)->id != ring->header.id)
		return fail(EINVAL, "the kernel assigns number %u instead of %u to an AIO ring",
			    aio_header_of(made)->id, ring->header.id);
	result = aio_advance(made, ring->header.head, ring->header.tail);
	if (!result && mremap(at(made), length, length, MREMAP_MAYMOVE | MREMAP_FIXED, place) != place)
		result = fail(errno, "cannot move an AIO ring");
	return result;
}

int rings_make(const struct task *task)
{
	struct spares spares = { 0 };
	struct rings rings = { 0 };
	uint32_t next = 0;
	int result = read_rings(task, &rings);

	for (size_t i = 0; !result && i < rings.count; i++, next++) {
		result = reserve_ids(&spares, &next, rings.items[i].header.id) ?: make_ring(&rings.items[i]);
		if (result)
			fail_in(result, "AIO ring at %#" PRIx64, rings.items[i].vma->start);
	}
	aio_destroy(spares.items, result ? 0 : spares.count);
	free(spares.items);
	free(rings.items);
	return result;
}
