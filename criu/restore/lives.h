/*
 * lives.h - tells whether a newborn has died. Each newborn has a `life` in memory that all of them share. See lives.c.
 */
#ifndef CRIU_RESTORE_LIVES_H
#define CRIU_RESTORE_LIVES_H

#include <sys/types.h>
#include "compiler.h"

struct life;
struct restore;
struct task;

/* Before the first is created: makes a life for each task and each stand-in. */
int lives_make(struct restore *restore) must_check;
/* In the newborn, first of all. */
void life_begin(struct life *life);
/* In its parent (or in criu), when clone() has returned its pid. */
void life_note_birth(struct life *life);
/* In a newborn that is going to end as intended. */
void life_end(struct life *life);
/* Records a failure if a newborn has ended that should not. Cheap, and linear in tasks. */
int lives_check(const struct restore *restore) must_check;
/* Records the death of a process, with its cause, as the failure. */
int fail_for_death(const struct task *task) must_check;

#endif
