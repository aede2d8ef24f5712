/*
 * parasite.h - the region that compel maps into a victim, and what it says to the code there.
 *
 * Freestanding: read by compel, by the parasite blob and by its assembly. One region, all offsets fixed:
 *
 *	      0  code     the blob; begins with its header
 *	   4000  state    struct parasite_state
 *	   5000  home     the way home of the thread we borrowed: copied to its own stack when criu died
 *	   9000  stack    grows down from its end
 *	   c000  calls    struct remote_call[], as received
 *	  14000  scratch  arguments and results of calls
 *	  40000  end
 */
#ifndef PARASITE_H
#define PARASITE_H

#define PARASITE_CODE	 0x0
#define PARASITE_STATE	 0x4000
#define PARASITE_HOME	 0x5000
#define PARASITE_STACK	 0x9000
#define PARASITE_CALLS	 0xc000
#define PARASITE_SCRATCH 0x14000
#define PARASITE_SIZE	 0x40000

/* Offsets in struct parasite_state, for assembly. */
#define PARASITE_STATE_HOME_STACK     8
#define PARASITE_STATE_SYSCALL_RETURN 24

#ifndef __ASSEMBLY__

#include <stdint.h>

/* At offset 0 of the blob: offsets of its entries. */
struct parasite_header {
	uint32_t serve; /* answers calls from state.sockets[0] until that is closed, then `bail` */
	uint32_t call;	/* a `syscall` that goes on to `bail` */
	uint32_t bail;	/* takes all of us out of the task, and the thread to where it was */
	uint32_t size;	/* of the blob */
};

struct parasite_state {
	int32_t sockets[2];	 /* ours, criu's; -1: closed. Written by socketpair() itself */
	uint64_t home_stack;	 /* where the way home belongs on the thread's stack … */
	uint64_t home_size;	 /* … and its size; it lies at PARASITE_HOME until then */
	uint64_t syscall_return; /* `syscall; ret` in the task's own code; 0: there is none */
	int32_t userfaultfd;	 /* made by a call and not closed by one yet; -1: none */
	int32_t back_count; /* calls to be made first of all when criu has died: see victim_call_for_now() */
	struct {
		int64_t number;
		uint64_t arguments[2];
	} back[2];
};

#endif
#endif
