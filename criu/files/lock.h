/*
 * lock.h - one lock, for the sources that work with it: locks.c, leases.c, lock_waiters.c. All others use locks.h.
 */
#ifndef CRIU_FILES_LOCK_H
#define CRIU_FILES_LOCK_H

#include <stdint.h>
#include "compiler.h"
#include "model/snapshot.h"

/* file_lock_entry.flag */
enum { LOCK_POSIX = 1, LOCK_FLOCK = 2, LOCK_OFD = 4, LOCK_LEASE = 8 };

/* file_lock_entry.type of a lease, beside the type that it is broken to */
#define LEASE_IS_BROKEN 4

struct file_lock {
	struct task *task; /* holds it through the descriptor `fd` */
	int fd;
	struct file *file;
	uint32_t flag, type;
	int64_t start, length; /* 0: to the end */

	/* a lease: `type` is what it is after it is broken, if it is being broken, and this what it is until then */
	bool is_broken;
	uint32_t held;

	pid_t taker;   /* dump: whoever took it, as criu sees it; -1: the kernel does not tell */
	uint64_t line; /* dump: a hash of its line in fdinfo, which is the same in /proc/locks */
	size_t number; /* restore: in the image */
};

/* ---- leases.c ---- */

/* Dump, for a lease that is being broken: finds out what it is until then. */
int lease_find_held(struct file_lock *lease) must_check;
/* Restore: what it was, if the image does not tell. */
uint32_t lease_guess_held(const struct snapshot *snapshot, const struct file_lock *lease);
/* In a newborn: takes it, and has it broken again. */
int lease_take(const struct snapshot *snapshot, const struct file_lock *lease) must_check;

/* ---- lock_waiters.c: dump ---- */

/* The hash of a line of /proc/locks or fdinfo, without its number. */
uint64_t lock_line_hash(const char *text);
/* Refuses processes outside of the tree that would get a lock when the tree ends. */
void locks_check_waiters(const struct snapshot *snapshot, const struct file_lock *locks, size_t count);

#endif
