/*
 * board.h - what the driver and the tasks of a script share: the addresses of the script's memory, and the board. The
 * board is a page of a file that all of them map. The driver writes orders to it, and tasks write how far they are.
 *
 * One task runs at a time, for as many steps as ordered. All others wait for a futex on the board. Snapshots do not
 * contain the board: the driver saves its content, and writes it back before a restore.
 */
#ifndef TEST_CHAIN_BOARD_H
#define TEST_CHAIN_BOARD_H

#include <stdint.h>

#define PAGE 4096UL
#define MIB  (1UL << 20)

/* All addresses are fixed, so that a script behaves the same each time, and after a restore. */
#define ARENA	      0x100000000000UL
#define ARENA_PAGES   2048UL	       /* four page tables */
#define CROWDED_PAGES 384UL	       /* most mappings are created here, so that they overlap */
#define FAR	      0x200000000000UL /* one large mapping with few pages in it */
#define FAR_SIZE      (256UL << 20)
#define GROWING_TOP   0x280000000000UL /* the end of a mapping that grows downwards */
#define STATE	      0x300000000000UL /* struct state */
#define THREAD_STACKS 0x310000000000UL
#define THREAD_STACK  (64UL << 10)

#define FILE_PAGES 64UL /* of the file that is mapped MAP_PRIVATE */
#define SLOTS	   6	/* tasks at a time; slot 0 is the root */
#define THREADS	   2	/* helpers of a task */
#define LOG_SIZE   4096

enum slot_state {
	SLOT_FREE,
	SLOT_LIVE,
	SLOT_GONE, /* has ended, or is about to; its parent reaps it and frees the slot */
};

struct slot {
	uint32_t order, done; /* steps: how many it has to do in total, how many it has done */
	uint32_t state, parent;
	int32_t pid;
};

/* A step of a task, and a range that it worked on. */
struct log_entry {
	uint32_t step, slot;
	uint64_t start, end;
	char operation[32];
};

struct board {
	struct slot slots[SLOTS];
	uint32_t step, log_count;
	char trouble[200]; /* an error of the script itself, not of what it tests */
	struct log_entry log[LOG_SIZE];
};

/* The state of a task, at STATE: private memory, so that snapshots contain it. The driver reads it from outside. */
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
