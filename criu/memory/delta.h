/*
 * delta.h - what one task, or one shared memory, has that differs from the parent snapshot.
 *
 * Order, for each task: task_delta_open, task_delta_scan, increment_begin_notes while it is frozen; task_delta_plan and
 * reading then, or later if it is a pre-dump; task_delta_close.
 */
#ifndef CRIU_MEMORY_DELTA_H
#define CRIU_MEMORY_DELTA_H

#include "compiler.h"
#include "memory/increment.h"

struct task_delta {
	struct task *task;
	struct scanner *scanner;
	struct task_memory memory;
	bool is_trusted;	    /* the parent's notes about it can be trusted */
	bool is_busy;		    /* a device may be writing to it, so writes cannot be tracked now */
	struct frames known, noted; /* for soft-dirty: the parent's, and those for the next */
	uint64_t *witnesses;	    /* addresses, for soft-dirty: see soft_dirty.c */
	size_t witness_count;
	struct page_runs parent; /* the parent's pages of it */
	struct content
		content; /* the parent's content to compare with: of all memory, if is_trusted is false … */
	struct content file_pages; /* … of memory that is not tracked, if is_trusted is true */
	int userfaultfd;	   /* of its memory; -1 */
};

/* 0 or -errno, recorded. To be closed in any case. */
int task_delta_open(struct task_delta *delta, struct increment *increment, struct task *task) must_check;
void task_delta_close(struct task_delta *delta);
/*
 * May two mappings, one behind the other, be passed to the following functions as one range? Only if no tracker is
 * asked about single mappings. Unmapped addresses between them hold no pages.
 */
bool task_delta_may_join(const struct increment *increment, const struct task_delta *delta,
			 const struct vma *vma, const struct vma *next);
/* The task's own pages in [start, end) of a private mapping, or of several that are joined, in two empty lists. */
int task_delta_scan(const struct increment *increment, struct task_delta *delta, const struct vma *vma,
		    uint64_t start, uint64_t end, struct page_runs *changed, struct page_runs *unchanged)
	must_check;
/* Plans what the snapshot saves: see page_runs_plan(). Both lists are used up. */
int task_delta_plan(struct task_delta *delta, const struct vma *vma, struct page_runs *changed,
		    struct page_runs *unchanged, struct page_runs *plan) must_check;

/* Shared memory is always compared by content, because it can have been written through a mapping that is gone. */
int shared_delta_plan(struct increment *increment, unsigned long id, page_source *source, void *from,
		      struct page_runs *own, struct page_runs *plan) must_check;

#endif
