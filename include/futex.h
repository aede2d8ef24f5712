/*
 * futex.h - wakes all waiters of a futex, in any process. Freestanding: newborns call it in criu's code and in the
 * restorer.
 */
#ifndef FUTEX_H
#define FUTEX_H

#include <linux/futex.h>
#include <stdint.h>
#include "syscalls.h"

static inline void futex_wake(uint32_t *word)
{
	sys_futex(word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

#endif
