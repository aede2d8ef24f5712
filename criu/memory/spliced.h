/*
 * spliced.h - pages of a task in pipes: vmsplice(2) takes references to them while it is frozen, and they are read out
 * of the pipes when it runs on (--pre-dump-mode splice).
 *
 * A page in a pipe is still the task's page: later writes to it are visible. But it stays, even if the mapping goes.
 * Pages that do not fit into pipes are read from the task: pages in pipes cannot be swapped, and count for the task's
 * user, who gets only small pipes when there are too many (pipe(7): pipe-user-pages-soft).
 */
#ifndef CRIU_MEMORY_SPLICED_H
#define CRIU_MEMORY_SPLICED_H

#include "compiler.h"
#include "memory/pages.h"
#include "model/snapshot.h"

struct spliced {
	struct task_memory *memory; /* for the rest; not owned */
	struct page_runs taken;	    /* pages in the pipes, in this order */
	int *pipes;		    /* reading ends of the pipes */
	size_t pipe_count;
	/* how far the pipes have been read */
	size_t run, pipe;
};

/* The number of pages that one dump may put into pipes: half of what a user may have. */
uint64_t spliced_budget(void);
/*
 * Takes pages of `runs`, sorted, of a frozen task: as many as there are pipes for, and as the budget allows. It inserts
 * the parasite for that; if that is not possible, it takes nothing. 0 or -errno, recorded. To be closed in any case;
 * all zero is fine.
 */
int spliced_take(struct spliced *spliced, struct task *task, struct task_memory *memory,
		 const struct page_runs *runs, uint64_t *budget) must_check;
void spliced_close(struct spliced *spliced);
/*
 * The source of pages; `from` is a struct spliced *. Every page that was taken must be read, once, in ascending order.
 */
page_source pages_of_pipes;

#endif
