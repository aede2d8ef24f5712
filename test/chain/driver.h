/*
 * driver.h - the files of the driver, which runs a script and takes its snapshots.
 *
 * The driver is the first process of a pid namespace. So pids are the same in each run, no other process takes a pid
 * that a restore needs, and nothing survives the driver.
 */
#ifndef TEST_CHAIN_DRIVER_H
#define TEST_CHAIN_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include "areas.h"
#include "board.h"
#include "random.h"

#define SNAPSHOTS_MAX 100

/* The options, and what the run is doing at the moment, for messages of failures. */
struct run {
	const char *criu, *peer, *script, *tracker;
	uint64_t seed;
	unsigned int snapshots;
	bool keeps, peer_dumps, peer_restores, can_pre_dump, can_dedup, can_flatten;
	char directory[100], board_path[120], file_path[120];
	char doing[160]; /* "restore of snapshot 3" */
	struct board *board;
};

/* Reports that the seed has failed, with what it was doing, and ends the driver. */
_Noreturn void failed(const struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* tree.c */
#define THREADS_SEEN (THREADS + 1)

struct quiet {
	size_t count;
	uint64_t stacks[THREADS_SEEN]; /* stack pointers of a task's threads */
};

void tree_make_files(struct run *run);
void tree_start(struct run *run);
void tree_let_run(struct run *run, uint64_t seed); /* orders some steps of some tasks */
void tree_rest(struct run *run);		   /* returns when all tasks wait */
void tree_look(struct run *run, int pid, struct quiet *quiet);
void tree_kill(struct run *run); /* and waits until no other process is left in the namespace */

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
	struct page *pages; /* sorted; pages that are missing here are zeros */
	uint8_t (*bytes)[PAGE];
};

struct capture {
	size_t count;
	struct captured_task tasks[SLOTS];
};

/* `gently`: does not create pages in the task by reading them. */
void capture_take(struct run *run, struct capture *capture, bool gently);
void capture_write(struct run *run, const struct capture *capture, const char *path);
void capture_read(struct run *run, struct capture *capture, const char *path);
void capture_free(struct capture *capture);

/* compare.c: ends the driver at the first difference */
enum extent {
	ALL,	     /* pids and all memory: the tasks have not run in between */
	SCRIPT_ONLY, /* memory of the script's operations: libc's own addresses may differ */
};

void compare(struct run *run, const struct capture *expected, const struct capture *found,
	     enum extent extent);

/* commands.c */
enum snapshot_kind { PRE_DUMP, DUMP_LEAVE_RUNNING, DUMP };

/*
 * `name` and `parent` are directories of images, beside each other. `parent` may be NULL. All of these end the driver
 * if criu fails.
 */
void command_dump(struct run *run, enum snapshot_kind kind, const char *name, const char *parent);
void command_dump_that_fails(struct run *run, const char *name, const char *parent, const char *step);
void command_restore(struct run *run, const char *name);
void command_on(struct run *run, const char *command, const char *name); /* dedup, flatten */

/* losses.c: damages a tracker or the chain, and returns what it did; NULL if nothing was possible. */
const char *loss_inflict(struct run *run, uint64_t *random, const char *last);

/* probe.c: NULL, or why this kernel does not support the tracker */
const char *probe_tracker(const char *tracker);

#endif
