/*
 * fill_new.c - fills memory that a newborn has not inherited, with two threads if there is much of it. The threads end
 * before anything is forked.
 *
 * Measured, 2 GiB, Linux 6.18, two CPUs, seconds; "populating" is MADV_POPULATE_WRITE before each read:
 *
 *	images in the page cache: one thread 1.27, populating 0.77; two threads 0.49, populating 0.42
 *	… with huge pages (touch a page, MADV_COLLAPSE, which leaves no flag on the mapping): two threads 0.23
 *	images on the disk: two threads 1.0; O_DIRECT 1.4 - 2.2
 */
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include "base/error.h"
#include "base/memory.h"
#include "base/thread.h"
#include "kernel_constants.h"
#include "memory/huge.h"
#include "restore/space.h"

#define MOST_VECTORS   256
#define MOST_BETWEEN   8UL /* unneeded pages that are read to save another call */
#define WINDOW	       (16UL << 20)
#define LARGE_WINDOW   (256UL << 20) /* if images have to be opened again for each window */
#define CHUNK_SIZE     (1UL << 20)   /* one read */
#define POPULATED_FROM (64UL << 10)  /* smaller pieces are not worth another system call */
#define AHEAD	       (16UL << 20)  /* requested from the images on the disk while a chunk is read */
#define MOST_WORKERS   2
#define WORTH_A_WORKER 4096 /* pages */

struct worker;

/* State shared by all workers that fill a task's memory. */
struct filling {
	const struct restore *restore;
	const struct task *task;
	void (*work)(struct worker *worker);
	struct worker *workers;
	_Atomic size_t begun;	 /* number of workers that a thread has become */
	bool takes_whole;	 /* whole blocks become huge pages, even if they were none */
	uint64_t window;	 /* bytes of addresses that a worker does in one go */
	_Atomic size_t claimed;	 /* number of windows that were claimed */
	_Atomic uint64_t *asked; /* for each layer: how far its image was requested */
};

/* All workers go over the same windows, in the same order. Each fills the windows that it claims first. */
struct worker {
	struct filling *filling;
	int result;

	uint64_t place;	      /* index of the current window, in windows; -1: none yet */
	size_t number, claim; /* number of the current window, and of the claimed one */
	uint8_t *is_seen;     /* for each layer: it has pages in this window */
	char *scratch;	      /* for unneeded pages */

	/* the next read: pieces that follow each other in an image, or almost */
	struct iovec vectors[MOST_VECTORS];
	int vector_count;
	size_t layer;
	uint64_t offset, size;
};

static const struct page_stack *stack_of(const struct worker *worker)
{
	return &worker->filling->task->newborn->memory;
}

static void populate(char *place, uint64_t size)
{
	/* Only speed depends on it. */
	if (size >= POPULATED_FROM)
		madvise(place, size, MADV_POPULATE_WRITE);
}

/*
 * Pages from many layers come one by one, and a fault for each costs more than reading it: so adjacent pages are
 * populated together, whatever layers they are in.
 */
static void populate_window(struct worker *worker, const struct vma *vma, uint64_t start, uint64_t end)
{
	const struct page_runs *runs = &stack_of(worker)->runs;
	size_t next = page_runs_find(runs, start);
	uint64_t from = start, to = start;
	struct page_piece piece;

	while (page_runs_next_piece(runs, start, end, &next, &piece)) {
		if (piece.start != to) {
			populate(at(vma->place + (from - vma->start)), to - from);
			from = piece.start;
		}
		to = piece.start + piece.size;
		worker->is_seen[runs->items[next - 1].layer] = true;
	}
	populate(at(vma->place + (from - vma->start)), to - from);
}

/* Requests data from the images on the disk. The first worker that reaches a new megabyte does so. */
static void ask_ahead(struct worker *worker)
{
	_Atomic uint64_t *asked = &worker->filling->asked[worker->layer];
	uint64_t from = *asked, start = round_down(worker->offset, CHUNK_SIZE), until = start + AHEAD;

	while (from < until && !atomic_compare_exchange_weak(asked, &from, until))
		;
	if (from < until)
		page_stack_ahead(stack_of(worker), worker->layer, max(from, start), until - max(from, start));
}

static int read_vectors(struct worker *worker)
{
	int result = 0;

	if (worker->vector_count) {
		result = page_stack_read_into(stack_of(worker), worker->layer, worker->vectors,
					      worker->vector_count, worker->offset);
		ask_ahead(worker); /* from the image that is open now */
	}
	worker->vector_count = 0;
	worker->size = 0;
	return result;
}

static void add_vector(struct worker *worker, char *place, uint64_t size)
{
	worker->vectors[worker->vector_count++] = (struct iovec){ place, size };
	worker->size += size;
}

