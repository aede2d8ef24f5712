/* script.h - what the files of the script share: the state of the task, and its operations. */
#ifndef TEST_CHAIN_SCRIPT_H
#define TEST_CHAIN_SCRIPT_H

#include "areas.h"
#include "board.h"
#include "random.h"

#define own ((struct state *)STATE)

extern struct board *board;
extern const char *file_path; /* FILE_PAGES pages that never change */

struct operation {
	const char *name;
	unsigned int weight;
	void (*run)(void);
};

extern const struct operation memory_operations[], write_operations[], task_operations[];

_Noreturn void script_trouble(const char *what);

/* Notes that the current step works on this range, for the report of a difference. */
void note_range(uint64_t start, uint64_t end);

uint64_t below(uint64_t limit);
bool percent(unsigned int chance);

/*
 * A random mapping of the arena that fits, or NULL. The choice does not depend on which mappings the kernel has joined.
 * The result is valid until the next call.
 */
const struct area *pick(bool (*fits)(const struct area *));
bool is_any(const struct area *area);
bool is_writable(const struct area *area);
bool is_shared(const struct area *area);
bool is_anonymous(const struct area *area); /* and private */

/* These survive memory that cannot be written: they stop at the fault. */
void write_bytes(uint64_t address, uint64_t length, uint64_t value);
void write_some(uint64_t start, uint64_t end); /* to a few places of the range */

void tasks_reap(void); /* reaps children that have ended */
_Noreturn void task_begin(uint32_t slot, uint64_t random, uint32_t done, uint32_t children);

#endif
