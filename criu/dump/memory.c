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
#include "dump/dump.h"
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

static int save_area(struct dump *dump, struct page_writer *writer, struct task_delta *delta,
		     const struct vma *vma)
{
	enum vma_pages pages = vma_how_saved(vma)->pages;
	int result = 0;

	if (pages == SAVE_NOTHING)
		return 0;
	if (pages == SAVE_ALL)
		return save_whole(dump, writer, vma, &delta->memory);
	for (uint64_t start = vma->start, end; !result && start < vma->end; start = end) {
		struct page_runs changed = { 0 }, unchanged = { 0 };

		end = vma->end - start > WINDOW ? start + WINDOW : vma->end;
		result = task_delta_scan(&dump->memory.increment, delta, vma, start, end, &changed,
					 &unchanged);
		if (!result)
			result = dump_area_pages(dump, writer, delta, vma, &changed, &unchanged);
		page_runs_free(&changed);
		page_runs_free(&unchanged);
	}
	return result;
}

int dump_open_writer(struct dump *dump, const struct task *task, struct page_writer **writer)
{
	const struct page_reserve *reserve = &dump->memory.reserve;
	struct page_hashing hashing;
	const struct page_files files = {
		.store = dump->snapshot.images,
		.kind = IMAGE_PAGEMAP,
		.id = task->pid,
		.pages_id = dump->memory.next_pages_id++,
		.hashing = increment_hashing(&dump->memory.increment, false, &hashing),
		.reserve = task->pid == reserve->pid ? &reserve->buffers : NULL,
	};

	return page_files_write(writer, &files, &dump->memory.pages);
}

static int save_task_memory(struct dump *dump, struct task *task)
{
	struct page_reserve *reserve = &dump->memory.reserve;
	struct page_writer *writer = NULL;
	struct task_delta delta;
	int result = task_delta_open(&delta, &dump->memory.increment, task);

	if (!result)
		result = dump_open_writer(dump, task, &writer);
	/* Comparing uses its own threads. */
	if (task->pid == reserve->pid && !content_is_open(&delta.content))
		delta.memory.helper = reserve->reader;
	for (size_t i = 0; !result && i < task->space->vmas.count; i++)
		result = save_area(dump, writer, &delta, &task->space->vmas.items[i]);
	/* All of its pages have been read: writes from here on are tracked for the next snapshot. */
	if (!result)
		result = increment_begin_notes(&dump->memory.increment, &delta);
	task_delta_close(&delta);
	if (task->pid == reserve->pid && reserve->buffers.memory) {
		reserve->writer = writer;
		return result;
	}
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
				  &dump->memory.shared_pages);
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
		result = save_task_memory(dump, task);
		if (result)
			fail_in(result, "process %d (%s)", task->pid, task->name);
	}
	result = result ?: dump_shared_memory(dump);
	dump->memory.ended = monotonic_time();
	log_info("saved %llu pages of tasks and %llu of shared memory; %llu were zero, %llu unchanged",
		 (unsigned long long)dump->memory.pages.written,
		 (unsigned long long)dump->memory.shared_pages.written,
		 (unsigned long long)(dump->memory.pages.zeros + dump->memory.shared_pages.zeros),
		 (unsigned long long)(dump->memory.pages.unchanged + dump->memory.shared_pages.unchanged));
	return result;
}
