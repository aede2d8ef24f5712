/*
 * memory.c - saves the pages of all tasks: private memory by task, shared anonymous memory once.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "dump/dump.h"
#include "memory/pages.h"
#include "memory/scan.h"
#include "memory/shared.h"

#define WINDOW \
	(1ULL  \
	 << 30) /* of addresses, scanned at a time: the runs of pages in it fit into 4 MiB, however scattered they are */

static int save_runs(struct page_writer *writer, const struct page_runs *runs, const struct vma *vma,
		     struct task_memory *memory)
{
	bool is_anonymous = !(vma->status & (VMA_FILE_PRIVATE | VMA_VDSO));

	memory->has_relatives = vma->has_relatives;
	return page_writer_add(writer, runs, PAGES_PRESENT | (is_anonymous ? PAGES_LAZY : 0), is_anonymous,
			       pages_of_task, memory);
}

/* The vdso's pages are the kernel's, but they tell restore which vdso the task's pointers lead into. */
static int save_vdso(struct page_writer *writer, const struct vma *vma, struct task_memory *memory)
{
	struct page_runs runs = { 0 };
	int result;

	page_runs_add(&runs, &(struct page_run){ .start = vma->start, .count = vma_length(vma) / PAGE_SIZE });
	result = save_runs(writer, &runs, vma, memory);
	page_runs_free(&runs);
	return result;
}

static int save_area(struct page_writer *writer, struct scanner *scanner, const struct vma *vma,
		     struct task_memory *memory)
{
	bool is_file = vma->status & VMA_FILE_PRIVATE;
	int result = 0;

	if (vma->status & VMA_VDSO)
		return save_vdso(writer, vma, memory);
	/* States of getrandom(): restored twice, they would give the same numbers twice. The task expects to find zeros. */
	if (vma->flags & MAP_DROPPABLE)
		return 0;
	for (uint64_t start = vma->start, end; !result && start < vma->end; start = end) {
		struct page_runs runs = { 0 };

		end = vma->end - start > WINDOW ? start + WINDOW : vma->end;
		result = scan_pages(scanner, start, end, is_file, &runs);
		if (!result)
			result = save_runs(writer, &runs, vma, memory);
		page_runs_free(&runs);
	}
	return result;
}

static int save_task(struct dump *dump, struct task *task)
{
	struct task_memory memory = { .pid = task->pid, .mem = -1 };
	struct page_writer *writer = NULL;
	struct scanner *scanner = NULL;
	int result = scanner_open(&scanner, task->proc);

	if (!result)
		result = page_writer_open(&writer, dump->snapshot.images, IMAGE_PAGEMAP, task->pid,
					  dump->next_pages_id++, &dump->pages);
	for (size_t i = 0; !result && i < task->vmas.count; i++) {
		const struct vma *vma = &task->vmas.items[i];

		if (vma_is_private(vma))
			result = save_area(writer, scanner, vma, &memory);
	}
	scanner_close(scanner);
	if (memory.mem >= 0)
		close(memory.mem);
	return page_writer_close(writer) ?: result;
}

/* What smaps counts: also pages of files, which are not saved. */
static uint64_t count_resident(const struct snapshot *snapshot)
{
	const struct task *task;
	uint64_t bytes = 0;

	for_each_task(task, snapshot) for (size_t i = 0; i < task->vmas.count;
					   i++) if (task->vmas.items[i].status & VMA_ANON_PRIVATE)
		bytes += task->vmas.items[i].resident;
	return bytes >> PAGE_SHIFT;
}

int dump_memory(void *context)
{
	struct dump *dump = context;
	struct task *task;
	int result = 0;

	dump->memory_began = monotonic_time();
	dump->next_pages_id = 1;
	dump->pages.expected = count_resident(&dump->snapshot);
	result = shared_memory_save(&dump->snapshot, &dump->next_pages_id, &dump->shared_pages);
	for_each_task(task, &dump->snapshot)
	{
		if (result || task->state == TASK_DEAD)
			continue;
		result = save_task(dump, task);
		if (result)
			fail_in(result, "process %d (%s)", task->pid, task->name);
	}
	dump->memory_ended = monotonic_time();
	log_info("saved %llu pages of tasks and %llu of shared memory; %llu were zero",
		 (unsigned long long)dump->pages.written, (unsigned long long)dump->shared_pages.written,
		 (unsigned long long)(dump->pages.zeros + dump->shared_pages.zeros));
	return result;
}