/*
 * Pages in between that newer layers replace are read, too, if they are few, because that is faster than another call.
 */
static bool follows(const struct worker *worker, size_t layer, uint64_t offset)
{
	uint64_t end = worker->offset + worker->size;

	return worker->vector_count && worker->layer == layer && offset >= end &&
	       offset - end <= MOST_BETWEEN * PAGE_SIZE;
}

static int queue_piece(struct worker *worker, size_t layer, char *place, const struct page_piece *piece)
{
	for (uint64_t done = 0, take; done < piece->size; done += take) {
		uint64_t offset = piece->offset + done;
		bool is_full = worker->vector_count > MOST_VECTORS - 2 || worker->size >= CHUNK_SIZE;
		int result = is_full || !follows(worker, layer, offset) ? read_vectors(worker) : 0;

		if (result)
			return result;
		if (!worker->vector_count) {
			worker->layer = layer;
			worker->offset = offset;
		}
		if (offset != worker->offset + worker->size)
			add_vector(worker, worker->scratch, offset - (worker->offset + worker->size));
		take = min(piece->size - done, CHUNK_SIZE);
		add_vector(worker, place + done, take);
	}
	return 0;
}

/* Layer by layer: the visible pages of an old layer are single pages that follow each other in its image. */
static int fill_window(struct worker *worker, const struct vma *vma, uint64_t start, uint64_t end)
{
	const struct page_stack *stack = stack_of(worker);
	int result = 0;

	populate_window(worker, vma, start, end);
	for (size_t layer = 0; !result && layer < stack->layer_count; layer++) {
		struct page_runs runs = page_stack_layer(stack, layer);
		size_t next = worker->is_seen[layer] ? page_runs_find(&runs, start) : runs.count;
		struct page_piece piece;

		worker->is_seen[layer] = false;
		while (!result && page_runs_next_piece(&runs, start, end, &next, &piece))
			result = queue_piece(worker, layer, at(vma->place + (piece.start - vma->start)),
					     &piece);
	}
	return result;
}

/*
 * Is the window of this address claimed by this worker? A worker that reaches a new window claims the next one that is
 * free. A window may cover several mappings, so that small ones are read together.
 */
static bool claims_window(struct worker *worker, uint64_t address)
{
	uint64_t place = address / worker->filling->window;

	if (place != worker->place) {
		worker->place = place;
		if (worker->number++ == worker->claim)
			worker->claim = 1 + atomic_fetch_add(&worker->filling->claimed, 1);
	}
	return worker->number == worker->claim;
}

static bool is_new(const struct vma *vma)
{
	return is_mapped_by_us(vma) && vma_has_own_pages(vma) && !vma->is_inherited && !vma->is_held;
}

static int fill_area(struct worker *worker, const struct vma *vma)
{
	const struct page_runs *runs = &stack_of(worker)->runs;
	uint64_t window = worker->filling->window, start = vma->start, end;
	int result = 0;

	for (size_t next; !result && start < vma->end; start = end) {
		next = page_runs_find(runs, start);
		if (next == runs->count || runs->items[next].start >= vma->end)
			break;
		start = max(start, runs->items[next].start);
		end = min(vma->end, round_down(start, window) + window);
		if (claims_window(worker, start))
			result = fill_window(worker, vma, start, end);
	}
	return result;
}

static void fill_all(struct worker *worker)
{
	const struct vmas *vmas = &worker->filling->task->space->vmas;

	for (size_t i = 0; !worker->result && i < vmas->count; i++)
		if (is_new(&vmas->items[i]))
			worker->result = fill_area(worker, &vmas->items[i]);
	worker->result = worker->result ?: read_vectors(worker);
}

#define PAGES_IN_BLOCK (HUGE_BLOCK / PAGE_SIZE)

/*
 * How many pages of a block are enough to make it a huge page; 0: it becomes none. Inherited memory has the huge pages
 * of the parent. A block in which every page exists takes no more memory as a huge page, and is filled faster.
 */
static uint64_t least_pages(const struct vma *vma, bool takes_whole)
{
	if (!vma_how_saved(vma)->regains_huge_pages || vma->is_inherited || vma->is_held)
		return 0;
	if (vma->has_huge_pages)
		return PAGES_IN_BLOCK / 2;
	return takes_whole && vma_has_own_pages(vma) && !(vma->advice >> MADV_NOHUGEPAGE & 1) ?
		       PAGES_IN_BLOCK :
		       0;
}

static void make_block_huge(const struct worker *worker, const struct vma *vma, uint64_t start,
			    uint64_t least)
{
	const struct page_runs *runs = &stack_of(worker)->runs;
	volatile char *place = at(vma->place + (start - vma->start));

	if ((uintptr_t)place % HUGE_BLOCK)
		return;
	if (!vma_has_own_pages(vma)) {
		huge_collapse_shared((void *)place);
	} else if (page_runs_within(runs, start, start + HUGE_BLOCK) >= least) {
		*place = 0;
		huge_collapse((void *)place);
	}
}

