/*
 * listed.c - lists the pages of a task, and saves them later. See listed.h.
 */
#include <stdlib.h>
#include "base/memory.h"
#include "dump/listed.h"
#include "memory/saving.h"

int listed_scan(const struct dump *dump, struct listed_memory *listed, struct listed_area *area)
{
	const struct vma *vma = area->vma;

	area->is_scanned = true;
	if (vma_how_saved(vma)->pages == SAVE_OWN)
		return task_delta_scan(&dump->memory.increment, &listed->delta, vma, vma->start, vma->end,
				       &area->changed, &area->unchanged);
	page_runs_add_range(&area->changed, vma->start, vma->end);
	return 0;
}

int listed_scan_all(const struct dump *dump, struct listed_memory *listed)
{
	int result = 0;

	for (size_t i = 0; i < listed->count && !result; i++)
		if (!listed->areas[i].is_scanned)
			result = listed_scan(dump, listed, &listed->areas[i]);
	return result;
}

int listed_open(struct listed_memory *listed, struct dump *dump, struct task *task,
		bool (*is_wanted)(const struct dump *dump, const struct vma *vma))
{
	int result = task_delta_open(&listed->delta, &dump->memory.increment, task);

	for (size_t i = 0; !result && i < task->space->vmas.count; i++)
		if (is_wanted(dump, &task->space->vmas.items[i]))
			grow(&listed->areas, &listed->count)->vma = &task->space->vmas.items[i];
	return result;
}

int listed_plan(struct listed_memory *listed, struct listed_area *area)
{
	return task_delta_plan(&listed->delta, area->vma, &area->changed, &area->unchanged, &area->plan);
}

int listed_save(const struct dump *dump, struct listed_memory *listed, struct page_writer *writer)
{
	int result = 0;

	for (size_t i = 0; !result && i < listed->count; i++) {
		struct listed_area *area = &listed->areas[i];

		if (!area->is_scanned)
			result = listed_scan(dump, listed, area);
		if (result)
			break;
		listed->delta.memory.has_relatives = area->vma->has_relatives;
		listed->delta.memory.is_unreadable = !(area->vma->protection & PROT_READ) || area->vma->key;
		result = area->source ? dump_save_plan(dump, writer, &area->plan, area->vma, area->source,
						       area->from) :
					dump_area_pages(dump, writer, &listed->delta, area->vma,
							&area->changed, &area->unchanged);
	}
	return result;
}

void listed_free(struct listed_memory *listed)
{
	for (size_t i = 0; i < listed->count; i++) {
		page_runs_free(&listed->areas[i].changed);
		page_runs_free(&listed->areas[i].unchanged);
		page_runs_free(&listed->areas[i].plan);
		free(listed->areas[i].bytes);
	}
	free(listed->areas);
	task_delta_close(&listed->delta);
	*listed = (struct listed_memory){ .delta = { .userfaultfd = -1, .memory.mem = -1 } };
}
