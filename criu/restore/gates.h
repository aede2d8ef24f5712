/*
 * gates.h - in a newborn: those who share an object wait for each other, and the leader does what has to be done once.
 *
 * Nobody waits where an object has one user. If one of those who are waited for dies, criu sees it (lives.h) and ends
 * all of them.
 */
#ifndef CRIU_RESTORE_GATES_H
#define CRIU_RESTORE_GATES_H

#include "restore/restore.h"

/* In criu, before the first birth: in memory that all newborns share. */
int gates_make(struct snapshot *snapshot) must_check;
/* Who is not the leader has come to its next round. */
void gate_arrive(const struct task *task, enum object_kind kind);
/* The leader waits until all others have come to a round; the first is 1. */
void gate_await_users(const struct task *task, enum object_kind kind, uint32_t round);
/* The leader has done what a round is for … */
void gate_open(const struct task *task, enum object_kind kind, uint32_t round);
/* … for which the others wait. */
void gate_await_leader(const struct task *task, enum object_kind kind, uint32_t round);
/*
 * Descriptors that criu's code keeps while the leader arranges a shared table, and that may have to move: the log,
 * and an executable for each user. NULL: the table has one user.
 */
int *gate_log(const struct task *task);
int *gate_executable(const struct task *task);

#endif
