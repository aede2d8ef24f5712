/*
 * restorer.h - the interface between criu and the restorer: the region in a newborn, and the board that all share.
 *
 * The region, at an address where the task has no mapping:
 *
 *	0            code of the blob
 *	BOARD        struct restorer_board, one page, shared by criu and all newborns
 *	ARGUMENTS    struct restorer_arguments, struct restorer_thread[], lists of calls, the bytes they point to
 *	…            one stack for each thread
 *
 * Positions are offsets from the start of the region.
 */
#ifndef RESTORER_H
#define RESTORER_H

#define RESTORER_BOARD	    0x2000
#define RESTORER_ARGUMENTS  0x3000
#define RESTORER_STACK_SIZE 0x2000

#ifndef __ASSEMBLY__
#include <stdint.h>
#include "compel.h"

/* The list that a failed call is in. */
#define RESTORER_LIST_SPACE 0 /* run by the leader: the address space */
#define RESTORER_LIST_SELF  1 /* run by each thread: its own state */
#define RESTORER_THREADS    2 /* creating a thread */

struct restorer_board {
	uint32_t stage;	  /* futex: set by criu; newborns that still run C code wait for it */
	uint32_t arrived; /* futex: the number of threads at the end of their stage; reset by criu */
	uint32_t failed;  /* a thread has given up */
	/* the thread, the place, the reason; the first failure wins */
	int32_t failed_tid, failed_list, failed_index, failed_result;
	uint32_t never; /* futex, never woken: finished threads wait here until criu takes them by ptrace */
};

struct restorer_thread {
	uint64_t call_count;
	uint64_t calls; /* struct remote_call[] */
	uint64_t stack; /* its end */
};

struct restorer_arguments {
	uint64_t space_calls, space_call_count;
	uint64_t threads, thread_count; /* struct restorer_thread[]; [0] is the leader */
	/* int32_t[]: for each thread, its ids in `id_levels` pid namespaces, the innermost first */
	uint64_t ids, id_levels;
	/*
	 * If tasks share the address space: the region of their leader, which lays the space out; the number of the
	 * others
	 */
	uint64_t leader, others;
	/* Futexes, in the leader's region: how many others have left criu's code; 1: the space has its final layout */
	uint32_t left, is_final;
};

/* At offset 0 of the blob. */
struct restorer_header {
	uint32_t start;	  /* entered by a jump: the stack pointer at the end of the leader's stack */
	uint32_t syscall; /* a system call instruction, for the last calls by ptrace */
	uint32_t size;
};

extern const char restorer_blob_start[], restorer_blob_end[];

#endif
#endif
