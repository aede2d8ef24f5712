/*
 * twin_space.h - a pid namespace, where twins (twin.c) become children of its first process. That does nothing, and ends
 * with criu; with it, the kernel ends all twins.
 */
#ifndef CRIU_DUMP_TWIN_SPACE_H
#define CRIU_DUMP_TWIN_SPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "compiler.h"
#include "kernel/proc.h"

/* For the twins of all processes with the same rights. */
struct twin_space {
	uint32_t uid; /* of the owner of its user namespace */
	bool has_user;
	int user, pids; /* descriptors; -1 */
	pid_t first;
};

struct twin_spaces {
	struct twin_space *items;
	size_t count;
};

/* The index of the one for a process with this status; it is made if there is none yet. 0 or -errno, recorded. */
int twin_spaces_find(struct twin_spaces *spaces, const struct proc_status *status, size_t *found) must_check;
/* Ends all twins; it may take a while until their memory is free. */
void twin_spaces_close(struct twin_spaces *spaces);

#endif
