/*
 * everything.h - the kinds of items of everything.c: everything_kinds.h has the table.
 */
#ifndef TEST_EVERYTHING_H
#define TEST_EVERYTHING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define ITEM_FDS 3

struct item_kind;

struct item {
	const struct item_kind *kind;
	long number; /* its own: names and contents depend on it */
	int fds[ITEM_FDS];
	int flags[ITEM_FDS], descriptor_flags[ITEM_FDS];
	ino_t inode;
	uint64_t value;
};

struct item_kind {
	const char *name;
	void (*make)(struct item *item);
	void (*check)(struct item *item);      /* changes nothing; called over and over */
	void (*check_last)(struct item *item); /* may take out what is in it; NULL: like check() */
	long most;	   /* how many there may be: the machine has few of them; 0: any number */
	bool is_only_ours; /* criu 4.2.1 cannot do it as it was */
};

#include "everything_kinds.h"

static const size_t item_kind_count = sizeof(item_kinds) / sizeof(*item_kinds);

#endif
