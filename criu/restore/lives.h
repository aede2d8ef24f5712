/*
 * lives.h - who of those that are being made has died? Each newborn has a life in memory that all of them share. See lives.c.
 */
#ifndef CRIU_RESTORE_LIVES_H
#define CRIU_RESTORE_LIVES_H

#include <sys/types.h>
#include "compiler.h"

struct life;
struct restore;

/* Before the first is born: a life for each task and each stand-in. */
int lives_make(struct restore *restore) must_check;
/* In the newborn, first of all. */
void life_begin(struct life *life);
/* In its parent (or in criu), when clone() has told that it is there. */
void life_note_birth(struct life *life);
/* In a newborn that is going to end as it should. */
void life_end(struct life *life);
/* Has anybody ended who should not? Then that is recorded as the failure. Costs next to nothing, and is linear in tasks. */
int lives_check(const struct restore *restore) must_check;
/* Records the death of a process as the failure: of what it died. */
int fail_for_death(pid_t pid, const char *name) must_check;

#endif
