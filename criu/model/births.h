/*
 * births.h - which task creates which when a tree is restored.
 *
 * A task can share an object (objects.h) only with the task that clones it. That is its parent, or, with CLONE_PARENT,
 * an older sibling.
 */
#ifndef CRIU_MODEL_BIRTHS_H
#define CRIU_MODEL_BIRTHS_H

#include "model/snapshot.h"

/*
 * Sets task->creator and task->created of all tasks. The creator of a task is NULL if nobody can share with it what
 * it shares.
 */
void births_plan(struct snapshot *snapshot);
/* What to share, as flags of clone(2). */
uint64_t births_flags(const struct task *task);
/* The signal that its parent gets at its end. */
int births_exit_signal(const struct task *task);
/* NULL, or a sentence that says why this task cannot be born. */
char *births_obstacle(const struct snapshot *snapshot, const struct task *task);

#endif
