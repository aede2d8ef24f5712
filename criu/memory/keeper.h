/*
 * keeper.h - a small process that holds userfaultfds between two snapshots: when the last descriptor of one is closed,
 * the kernel forgets its tracking data.
 *
 * A keeper only holds descriptors. The next snapshot finds it by tracking.img, takes the descriptors out of it with
 * pidfd_getfd(), starts a new keeper, and ends this one. It ends by itself when the last of the processes has ended,
 * and when tracking.img is deleted, because then it cannot be found any more.
 */
#ifndef CRIU_MEMORY_KEEPER_H
#define CRIU_MEMORY_KEEPER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "compiler.h"

struct kept {
	int userfaultfd;
	int pidfd; /* of the process it belongs to */
};

struct keeper {
	pid_t pid;
	uint64_t started; /* clock ticks since boot */
	int pidfd;
	int confirm; /* closed without a byte: the keeper ends; -1 */
};

/*
 * Descriptors keep their numbers in the keeper. `directory` is that of the images. Until keeper_confirm(), the keeper
 * ends when criu does. 0 or -errno, recorded.
 */
int keeper_start(struct keeper *keeper, const struct kept *kept, size_t count, int directory) must_check;
int keeper_confirm(struct keeper *keeper) must_check;
/* Finds the keeper of an earlier snapshot; -ESRCH, not recorded: it is gone. */
int keeper_find(struct keeper *keeper, pid_t pid, uint64_t started) must_check;
/* Takes one of its descriptors; -errno, not recorded. */
int keeper_take(const struct keeper *keeper, int fd) must_check;
void keeper_end(struct keeper *keeper); /* also of a keeper that was never started (all zero) */
/* Forgets it without ending it. */
void keeper_forget(struct keeper *keeper);

#endif
