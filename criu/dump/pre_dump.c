/*
 * pre_dump.c - the memory of a pre-dump. While the tasks are frozen it is only noted which pages they have, and begun to note which
 * are written. Then they run on, and the pages are read meanwhile.
 *
 * With --pre-dump-mode splice, pages are put into pipes while the tasks are frozen, and read out of those.
 *
 * So a page may be read while it is written, or not be there any more. Neither does harm: nobody restores a pre-dump, and the next
 * snapshot leaves to it only pages that were not written since the tasks ran on; those were read as they were.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "dump/dump.h"
#include "memory/spliced.h"

struct area_pages {
	const struct vma *vma;
	struct page_runs changed, unchanged;
	struct page_runs plan;
	bool is_planned;
};

struct pre_dumped {
	struct tracked tracked;
	struct spliced spliced;
	struct area_pages *areas;
	size_t count;
};

int pre_dump_look(void *context)
{
	struct dump *dump = context;
	struct task *task;
	int result = 0;

	for_each_task (task, &dump->snapshot) {
		if (!result && task->state != TASK_DEAD)
			result = dump_describe_areas(dump, task);
		if (result)
			return fail_in(result, "process %d (%s)", task->pid, task->name);
	}
	dump_forget_ahead(dump);
	return 0;
}

/*
 * What the dump will save whole in any case (the vdso, AIO rings) is of use only to another criu that goes on with the chain: it looks in
 * the parent for every page that is clean.
 */
static bool is_wanted(const struct dump *dump, const struct vma *vma)
{
	return vma_is_private(vma) && !(vma->flags & MAP_DROPPABLE) &&
	       (!vma_is_saved_whole(vma) || dump->tracking.begins == &tracker_soft_dirty);
}

static int scan_area(struct dump *dump, struct pre_dumped *pre_dumped, struct area_pages *area)
{
	const struct vma *vma = area->vma;

	if (!vma_is_saved_whole(vma))
		return tracked_scan(&dump->tracking, &pre_dumped->tracked, vma, vma->start, vma->end,
				    &area->changed, &area->unchanged);
	page_runs_add_range(&area->changed, vma->start, vma->end);
	return 0;
}

bool dump_splices(const struct dump *dump)
{
	return dump->request->splices;
}

/* What is swapped would be swapped in, and could not be swapped out as long as it is in a pipe. */
static bool can_be_spliced(const struct vma *vma)
{
	return !vma_is_saved_whole(vma) && !(vma->flags & MAP_HUGETLB) && !vma->has_swapped;
}

/* Where pages have to be compared, nobody knows yet which ones are wanted. */
static int splice_task(struct pre_dumped *pre_dumped, struct task *task, uint64_t *budget)
{
	struct page_runs wanted = { 0 };
	int result = 0;

	if (content_is_open(&pre_dumped->tracked.content)) {
		log_info("process %d: its pages are compared with the parent's, and so read", task->pid);
		return 0;
	}
	for (size_t i = 0; !result && i < pre_dumped->count; i++) {
		struct area_pages *area = &pre_dumped->areas[i];

		if (!can_be_spliced(area->vma))
			continue;
		area->is_planned = true;
		result = tracked_plan(&pre_dumped->tracked, area->vma, &area->changed, &area->unchanged,
				      &area->plan);
		for (size_t j = 0; j < area->plan.count; j++)
			if (!area->plan.items[j].layer)
				page_runs_add(&wanted, &area->plan.items[j]);
	}
	if (!result)
		result = spliced_take(&pre_dumped->spliced, task, &pre_dumped->tracked.memory, &wanted,
				      budget);
	page_runs_free(&wanted);
	return result;
}

static int scan_task(struct dump *dump, struct pre_dumped *pre_dumped, struct task *task)
{
	bool is_busy = !dump_is_quiet(dump, task);
	int result = tracked_open(&pre_dumped->tracked, &dump->tracking, task);

	pre_dumped->tracked.is_busy = is_busy;
	for (size_t i = 0; !result && i < task->vmas.count; i++) {
		const struct vma *vma = &task->vmas.items[i];
		struct area_pages *area;

		if (!is_wanted(dump, vma))
			continue;
		area = grow(&pre_dumped->areas, &pre_dumped->count);
		area->vma = vma;
		result = scan_area(dump, pre_dumped, area);
	}
	if (!result && dump_splices(dump))
		result = splice_task(pre_dumped, task, &dump->splice_budget);
	return result ?: tracked_begin(&dump->tracking, &pre_dumped->tracked);
}

int pre_dump_scan(void *context)
{
	struct dump *dump = context;
	struct task *task;

	tracking_look_again(&dump->tracking);
	if (dump_splices(dump))
		dump->splice_budget = spliced_budget();
	dump->pre_dumped = allocate_array(dump->snapshot.task_count, sizeof(*dump->pre_dumped));
	for_each_task (task, &dump->snapshot) {
		int result = 0;

		if (task->state != TASK_DEAD)
			result = scan_task(dump, &dump->pre_dumped[dump->pre_dumped_count++], task);
		if (result)
			return fail_in(result, "process %d (%s)", task->pid, task->name);
	}
	return 0;
}

static int save_task(struct dump *dump, struct pre_dumped *pre_dumped)
{
	struct page_writer *writer;
	int result = dump_open_writer(dump, pre_dumped->tracked.task, &writer);

	pre_dumped->tracked.memory.is_running = true;
	for (size_t i = 0; !result && i < pre_dumped->count; i++) {
		struct area_pages *area = &pre_dumped->areas[i];

		pre_dumped->tracked.memory.has_relatives = area->vma->has_relatives;
		result = area->is_planned ? dump_save_plan(dump, writer, &area->plan, area->vma,
							   pages_of_pipes, &pre_dumped->spliced) :
					    dump_area_pages(dump, writer, &pre_dumped->tracked, area->vma,
							    &area->changed, &area->unchanged);
	}
	spliced_close(&pre_dumped->spliced);
	return page_writer_close(writer, result);
}

int pre_dump_save(void *context)
{
	struct dump *dump = context;
	int result = 0;

	dump->memory_began = monotonic_time();
	dump->next_pages_id = 1;
	for (size_t i = 0; !result && i < dump->pre_dumped_count; i++) {
		const struct task *task = dump->pre_dumped[i].tracked.task;

		result = save_task(dump, &dump->pre_dumped[i]);
		if (result)
			fail_in(result, "process %d (%s)", task->pid, task->name);
	}
	result = result ?: dump_shared_memory(dump);
	dump->memory_ended = monotonic_time();
	return result;
}

void pre_dump_forget(void *context)
{
	struct dump *dump = context;

	for (size_t i = 0; i < dump->pre_dumped_count; i++) {
		struct pre_dumped *pre_dumped = &dump->pre_dumped[i];

		for (size_t a = 0; a < pre_dumped->count; a++) {
			page_runs_free(&pre_dumped->areas[a].changed);
			page_runs_free(&pre_dumped->areas[a].unchanged);
			page_runs_free(&pre_dumped->areas[a].plan);
		}
		spliced_close(&pre_dumped->spliced);
		free(pre_dumped->areas);
		tracked_close(&pre_dumped->tracked);
	}
	free(dump->pre_dumped);
	dump->pre_dumped = NULL;
	dump->pre_dumped_count = 0;
}
