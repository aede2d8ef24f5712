/*
 * locks.h - file locks of the tree: POSIX locks of a process; flock(2), F_OFD_SETLK and leases of an open file.
 */
#ifndef CRIU_FILES_LOCKS_H
#define CRIU_FILES_LOCKS_H

#include "compiler.h"
#include "model/snapshot.h"

/* Dump: notes the lock in a line "lock: …" of a descriptor's fdinfo. */
int locks_note(struct snapshot *snapshot, struct task *task, int fd, const char *text) must_check;
/* Dump, when every descriptor has its file: keeps each lock once. Without --file-locks they are refused. */
int locks_collect(struct snapshot *snapshot) must_check;
int locks_save(struct snapshot *snapshot) must_check;

/* Restore: reads the locks. Fails if there are any and --file-locks is not given. */
int locks_load(struct snapshot *snapshot) must_check;
/*
 * In a newborn, when its descriptors are arranged: closing a descriptor of a file would drop the process's POSIX locks
 * on it.
 */
int locks_take(const struct snapshot *snapshot, const struct task *task) must_check;

#endif