/* The first block from `start` on that has pages, or the end. The pages of shared memory are not among the runs. */
static uint64_t next_block(const struct page_runs *runs, const struct vma *vma, uint64_t start)
{
	size_t next = page_runs_find(runs, start);

	if (!vma_has_own_pages(vma))
		return start;
	if (next == runs->count)
		return vma->end;
	return max(start, round_down(runs->items[next].start, HUGE_BLOCK));
}

/* Creates huge pages where there were some, or where they cost nothing; if the kernel has none, only speed is lost. */
static void make_huge(struct worker *worker)
{
	const struct vmas *vmas = &worker->filling->task->space->vmas;
	const struct page_runs *runs = &stack_of(worker)->runs;

	for (size_t i = 0; i < vmas->count; i++) {
		const struct vma *vma = &vmas->items[i];
		uint64_t start = round_up(vma->start, HUGE_BLOCK);
		uint64_t least = least_pages(vma, worker->filling->takes_whole);

		if (!least || vma_length(vma) < HUGE_BLOCK)
			continue;
		for (start = next_block(runs, vma, start); start + HUGE_BLOCK <= vma->end;
		     start = next_block(runs, vma, start + HUGE_BLOCK))
			if (claims_window(worker, start))
				make_block_huge(worker, vma, start, least);
	}
}

static size_t workers_for(const struct task *task)
{
	cpu_set_t cpus;

	if (page_runs_total(&task->newborn->memory.runs) < WORTH_A_WORKER ||
	    sched_getaffinity(0, sizeof(cpus), &cpus) < 0)
		return 1;
	return min(CPU_COUNT(&cpus), MOST_WORKERS);
}

/*
 * If not all threads start, the workers of the others do all the windows. A thread ends at once if it has an id that a
 * task of the tree waits for: clone_with_pids().
 */
static void *become_worker(void *argument)
{
	struct filling *filling = argument;
	pid_t id = gettid();

	if (id != getpid() && restore_needs_id(filling->restore, id))
		return NULL;
	filling->work(&filling->workers[atomic_fetch_add(&filling->begun, 1)]);
	return NULL;
}

static int share_windows(struct filling *filling)
{
	size_t layers = filling->task->newborn->memory.layer_count, count = workers_for(filling->task);
	struct worker workers[MOST_WORKERS];
	int result = 0;

	filling->workers = workers;
	filling->asked = allocate_array(layers, sizeof(*filling->asked));
	for (size_t i = 0; i < count; i++)
		workers[i] = (struct worker){
			.filling = filling,
			.place = -1,
			.is_seen = allocate_array(layers, 1),
			.scratch = reallocate_array(NULL, MOST_BETWEEN, PAGE_SIZE),
		};
	threads_run(count - 1, become_worker, filling);
	for (size_t i = 0; i < count; i++) {
		result = result ?: workers[i].result;
		free(workers[i].is_seen);
		free(workers[i].scratch);
	}
	free(filling->asked);
	return result;
}

/* Pages that were populated just now are still in the cache when they are read into. */
static uint64_t window_for(const struct page_stack *stack)
{
	if (stack->layer_count == 1)
		return CHUNK_SIZE;
	return page_chain_keeps_open(stack->chain, stack->layer_count) ? WINDOW : LARGE_WINDOW;
}

/* Most processes are too small, and nothing need be asked for them. */
static bool has_room_for_blocks(const struct task *task, bool *had_some)
{
	bool has_room = false;

	for (size_t i = 0; i < task->space->vmas.count; i++) {
		const struct vma *vma = &task->space->vmas.items[i];

		*had_some |= vma->has_huge_pages;
		has_room |= vma_length(vma) >= HUGE_BLOCK && vma_has_own_pages(vma);
	}
	return has_room && page_runs_total(&task->newborn->memory.runs) >= PAGES_IN_BLOCK;
}

int space_make_huge(const struct restore *restore, const struct task *task)
{
	struct filling filling = { .restore = restore, .task = task, .work = make_huge, .window = HUGE_BLOCK };
	bool had_some = false;

	filling.takes_whole = has_room_for_blocks(task, &had_some) && !task->space->mm->thp_disabled &&
			      huge_is_allowed();
	return had_some || filling.takes_whole ? share_windows(&filling) : 0;
}

int space_fill_new(const struct restore *restore, const struct task *task)
{
	struct filling filling = { .restore = restore,
				   .task = task,
				   .work = fill_all,
				   .window = window_for(&task->newborn->memory) };

	return share_windows(&filling);
}
