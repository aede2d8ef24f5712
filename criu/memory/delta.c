/*
 * delta.c - finds what one task, or one shared memory, has that differs from the parent snapshot. See delta.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "memory/pagemap.h"
#include "memory/saving.h"
#include "memory/delta.h"

#define MOST_BETWEEN (1UL << 20) /* bytes between two mappings that are scanned as one */

/* Memory without notes is compared. */
static int look_back(struct task_delta *delta, struct increment *increment)
{
	const struct tracker *tracker = increment->parent_tracker;
	int result = pagemap_read_coverage(&delta->parent, increment->parent, delta->task->pid);

	if (result && result != -ENOENT)
		return result;
	result = 0;
	delta->is_trusted = tracker->resumes && tracker->resumes(increment, delta);
	if (delta->is_trusted)
		increment_open_file_pages(increment, &delta->file_pages, delta->task->pid);
	else
		result = increment_open_content(increment, &delta->content, IMAGE_PAGEMAP, delta->task->pid);
	return result == -ENOENT ? 0 : result;
}

int task_delta_open(struct task_delta *delta, struct increment *increment, struct task *task)
{
	int result;

	*delta = (struct task_delta){ .task = task, .userfaultfd = -1, .memory.mem = -1 };
	result = scanner_open(&delta->scanner, task->proc) ?:
			 task_memory_open(&delta->memory, task->here, task->pidfd, task->proc);
	return result || !increment->parent_tracker ? result : look_back(delta, increment);
}

void task_delta_close(struct task_delta *delta)
{
	scanner_close(delta->scanner);
	task_memory_close(&delta->memory);
	page_runs_free(&delta->parent);
	free(delta->known.items);
	free(delta->noted.items);
	free(delta->witnesses);
	content_close(&delta->content);
	content_close(&delta->file_pages);
	if (delta->userfaultfd >= 0)
		close(delta->userfaultfd);
	*delta = (struct task_delta){ .userfaultfd = -1, .memory.mem = -1 };
}

/*
 * process_vm_readv() reads pages that the task itself may read. One page that it may not read makes a whole call fail,
 * and all pages of that call are read in a slower way.
 */
static bool is_read_fast(const struct vma *vma)
{
	return vma->protection & PROT_READ || (!vma->resident && !vma->has_swapped);
}

/* Where there is no PAGEMAP_SCAN, addresses between mappings cost as much as memory. */
bool task_delta_may_join(const struct increment *increment, const struct task_delta *delta,
			 const struct vma *vma, const struct vma *next)
{
	if (delta->is_trusted || increment->tracker == &tracker_soft_dirty)
		return false;
	return vma->end <= next->start && next->start - vma->end <= MOST_BETWEEN &&
	       vma_how_saved(vma) == vma_how_saved(next) && !(vma->flags & MAP_HUGETLB) &&
	       vma->has_relatives == next->has_relatives && is_read_fast(vma) == is_read_fast(next);
}

int task_delta_scan(const struct increment *increment, struct task_delta *delta, const struct vma *vma,
		    uint64_t start, uint64_t end, struct page_runs *changed, struct page_runs *unchanged)
{
	const struct vma_saving *saving = vma_how_saved(vma);
	struct scan scan = {
		.start = start,
		.end = end,
		.is_file = saving->is_over_file,
		.known = &delta->known,
	};
	int result;

	if (delta->is_trusted && saving->is_noted)
		scan.note = increment->parent_tracker->note;
	if (increment->tracker == &tracker_soft_dirty && tracker_soft_dirty.vouches(delta, vma))
		scan.noted = &delta->noted;
	result = scan_pages(delta->scanner, &scan, changed, unchanged);
	/* Called only if there are unchanged pages: vouching for a mapping may cost a system call. */
	if (!result && unchanged->count && !increment->parent_tracker->vouches(delta, vma)) {
		page_runs_free(changed);
		page_runs_free(unchanged);
		scan.note = NOTE_NOTHING;
		scan.noted = NULL;
		result = scan_pages(delta->scanner, &scan, changed, unchanged);
	}
	return result;
}

static int compare_with_parent(const struct content *content, page_source *source, void *from,
			       struct page_runs *changed, struct page_runs *unchanged)
{
	struct page_runs own = *changed;
	int result;

	*changed = (struct page_runs){ 0 };
	result = content_compare(content, &own, source, from, changed, unchanged);
	page_runs_free(&own);
	return result;
}

/*
 * The content to compare a mapping with: the whole task, if it has no notes; otherwise only memory that is not tracked.
 * NULL: nothing.
 */
static const struct content *content_of(const struct task_delta *delta, const struct vma *vma,
					const struct page_runs *changed)
{
	if (content_is_open(&delta->content))
		return &delta->content;
	if (vma_how_saved(vma)->is_over_file && page_runs_total(changed) <= FILE_PAGES_MOST)
		return &delta->file_pages;
	return NULL;
}

int task_delta_plan(struct task_delta *delta, const struct vma *vma, struct page_runs *changed,
		    struct page_runs *unchanged, struct page_runs *plan)
{
	const struct content *content = content_of(delta, vma, changed);
	int result = 0;

	delta->memory.has_relatives = vma->has_relatives;
	if (content && content_is_open(content))
		result = compare_with_parent(content, pages_of_task, &delta->memory, changed, unchanged);
	if (!result)
		page_runs_plan(changed, unchanged, &delta->parent, plan);
	page_runs_free(changed);
	page_runs_free(unchanged);
	return result;
}

int shared_delta_plan(struct increment *increment, unsigned long id, page_source *source, void *from,
		      struct page_runs *own, struct page_runs *plan)
{
	struct page_runs unchanged = { 0 };
	struct content content = { 0 };
	int result = 0;

	if (increment->chain)
		result = increment_open_content(increment, &content, IMAGE_SHMEM_PAGEMAP, id);
	if (result == -ENOENT)
		result = 0;
	if (!result && content_is_open(&content))
		result = compare_with_parent(&content, source, from, own, &unchanged);
	if (!result)
		page_runs_plan(own, &unchanged, &content.pages, plan);
	page_runs_free(own);
	page_runs_free(&unchanged);
	content_close(&content);
	return result;
}
