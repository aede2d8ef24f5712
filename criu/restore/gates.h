/*
 * gates.h - newborns that share an object wait for each other, and the leader does what has to be done once.
 *
 * For an object with one user, no function waits. If a newborn dies while others wait for it, criu notices (lives.h)
 * and ends all of them.
 */
#ifndef CRIU_RESTORE_GATES_H
#define CRIU_RESTORE_GATES_H

#include "restore/restore.h"

/* In criu, before the first task is created: makes the gates, in memory that all newborns share. */
int gates_make(struct snapshot *snapshot) must_check;
/* Called by a user that is not the leader: it has come to its next round. */
void gate_arrive(const struct task *task, enum object_kind kind);
/* The leader waits until all others have come to a round; the first is 1. */
void gate_await_users(const struct task *task, enum object_kind kind, uint32_t round);
/* Called by the leader when it has done the work of a round … */
void gate_open(const struct task *task, enum object_kind kind, uint32_t round);
/* … and by the others, to wait for that. */
void gate_await_leader(const struct task *task, enum object_kind kind, uint32_t round);
/*
 * While the leader arranges a shared table, criu's code keeps two kinds of descriptors in it: the log, and an
 * executable for each user. They may get other numbers, which are here. NULL: the table has one user.
 */
int *gate_log(const struct task *task);
int *gate_executable(const struct task *task);

#endif
