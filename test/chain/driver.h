/*
 * driver.h - the rooms of the driver, which takes a script through its snapshots.
 *
 * The driver is the first process of a pid namespace: pids are the same in each run, nobody else takes one that is to
 * come back, and nothing survives the driver.
 */
#ifndef TEST_CHAIN_DRIVER_H
#define TEST_CHAIN_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include "areas.h"
#include "board.h"
#include "random.h"

#define SNAPSHOTS_MAX 100

/* What the command line says, and where the run is: for the words of a failure. */
struct run {
	const char *criu, *peer, *script, *tracker;
	uint64_t seed;
	unsigned int snapshots;
	bool keeps, peer_dumps, peer_restores, can_pre_dump, can_dedup, can_flatten;
	char directory[100], board_path[120], file_path[120];
	char doing[160]; /* "restore of snapshot 3" */
	struct board *board;
};

/* The current seed has failed: says so with what it was doing, and ends the driver. */
_Noreturn void failed(const struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* tree.c */
#define THREADS_SEEN (THREADS + 1)

struct quiet {
	size_t count;
	uint64_t stacks[THREADS_SEEN]; /* stack pointers of a task's threads */
};

void tree_make_files(struct run *run);
void tree_start(struct run *run);
void tree_let_run(struct run *run, uint64_t seed); /* some steps of some tasks */
void tree_rest(struct run *run);		   /* returns when all wait */
void tree_look(struct run *run, int pid, struct quiet *quiet);
void tree_kill(struct run *run); /* and waits until nobody is left in the namespace */

/* capture.c: every byte of every task */
enum page_kind { PAGE_DATA, PAGE_UNREADABLE };

struct page {
	uint64_t address;
	uint32_t kind, bytes; /* the number of its bytes among those of the task */
};

struct captured_task {
	int pid;
	uint32_t slot;
	struct quiet quiet;
	uint64_t heap_start;
	uint8_t is_lazy[ARENA_PAGES];
	struct areas areas;
	size_t page_count, byte_count;
	struct page *pages; /* sorted; what is not among them is zeros */
	uint8_t (*bytes)[PAGE];
};

struct capture {
	size_t count;
	struct captured_task tasks[SLOTS];
};

/* Gently: without a page coming into being in the task because it is looked at. */
void capture_take(struct run *run, struct capture *capture, bool gently);
void capture_write(struct run *run, const struct capture *capture, const char *path);
void capture_read(struct run *run, struct capture *capture, const char *path);
void capture_free(struct capture *capture);

/* compare.c: ends the driver at the first difference */
enum extent {
	ALL,	     /* pids and all memory: nothing has happened in between */
	SCRIPT_ONLY, /* what the script's operations work on: both did the same, but for addresses of libc */
};

void compare(struct run *run, const struct capture *expected, const struct capture *found,
	     enum extent extent);

/* commands.c */
enum snapshot_kind { PRE_DUMP, DUMP_LEAVE_RUNNING, DUMP };

/*
 * `name` and `parent` are directories of images, beside each other; no parent: NULL. All end the driver if criu
 * fails.
 */
void command_dump(struct run *run, enum snapshot_kind kind, const char *name, const char *parent);
void command_dump_that_fails(struct run *run, const char *name, const char *parent, const char *step);
void command_restore(struct run *run, const char *name);
void command_on(struct run *run, const char *command, const char *name); /* dedup, flatten */

/* losses.c: what a tracker must notice. Does one of them, and says what it did; NULL: none was possible. */
const char *loss_inflict(struct run *run, uint64_t *random, const char *last);

/* probe.c: NULL, or why this kernel cannot do it */
const char *probe_tracker(const char *tracker);

#endif
