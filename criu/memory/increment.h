/*
 * increment.h - one dump in a chain of snapshots: what its parent snapshot has and has noted, and what it notes itself
 * for the next one.
 *
 * The tracker that tells what has changed since the parent, and the one that notes writes from now on, need not be the
 * same: after a parent that another criu has made, only soft-dirty bits can tell the changes, but from then on the best
 * tracker is used. What no tracker vouches for is compared, or counts as changed. So notes that are lost make a
 * snapshot larger, never wrong.
 */
#ifndef CRIU_MEMORY_INCREMENT_H
#define CRIU_MEMORY_INCREMENT_H

#include "compiler.h"
#include "memory/content.h"
#include "memory/keeper.h"
#include "memory/pages.h"
#include "memory/tracker.h"
#include "model/snapshot.h"
#include "tracking.pb-c.h"

/* What the parent has of a task, or of a shared memory, read before the freeze. */
struct prepared {
	enum image_kind kind;
	unsigned long id;
	bool is_of_files; /* of a task: only what its private mappings of files have */
	struct content content;
};

/* All zero: a dump without a parent that does not track writes for a child. */
struct increment {
	struct image_store *images;
	uint64_t snapshot, seed;       /* id of the snapshot; seed of its hashes */
	const struct tracker *tracker; /* tracks writes from now on; NULL: none */
	const char *reason;	       /* why it was chosen */

	/* the parent: increment_parent.c */
	const struct tracker *parent_tracker; /* finds what has changed since; NULL: no parent */
	struct image_store *parent;	      /* NULL: there is none */
	struct page_chain *chain;	      /* the parent's */
	TrackingEntry *parent_notes;	      /* NULL: none, or not valid */
	bool are_notes_used_up;		      /* … by this dump */
	struct keeper parent_keeper;	      /* ends when this dump begins to track */
	int *parent_userfaultfds;	      /* taken from it, one for each task in its notes; -1 */
	struct prepared *prepared;	      /* read in advance for comparison */
	size_t prepared_count;

	/* what is left for the next one */
	TrackingEntry *notes; /* NULL: nothing yet */
	struct kept *kept;
	size_t kept_count;
	struct keeper keeper;
	char boot_id[64];
};

struct increment_request {
	int previous;	     /* the parent's directory; -1: none */
	const char *tracker; /* NULL: no tracking; "": the best that works here; or a name */
	bool runs_on; /* the tree continues; otherwise there is nothing to track, but hashes are written */
};

/* Before anything is frozen. 0 or -errno, recorded. To be closed in any case. */
int increment_open(struct increment *increment, struct image_store *images,
		   const struct increment_request *request) must_check;
void increment_close(struct increment *increment);
/*
 * When all are frozen, before the first task: checks whether the parent's notes have been used up since they were read.
 */
void increment_look_again(struct increment *increment);
/*
 * The task is frozen, and all of its pages have been listed: from now on its writes are tracked for the next snapshot.
 */
int increment_begin_notes(struct increment *increment, struct task_delta *delta) must_check;
/* When all tasks are done: writes tracking.img, and starts the keeper that it names. */
int increment_save(struct increment *increment) must_check;
int increment_confirm(struct increment *increment) must_check; /* the snapshot is complete … */
/* … and another one follows at once: its tracking ends when this descriptor is closed. -1: it needs none. */
int increment_keep_for_now(struct increment *increment) must_check;
void increment_withdraw(struct increment *increment); /* … or is not */
/*
 * Ends the tracking that a snapshot has left; *had_keeper: there was a keeper process. -ENOENT, not recorded: it left
 * none.
 */
int increment_end(struct image_store *store, bool *had_keeper) must_check;
/*
 * Pages of zeros need not be saved, unless another criu may continue the chain (it knows soft-dirty bits): it leaves
 * every clean page to the parent, and expects it there.
 */
bool increment_skips_zeros(const struct increment *increment);
/* How to hash saved pages of tasks, or of shared memory; NULL: not at all. */
const struct page_hashing *increment_hashing(const struct increment *increment, bool is_shared,
					     struct page_hashing *hashing);

/* For trackers: keeps a userfaultfd of the task's memory for the next snapshot. */
void increment_keep(struct increment *increment, struct task_delta *delta);
/* The index of this very process in parent_notes->tasks; -1: none. */
ssize_t increment_find_noted(const struct increment *increment, const struct task *task) must_check;
/* Opens the parent's content, as content_open(); prepared content is handed out once. */
int increment_open_content(struct increment *increment, struct content *content, enum image_kind kind,
			   unsigned long id) must_check;
/* The same for memory that is not tracked. The content stays closed if nothing was prepared. */
void increment_open_file_pages(struct increment *increment, struct content *content, pid_t pid);

#endif
