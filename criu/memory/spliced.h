/*
 * spliced.h - pages of a task in pipes: vmsplice(2) takes references to them while it is frozen, and they are read out of the pipes
 * when it runs on (--pre-dump-mode splice).
 *
 * A page in a pipe is the task's page still: what is written to it later is seen. But it stays, whatever becomes of the mapping.
 * What does not fit into pipes, for there are limits on them and on descriptors, is read from the task.
 */
#ifndef CRIU_MEMORY_SPLICED_H
#define CRIU_MEMORY_SPLICED_H

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

/*
 * Takes pages of `runs`, sorted, of a frozen task: as many as there are pipes for. It goes into the task for that. 0 or -errno, recorded.
 * To be closed in any case; all zero is fine.
 */
int spliced_take(struct spliced *spliced, struct task *task, struct task_memory *memory,
		 const struct page_runs *runs);
void spliced_close(struct spliced *spliced);
/* The source of pages, `from`: struct spliced *. All that was taken is to be asked for, once, in ascending order. */
page_source pages_of_pipes;

#endif
