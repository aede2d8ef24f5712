/*
 * tracked.c - one task, or one shared memory, of a snapshot in a chain: what it has, what of it the parent has. See tracker.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "memory/pagemap.h"
#include "memory/saving.h"
#include "memory/tracker.h"

/* All that a pagemap names can be had from that snapshot, here or in its parents: it was checked when it was made. */
static int read_coverage(struct page_runs *runs, struct image_store *parent, pid_t pid)
{
	struct pagemap pagemap = { 0 };
	int result = pagemap_read(&pagemap, parent, IMAGE_PAGEMAP, pid);

	for (size_t i = 0; !result && i < pagemap.count; i++)
		page_runs_add_range(runs, pagemap.entries[i].start,
				    pagemap.entries[i].start + pagemap.entries[i].count * PAGE_SIZE);
	pagemap_free(&pagemap);
	return result == -ENOENT ? 0 : result;
}

/* What nobody has noted is compared. */
static int look_back(struct tracked *tracked, struct tracking *tracking)
{
	const struct tracker *looks = tracking->looks;
	int result = read_coverage(&tracked->parent, tracking->parent, tracked->task->pid);

	if (result)
		return result;
	tracked->is_trusted = looks->resumes && looks->resumes(tracking, tracked);
	if (tracked->is_trusted)
		tracking_open_file_pages(tracking, &tracked->file_pages, tracked->task->pid);
	else
		result = tracking_open_content(tracking, &tracked->content, IMAGE_PAGEMAP,
					       tracked->task->pid);
	return result == -ENOENT ? 0 : result;
}

int tracked_open(struct tracked *tracked, struct tracking *tracking, struct task *task)
{
	int result;

	*tracked = (struct tracked){ .task = task, .userfaultfd = -1, .memory.mem = -1 };
	result = scanner_open(&tracked->scanner, task->proc) ?:
			 task_memory_open(&tracked->memory, task->pid, task->pidfd, task->proc);
	return result || !tracking->looks ? result : look_back(tracked, tracking);
}

void tracked_close(struct tracked *tracked)
{
	scanner_close(tracked->scanner);
	task_memory_close(&tracked->memory);
	page_runs_free(&tracked->parent);
	free(tracked->known.items);
	free(tracked->noted.items);
	free(tracked->witnesses);
	content_close(&tracked->content);
	content_close(&tracked->file_pages);
	if (tracked->userfaultfd >= 0)
		close(tracked->userfaultfd);
	*tracked = (struct tracked){ .userfaultfd = -1, .memory.mem = -1 };
}

int tracked_scan(const struct tracking *tracking, struct tracked *tracked, const struct vma *vma,
		 uint64_t start, uint64_t end, struct page_runs *changed, struct page_runs *unchanged)
{
	const struct vma_saving *saving = vma_how_saved(vma);
	struct scan scan = {
		.start = start,
		.end = end,
		.is_file = saving->is_over_file,
		.known = &tracked->known,
	};
	int result;

	if (tracked->is_trusted && saving->is_noted)
		scan.note = tracking->looks->note;
	if (tracking->begins == &tracker_soft_dirty && tracker_soft_dirty.vouches(tracked, vma))
		scan.noted = &tracked->noted;
	result = scan_pages(tracked->scanner, &scan, changed, unchanged);
	/* Only asked about what there is: to vouch for a mapping may cost a system call. */
	if (!result && unchanged->count && !tracking->looks->vouches(tracked, vma)) {
		page_runs_free(changed);
		page_runs_free(unchanged);
		scan.note = NOTE_NOTHING;
		scan.noted = NULL;
		result = scan_pages(tracked->scanner, &scan, changed, unchanged);
	}
	return result;
}

static int compare(const struct content *content, page_source *source, void *from, struct page_runs *changed,
		   struct page_runs *unchanged)
{
	struct page_runs own = *changed;
	int result;

	*changed = (struct page_runs){ 0 };
	result = content_compare(content, &own, source, from, changed, unchanged);
	page_runs_free(&own);
	return result;
}

/* What a mapping is compared with: all of a task of which nothing was noted; else only what nobody notes. NULL: nothing. */
static const struct content *content_of(const struct tracked *tracked, const struct vma *vma,
					const struct page_runs *changed)
{
	if (content_is_open(&tracked->content))
		return &tracked->content;
	if (vma_how_saved(vma)->is_over_file && page_runs_total(changed) <= FILE_PAGES_MOST)
		return &tracked->file_pages;
	return NULL;
}

int tracked_plan(struct tracked *tracked, const struct vma *vma, struct page_runs *changed,
		 struct page_runs *unchanged, struct page_runs *plan)
{
	const struct content *content = content_of(tracked, vma, changed);
	int result = 0;

	tracked->memory.has_relatives = vma->has_relatives;
	if (content && content_is_open(content))
		result = compare(content, pages_of_task, &tracked->memory, changed, unchanged);
	if (!result)
		page_runs_plan(changed, unchanged, &tracked->parent, plan);
	page_runs_free(changed);
	page_runs_free(unchanged);
	return result;
}

int tracking_plan_shared(struct tracking *tracking, unsigned long id, page_source *source, void *from,
			 struct page_runs *own, struct page_runs *plan)
{
	struct page_runs unchanged = { 0 };
	struct content content = { 0 };
	int result = 0;

	if (tracking->chain)
		result = tracking_open_content(tracking, &content, IMAGE_SHMEM_PAGEMAP, id);
	if (result == -ENOENT)
		result = 0;
	if (!result && content_is_open(&content))
		result = compare(&content, source, from, own, &unchanged);
	if (!result)
		page_runs_plan(own, &unchanged, &content.pages, plan);
	page_runs_free(own);
	page_runs_free(&unchanged);
	content_close(&content);
	return result;
}
