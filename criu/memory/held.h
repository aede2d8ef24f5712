/*
 * held.h - page writers that are still open: what is in their buffers is written when the processes run on. To create
 * their files takes longer than to read a few pages.
 */
#ifndef CRIU_MEMORY_HELD_H
#define CRIU_MEMORY_HELD_H

#include <stdbool.h>
#include "compiler.h"
#include "memory/pages.h"

struct held_writers {
	struct page_writer **items;
	size_t count;
	uint64_t pages; /* in their buffers, all together */
};

/* False: these are too many pages; the caller closes the writer. */
bool held_writers_add(struct held_writers *held, struct page_writer *writer, uint64_t pages) must_check;
/* Writes what is held. After an error, drops it, and returns that error. */
int held_writers_close(struct held_writers *held, int result) must_check;

#endif
