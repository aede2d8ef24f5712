/*
 * twin.h - twins: copies of processes, made by fork() while the tree is frozen. A twin keeps the memory as it was, so the
 * tree need not be frozen until that is written.
 */
#ifndef CRIU_DUMP_TWIN_H
#define CRIU_DUMP_TWIN_H

#include "compiler.h"
#include "dump/dump.h"

/*
 * In "save the memory": if a twin will keep the memory of the task, its pages are only listed now. 1: it gets no twin, so
 * nothing was done.
 */
int twins_list(struct dump *dump, struct task *task) must_check;
/* Makes the twins of all tasks that were listed. Memory of which there is no twin is saved at once. */
int twins_make(struct dump *dump) must_check;
/* A step: when the tree runs again. */
int twins_save(void *dump) must_check;
/* Ends all that are left. */
void twins_end(void *dump);

#endif
