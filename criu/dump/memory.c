/*
 * memory.c - saves pages: first the private memory of each task, then each shared memory once. Pages that the parent
 * snapshot has are left to it. The first task is saved first, so its pages are in pages-1.img: tools that know only one
 * process look there.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "dump/dump.h"
#include "dump/twin.h"
#include "files/kinds/io_uring.h"
#include "memory/huge.h"
#include "memory/page_files.h"
#include "memory/saving.h"
#include "memory/shared.h"

#define WINDOW \
	(1ULL << 30) /* bytes of addresses scanned at a time: the runs of pages in them fit into 4 MiB */

int dump_save_plan(const struct dump *dump, struct page_writer *writer, const struct page_runs *plan,
		   const struct vma *vma, page_source *source, void *from)
{
	const struct vma_saving *saving = vma_how_saved(vma);
	bool skips_zeros = saving->zeros != ZEROS_ARE_SAVED && increment_skips_zeros(&dump->memory.increment);

	if (skips_zeros && saving->zeros == ZEROS_ARE_LEFT_OUT_OF_HUGE_PAGES)
		return huge_write_pages(writer, plan, vma_page_size(vma), source, from);
	return page_writer_add(writer, plan, PAGES_PRESENT | (saving->is_lazy ? PAGES_LAZY : 0), skips_zeros,
			       source, from);
}

static int save_whole(const struct dump *dump, struct page_writer *writer, const struct vma *vma,
		      struct task_memory *memory)
{
	struct page_runs runs = { 0 };
	int result;

	page_runs_add_range(&runs, vma->start, vma->end);
	memory->has_relatives = vma->has_relatives;
	result = dump_save_plan(dump, writer, &runs, vma, pages_of_task, memory);
	page_runs_free(&runs);
	return result;
}

int dump_area_pages(const struct dump *dump, struct page_writer *writer, struct task_delta *delta,
		    const struct vma *vma, struct page_runs *changed, struct page_runs *unchanged)
{
	struct page_runs plan = { 0 };
	int result = task_delta_plan(delta, vma, changed, unchanged, &plan);

	if (!result)
		result = dump_save_plan(dump, writer, &plan, vma, pages_of_task, &delta->memory);
	page_runs_free(&plan);
	return result;
}

/* Own pages of [first->start, end), which is one mapping, or several that count as one. */
static int save_own(struct dump *dump, struct page_writer *writer, struct task_delta *delta,
		    const struct vma *first, uint64_t end)
{
	int result = 0;

	for (uint64_t start = first->start, next; !result && start < end; start = next) {
		struct page_runs changed = { 0 }, unchanged = { 0 };

		next = end - start > WINDOW ? start + WINDOW : end;
		result = task_delta_scan(&dump->memory.increment, delta, first, start, next, &changed,
					 &unchanged);
		if (!result)
			result = dump_area_pages(dump, writer, delta, first, &changed, &unchanged);
		page_runs_free(&changed);
		page_runs_free(&unchanged);
	}
	return result;
}

/* How many mappings from the first on are scanned and read together. One scan and one read take as long as 20 pages. */
static size_t count_joined(const struct dump *dump, const struct task_delta *delta, const struct vma *first,
			   size_t left)
{
	const struct increment *increment = &dump->memory.increment;
	size_t count = 1;

	while (count < left && first[count].end - first->start <= WINDOW &&
	       task_delta_may_join(increment, delta, &first[count - 1], &first[count]))
		count++;
	return count;
}

static int save_areas(struct dump *dump, struct page_writer *writer, struct task_delta *delta,
		      const struct vmas *vmas)
{
	int result = 0;

	for (size_t i = 0, count; !result && i < vmas->count; i += count) {
		const struct vma *vma = &vmas->items[i];
		enum vma_pages pages = vma_how_saved(vma)->pages;

		count = 1;
		if (pages == SAVE_ALL) {
			result = save_whole(dump, writer, vma, &delta->memory);
		} else if (pages == SAVE_OWN) {
			count = count_joined(dump, delta, vma, vmas->count - i);
			result = save_own(dump, writer, delta, vma, vma[count - 1].end);
		}
	}
	return result;
}

/*
 * Large images are written past the page cache if the processes need not wait for that, or would wait until all is on
 * disk anyway. A slow disk must not keep frozen those that will run on. With a parent snapshot, nobody knows how much
 * has changed.
 */
static uint64_t expected_size(const struct dump *dump, const struct task *task, bool is_frozen)
{
	const struct policy *policy = &dump->request->policy;
	uint64_t bytes = 0;

	if (dump->memory.increment.parent_tracker ||
	    (is_frozen && (policy->leave_running || policy->leave_stopped)))
		return 0;
	for (size_t i = 0; i < task->space->vmas.count; i++)
		if (vma_how_saved(&task->space->vmas.items[i])->zeros != ZEROS_ARE_SAVED)
			bytes += task->space->vmas.items[i].resident;
	return bytes >= STREAM_MUCH ? bytes : 0;
}

