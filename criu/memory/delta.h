/*
 * delta.h - what one task, or one shared memory, has that the parent snapshot has not.
 *
 * Order, for each task: task_delta_open, task_delta_scan, increment_begin_notes while it is frozen; task_delta_plan and reading then, or
 * later if it is a pre-dump; task_delta_close.
 */
#ifndef CRIU_MEMORY_DELTA_H
#define CRIU_MEMORY_DELTA_H

#include "compiler.h"
#include "memory/increment.h"

struct task_delta {
	struct task *task;
	struct scanner *scanner;
	struct task_memory memory;
	bool is_trusted;	    /* what the parent's notes say of it */
	bool is_busy;		    /* a device may be writing to it: its writes cannot be noted now */
	struct frames known, noted; /* for soft-dirty: the parent's, and those for the next */
	uint64_t *witnesses;	    /* addresses, for soft-dirty: see soft_dirty.c */
	size_t witness_count;
	struct page_runs parent;   /* what the parent has of it */
	struct content content;	   /* if it is not trusted: all of it is compared … */
	struct content file_pages; /* … if it is: what nobody notes */
	int userfaultfd;	   /* of its memory; -1 */
};

/* 0 or -errno, recorded. To be closed in any case. */
int task_delta_open(struct task_delta *delta, struct increment *increment, struct task *task) must_check;
void task_delta_close(struct task_delta *delta);
/*
 * Do both mappings, of which the second follows the first, count as one for the following functions? Only where nothing is asked about
 * single mappings: nobody has noted what was written to them. Addresses between them that are not mapped hold no pages.
 */
bool task_delta_may_join(const struct increment *increment, const struct task_delta *delta,
			 const struct vma *vma, const struct vma *next);
/* What the task has in [start, end) of a private mapping, or of several that are one, into two empty lists. */
int task_delta_scan(const struct increment *increment, struct task_delta *delta, const struct vma *vma,
		    uint64_t start, uint64_t end, struct page_runs *changed, struct page_runs *unchanged)
	must_check;
/* What becomes of it in the snapshot: see page_runs_plan(). Both are used up. */
int task_delta_plan(struct task_delta *delta, const struct vma *vma, struct page_runs *changed,
		    struct page_runs *unchanged, struct page_runs *plan) must_check;

/* Shared memory is always compared by content: it can be written through a mapping that is gone by now. */
int shared_delta_plan(struct increment *increment, unsigned long id, page_source *source, void *from,
		      struct page_runs *own, struct page_runs *plan) must_check;

#endif
