/*
 * board.h - what the driver and the tasks of a script have in common: where the script's memory lies, and a page of a
 * file, mapped by all of them, on which the driver gives orders and tasks tell how far they are.
 *
 * One task moves at a time, by as many steps as it was ordered; all others wait in a futex of the board. The board is
 * no part of a snapshot: the driver puts back what stood on it before it restores one.
 */
#ifndef TEST_CHAIN_BOARD_H
#define TEST_CHAIN_BOARD_H

#include <stdint.h>

#define PAGE 4096UL
#define MIB  (1UL << 20)

/* Everything lies at fixed addresses: a script behaves the same each time, and after a restore. */
#define ARENA	      0x100000000000UL
#define ARENA_PAGES   2048UL	       /* four page tables */
#define CROWDED_PAGES 384UL	       /* most mappings are made here, so that they meet */
#define FAR	      0x200000000000UL /* one large mapping with few pages in it */
#define FAR_SIZE      (256UL << 20)
#define GROWING_TOP   0x280000000000UL /* the end of a mapping that grows downwards */
#define STATE	      0x300000000000UL /* struct state */
#define THREAD_STACKS 0x310000000000UL
#define THREAD_STACK  (64UL << 10)

#define FILE_PAGES 64UL /* of the file that is mapped privately */
#define SLOTS	   6	/* tasks at a time; slot 0 is the root */
#define THREADS	   2	/* helpers of a task */
#define LOG_SIZE   4096

enum slot_state {
	SLOT_FREE,
	SLOT_LIVE,
	SLOT_GONE, /* has ended, or is about to; its parent takes it away and frees the slot */
};

struct slot {
	uint32_t order, done; /* steps: so many in all, so many are behind it */
	uint32_t state, parent;
	int32_t pid;
};

/* A step of a task, and one range that it worked on. */
struct log_entry {
	uint32_t step, slot;
	uint64_t start, end;
	char operation[32];
};

struct board {
	struct slot slots[SLOTS];
	uint32_t step, log_count;
	char trouble[200]; /* the script itself is broken, not what is being tested */
	struct log_entry log[LOG_SIZE];
};

/* A task's own: at STATE, private, so that a snapshot has it. The driver reads it from outside. */
struct state {
	uint64_t random;
	uint32_t slot, done, children, threads;
	uint64_t heap_start;
	struct {
		uint32_t work, finished; /* futexes */
		uint64_t address, length, value;
	} helpers[THREADS];
	/* After MADV_FREE, until it is written, a page may become zeros at any time. */
	uint8_t is_lazy[ARENA_PAGES];
};

#endif
