/*
 * increment_parent.h - for increment.c: the parent snapshot of an increment.
 */
#ifndef CRIU_MEMORY_INCREMENT_PARENT_H
#define CRIU_MEMORY_INCREMENT_PARENT_H

#include "compiler.h"
#include "memory/increment.h"

/*
 * Opens the chain, reads tracking.img, and chooses the tracker that finds what has changed since. 0 or -errno,
 * recorded.
 */
int parent_open(struct increment *increment, int directory) must_check;
/* Reads what will be compared. 0 or -errno, recorded. */
int parent_prepare(struct increment *increment) must_check;
void parent_forget_prepared(struct increment *increment);
void parent_forget_notes(struct increment *increment);

#endif
