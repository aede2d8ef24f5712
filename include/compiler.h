/*
 * compiler.h - attributes and macros that need compiler extensions.
 *
 * Freestanding: used by criu, compel and the blobs. Needs gcc or clang (gnu11).
 */
#ifndef COMPILER_H
#define COMPILER_H

#include <stddef.h>
#include <stdint.h>

#define array_size(array) (sizeof(array) / sizeof((array)[0]))

#define container_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

#define printf_like(text, first) __attribute__((__format__(__printf__, text, first)))
#define must_check		 __attribute__((warn_unused_result))
#define unused			 __attribute__((unused))
#define does_not_return		 __attribute__((noreturn))

/* Drops the result of a must_check function that makes no difference. A comment beside it tells why. */
static inline void ignore(long result unused)
{
}

/* These look like functions; `unit` is a power of two. */
/* clang-format off */
#define min(a, b) ({ __typeof__(a) min_a = (a); __typeof__(b) min_b = (b); min_a < min_b ? min_a : min_b; })
#define max(a, b) ({ __typeof__(a) max_a = (a); __typeof__(b) max_b = (b); max_a > max_b ? max_a : max_b; })
#define round_up(value, unit)	(((value) + (unit) - 1) & ~((__typeof__(value))(unit) - 1))
#define round_down(value, unit) ((value) & ~((__typeof__(value))(unit) - 1))
/* clang-format on */

/* Images have pages of 4 KiB on every known architecture; a larger kernel page is a multiple of it. */
#define PAGE_SHIFT 12
#define PAGE_SIZE  (1UL << PAGE_SHIFT) /* token for token as in <sys/user.h> */

#endif
