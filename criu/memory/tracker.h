/*
 * tracker.h - snapshots in a chain: which pages are still as the parent snapshot has them, and who notes from now on which pages
 * are written.
 *
 * The two need not be the same tracker: a parent that was made by another criu can be asked by soft-dirty bits only, while the
 * child begins with what is best here. What a tracker cannot vouch for is compared, or counts as changed. So a note that was lost makes a snapshot
 * larger, never wrong.
 *
 * Order, for each task: tracked_open, tracked_scan, tracked_begin while it is frozen; tracked_plan and reading then, or later
 * if it is a pre-dump; tracked_close.
 */
#ifndef CRIU_MEMORY_TRACKER_H
#define CRIU_MEMORY_TRACKER_H

#include "compiler.h"
#include "memory/content.h"
#include "memory/keeper.h"
#include "memory/pages.h"
#include "memory/scan.h"
#include "model/snapshot.h"
#include "tracking.pb-c.h"

struct tracked;
struct tracking;

/* What the parent has of a task, or of a shared memory, read before the freeze. */
struct prepared {
	enum image_kind kind;
	unsigned long id;
	bool is_of_files; /* of a task: only what its private mappings of files have */
	struct content content;
};

/* soft_dirty.c, written.c; the third, by content, needs none of the callbacks. */
struct tracker {
	const char *name;    /* in --track-mem, the log and the statistics */
	uint32_t number;     /* in tracking.img */
	enum page_note note; /* the one it scans for; NOTE_NOTHING: it compares hashes */
	const char *probe;   /* the test of kernel/probe.h that it needs; NULL: works everywhere */
	/* The task is frozen. Can what the parent snapshot began to note of this task be believed … */
	bool (*resumes)(struct tracking *tracking, struct tracked *tracked);
	bool (*vouches)(const struct tracked *tracked, const struct vma *vma); /* … and of this mapping? */
	/* From now on. 0, or -errno, not recorded: this task cannot be noted; *why is a text for the log. */
	int (*begin)(struct tracking *tracking, struct tracked *tracked, const char **why) must_check;
};
extern const struct tracker tracker_soft_dirty, tracker_written, tracker_content;

/* One snapshot's. All zero is one that neither has a parent nor begins to track. */
struct tracking {
	struct image_store *images;
	uint64_t snapshot, seed;      /* names the snapshot; for hashes */
	const struct tracker *begins; /* NULL: nothing is to be noted */
	const struct tracker *looks;  /* NULL: there is no parent */
	const char *reason;	      /* why it is the one that begins */

	/* the parent */
	struct image_store *parent; /* NULL: there is none */
	struct page_chain *chain;   /* the parent's */
	TrackingEntry *noted;	    /* NULL: it has none of its own */
	struct keeper holder;	    /* that the parent left, until we begin */
	bool is_used_up;	    /* what it noted */
	int *taken;		    /* userfaultfds out of it, one a noted task; -1 */
	struct prepared *prepared;  /* to be compared with */
	size_t prepared_count;

	/* what is left for the next one */
	TrackingEntry *entry; /* NULL: nothing yet */
	struct kept *kept;
	size_t kept_count;
	struct keeper keeper;
	char boot_id[64];
};

struct tracking_request {
	int previous;	     /* the parent's directory; -1: none */
	const char *tracker; /* NULL: nothing is to be noted; "": the best that works here; or a name */
	bool runs_on;	     /* the tree goes on afterwards: else there is nothing to note, but hashes */
};

/* Before anything is frozen. 0 or -errno, recorded. To be closed in any case. */
int tracking_open(struct tracking *tracking, struct image_store *images,
		  const struct tracking_request *request) must_check;
void tracking_close(struct tracking *tracking);
/* When all are frozen, before the first task: what the parent noted may have been used up since it was opened. */
void tracking_look_again(struct tracking *tracking);
/* When all tasks have been gone through: tracking.img, and the keeper it names. */
int tracking_save(struct tracking *tracking) must_check;
int tracking_confirm(struct tracking *tracking) must_check; /* the snapshot is complete … */
void tracking_withdraw(struct tracking *tracking);	    /* … or is not */
/* Ends what a snapshot has left to track its processes with; *had_keeper: there was a process. -ENOENT, not recorded: it left nothing. */
int tracking_end(struct image_store *store, bool *had_keeper) must_check;
/*
 * Pages of zeros need no place in an image, but where another criu may go on with the chain (it knows soft-dirty bits): it
 * leaves every clean page to the parent, and looks for it there.
 */
bool tracking_skips_zeros(const struct tracking *tracking);
/* How to hash what is saved of tasks, or of shared memory; NULL: not at all. */
const struct page_hashing *tracking_hashing(const struct tracking *tracking, bool is_shared,
					    struct page_hashing *hashing);

/* For trackers: is it memory whose pages are the task's own? And a userfaultfd of the task's, to be kept for the next snapshot. */
bool tracker_can_note(const struct vma *vma);
void tracking_keep(struct tracking *tracking, struct tracked *tracked);
/* What the parent has, as content_open(); what was prepared is given away once. */
int tracking_open_content(struct tracking *tracking, struct content *content, enum image_kind kind,
			  unsigned long id) must_check;
/* The same of what nobody notes: closed, if nothing was prepared. */
void tracking_open_file_pages(struct tracking *tracking, struct content *content, pid_t pid);
/* What the parent noted of this very process: its place in noted->tasks; -1: nothing. */
ssize_t tracking_find_noted(const struct tracking *tracking, const struct task *task) must_check;

/* ---- one task ---- */

struct tracked {
	struct task *task;
	struct scanner *scanner;
	struct task_memory memory;
	bool is_trusted;	    /* what the parent began to note of it */
	bool is_busy;		    /* a device may be writing to it: it cannot be noted now */
	struct frames known, noted; /* for soft-dirty: the parent's, and those for the next */
	uint64_t *witnesses;	    /* addresses, for soft-dirty: see soft_dirty.c */
	size_t witness_count;
	struct page_runs parent;   /* what the parent has of it */
	struct content content;	   /* if it is not trusted: all of it is compared … */
	struct content file_pages; /* … if it is: what nobody notes */
	int userfaultfd;	   /* of its memory; -1 */
};

/* 0 or -errno, recorded. To be closed in any case. */
int tracked_open(struct tracked *tracked, struct tracking *tracking, struct task *task) must_check;
void tracked_close(struct tracked *tracked);
/* What the task has in [start, end) of a private mapping, into two empty lists. */
int tracked_scan(const struct tracking *tracking, struct tracked *tracked, const struct vma *vma,
		 uint64_t start, uint64_t end, struct page_runs *changed, struct page_runs *unchanged)
	must_check;
/* What becomes of it in the snapshot: see page_runs_plan(). Both are used up. */
int tracked_plan(struct tracked *tracked, const struct vma *vma, struct page_runs *changed,
		 struct page_runs *unchanged, struct page_runs *plan) must_check;
int tracked_begin(struct tracking *tracking, struct tracked *tracked) must_check;

/* Shared memory is always compared by content: it can be written through a mapping that is gone by now. */
int tracking_plan_shared(struct tracking *tracking, unsigned long id, page_source *source, void *from,
			 struct page_runs *own, struct page_runs *plan) must_check;

#endif
