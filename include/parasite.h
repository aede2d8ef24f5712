/*
 * parasite.h - the region that compel maps into a victim, and the protocol with the code there.
 *
 * Freestanding: read by compel, by the parasite blob and by its assembly. One region, all offsets fixed:
 *
 *	      0  code     the blob; begins with its header
 *	   4000  state    struct parasite_state
 *	   5000  home     the way home of the thread we borrowed: copied to its own stack when criu died
 *	   9000  stack    grows down from its end
 *	   c000  calls    struct remote_call[], as received
 *	  14000  scratch  arguments and results of calls; or desks, one for each thread that makes calls of its own
 *	  90000  end
 */
#ifndef PARASITE_H
#define PARASITE_H

#define PARASITE_CODE	 0x0
#define PARASITE_STATE	 0x4000
#define PARASITE_HOME	 0x5000
#define PARASITE_STACK	 0x9000
#define PARASITE_CALLS	 0xc000
#define PARASITE_SCRATCH 0x14000
#define PARASITE_SIZE	 0x90000

/* Offsets in struct parasite_state, for assembly. */
#define PARASITE_STATE_HOME_STACK     8
#define PARASITE_STATE_SYSCALL_RETURN 24
#define PARASITE_STATE_WORKING	      40
#define PARASITE_STATE_STAYS	      44

/*
 * A desk holds the work of one thread that makes its calls in the region. It begins with a struct parasite_desk; compel
 * decides the layout of the rest. A word in the state, which is a futex, tells whether a thread is at the desk. All
 * wait twice for each other, on busy CPUs for some milliseconds, so there are many desks.
 */
#define PARASITE_DESKS	    248
#define PARASITE_DESK_SIZE  2048
#define PARASITE_DESK_WORD  0
#define PARASITE_DESK_CALLS 8
#define PARASITE_DESK_HOME  16
#define PARASITE_DESK_COUNT 24
#define DESK_FREE	    0
#define DESK_TAKEN	    1 /* the thread is in the region, or about to be */
#define DESK_TO_LEAVE \
	2 /* criu has died, or gives up: the thread must leave, and frees the desk when it has left */

#ifndef __ASSEMBLY__

#include <stdint.h>

/* At offset 0 of the blob: offsets of its entries. */
struct parasite_header {
	uint32_t serve; /* answers calls from state.sockets[0] until that is closed, then `bail` */
	uint32_t call;	/* a `syscall` that goes on to `bail` */
	uint32_t bail;	/* removes the parasite from the task, and sends the thread back to where it was */
	uint32_t work; /* for any thread: makes the calls of a desk, and waits there to be taken back or sent home */
	uint32_t size; /* of the blob */
};

struct parasite_state {
	int32_t sockets[2];  /* the parasite's end, criu's end; -1: closed. Written by socketpair() itself */
	uint64_t home_stack; /* where the way home belongs on the thread's stack … */
	uint64_t home_size;  /* … and its size; it lies at PARASITE_HOME until then */
	uint64_t syscall_return; /* code of the task that makes a system call and returns; 0: there is none */
	int32_t userfaultfd;	 /* created by a call and not closed yet; -1: none */
	int32_t back_count;	 /* calls to make first when criu has died: see victim_call_for_now() */
	uint32_t working;	 /* futex: the number of threads that still have calls to make */
	uint32_t stays;		 /* 1: a thread may still be in the region, so it stays mapped */
	uint32_t desk_count;	 /* desks that are in use, at PARASITE_SCRATCH … */
	struct {
		int64_t number;
		uint64_t arguments[2];
	} back[2];
	uint32_t words[PARASITE_DESKS]; /* … and a word for each: DESK_* */
};

struct parasite_desk {
	uint64_t word;	/* where its word is */
	uint64_t calls; /* struct remote_call[count] */
	uint64_t home;	/* the stack pointer with which `ret` leads home */
	uint32_t count;
};

#endif
#endif
