/*
 * futex.h - wakes all who wait for a word, in whatever process. Freestanding: newborns do it in criu's code and in the restorer.
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
