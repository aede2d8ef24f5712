/*
 * baton.h - newborns that share their memory run criu's code one at a time.
 *
 * libc takes them for one thread: they have one errno, one cache of malloc(), one log. So a newborn runs C code only
 * while it holds the baton of its address space, and gives the baton away while it waits for others. A newborn with
 * memory of its own needs no baton.
 */
#ifndef CRIU_RESTORE_BATON_H
#define CRIU_RESTORE_BATON_H

#include "model/snapshot.h"

void baton_take(const struct task *task);
void baton_give(const struct task *task);

#endif