int dump_open_writer(struct dump *dump, const struct task *task, const struct page_buffers *later,
		     struct page_writer **writer)
{
	const struct page_reserve *reserve = &dump->memory.reserve;
	struct page_hashing hashing;
	const struct page_files files = {
		.store = dump->snapshot.images,
		.kind = IMAGE_PAGEMAP,
		.id = task->pid,
		.pages_id = dump->memory.next_pages_id++,
		.hashing = increment_hashing(&dump->memory.increment, false, &hashing),
		.reserve = task->here == reserve->here ? &reserve->buffers : NULL,
		.usual_size = expected_size(dump, task, !later),
		.memory = later ? later->memory : NULL,
		.memory_size = later ? later->size : 0,
	};

	return page_files_write(writer, &files, &dump->memory.pages);
}

/* The buffers of the reserve are as large as its process needs. Those of all other writers are small. */
static bool hold_writer(struct dump *dump, const struct task *task, struct page_writer *writer,
			uint64_t pages)
{
	const struct page_reserve *reserve = &dump->memory.reserve;
	bool is_reserved = task->here == reserve->here && reserve->buffers.memory;

	return held_writers_add(&dump->memory.held, writer, is_reserved ? 0 : pages);
}

static int save_task_memory(struct dump *dump, struct task *task)
{
	uint64_t before = dump->memory.pages.written;
	struct page_reserve *reserve = &dump->memory.reserve;
	struct page_writer *writer = NULL;
	struct task_delta delta;
	int result = task_delta_open(&delta, &dump->memory.increment, task);

	if (!result)
		result = dump_open_writer(dump, task, NULL, &writer);
	/* Comparing uses its own threads. */
	if (task->here == reserve->here && !content_is_open(&delta.content))
		delta.memory.helper = reserve->reader;
	result = result ?: save_areas(dump, writer, &delta, &task->space->vmas);
	/* All of its pages have been read: writes from here on are tracked for the next snapshot. */
	delta.is_busy = io_uring_writes_to(&dump->snapshot, task);
	if (!result)
		result = increment_begin_notes(&dump->memory.increment, &delta);
	task_delta_close(&delta);
	if (!result && hold_writer(dump, task, writer, dump->memory.pages.written - before))
		return 0;
	return page_writer_close(writer, result);
}

/* Anonymous memory, which is nearly all that is saved, from smaps. */
static uint64_t count_resident(const struct snapshot *snapshot)
{
	const struct task *task;
	uint64_t bytes = 0;

	for_each_leader (task, snapshot, OBJECT_MEMORY)
		for (size_t i = 0; i < task->space->vmas.count; i++)
			if (vma_how_saved(&task->space->vmas.items[i])->zeros != ZEROS_ARE_SAVED)
				bytes += task->space->vmas.items[i].resident;
	return bytes >> PAGE_SHIFT;
}

int dump_shared_memory(struct dump *dump)
{
	return shared_memory_save(&dump->snapshot, &dump->memory.increment, &dump->memory.next_pages_id,
				  &dump->memory.shared_pages, dump->is_pre_dump ? NULL : &dump->memory.held);
}

static int save_or_list(struct dump *dump, struct task *task)
{
	int result = twins_list(dump, task);

	return result > 0 ? save_task_memory(dump, task) : result;
}

int dump_memory(void *context)
{
	struct dump *dump = context;
	struct task *task;
	int result = 0;

	dump->memory.began = monotonic_time();
	increment_look_again(&dump->memory.increment);
	dump->memory.next_pages_id = 1;
	dump->memory.pages.expected = count_resident(&dump->snapshot);
	for_each_leader (task, &dump->snapshot, OBJECT_MEMORY) {
		if (result || task->state == TASK_DEAD)
			continue;
		result = save_or_list(dump, task);
		if (result)
			fail_in(result, "process %d (%s)", task->here, task->name);
	}
	return result ?: dump_shared_memory(dump) ?: twins_make(dump);
}

int dump_memory_of_twins(void *context)
{
	struct dump *dump = context;
	int result = twins_save(dump);

	dump->memory.ended = monotonic_time();
	log_info("saved %llu pages of processes and %llu of shared memory; %llu were zero, %llu unchanged",
		 (unsigned long long)dump->memory.pages.written,
		 (unsigned long long)dump->memory.shared_pages.written,
		 (unsigned long long)(dump->memory.pages.zeros + dump->memory.shared_pages.zeros),
		 (unsigned long long)(dump->memory.pages.unchanged + dump->memory.shared_pages.unchanged));
	return result;
}
