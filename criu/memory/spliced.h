/*
 * spliced.h - pages of a task in pipes: vmsplice(2) takes references to them while it is frozen, and they are read out of the pipes
 * when it runs on (--pre-dump-mode splice).
 *
 * A page in a pipe is the task's page still: what is written to it later is seen. But it stays, whatever becomes of the mapping.
 * What does not fit into pipes is read from the task: pages in pipes cannot be swapped, and count for the task's user, who gets but small
 * pipes when there are too many (pipe(7): pipe-user-pages-soft).
 */
#ifndef CRIU_MEMORY_SPLICED_H
#define CRIU_MEMORY_SPLICED_H

#include "compiler.h"
#include "memory/pages.h"
#include "model/snapshot.h"

struct spliced {
	struct task_memory *memory; /* for the rest; not ours */
	struct page_runs taken;	    /* what is in the pipes, in this order */
	int *pipes;		    /* their reading ends */
	size_t pipe_count;
	/* how far they have been read */
	size_t run, pipe;
};

/* How many pages one dump may put into pipes: half of what a user may have. */
uint64_t spliced_budget(void);
/*
 * Takes pages of `runs`, sorted, of a frozen task: as many as there are pipes for, and as the budget has left. It goes into the task for
 * that; where it cannot, nothing is taken. 0 or -errno, recorded. To be closed in any case; all zero is fine.
 */
int spliced_take(struct spliced *spliced, struct task *task, struct task_memory *memory,
		 const struct page_runs *runs, uint64_t *budget) must_check;
void spliced_close(struct spliced *spliced);
/* The source of pages, `from`: struct spliced *. All that was taken is to be asked for, once, in ascending order. */
page_source pages_of_pipes;

#endif
