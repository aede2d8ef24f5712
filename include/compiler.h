/*
 * compiler.h - what the C language leaves to its compilers.
 *
 * Freestanding: used by criu, by compel and by the blobs. Relies on gcc or clang (gnu11).
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

/* For the result of a function with must_check that makes no difference. A comment beside it says why. */
static inline void ignore(long result unused)
{
}

/* These read as functions do; `unit` is a power of two. */
/* clang-format off */
#define min(a, b) ({ __typeof__(a) min_a = (a); __typeof__(b) min_b = (b); min_a < min_b ? min_a : min_b; })
#define max(a, b) ({ __typeof__(a) max_a = (a); __typeof__(b) max_b = (b); max_a > max_b ? max_a : max_b; })
#define round_up(value, unit)	(((value) + (unit) - 1) & ~((__typeof__(value))(unit) - 1))
#define round_down(value, unit) ((value) & ~((__typeof__(value))(unit) - 1))
/* clang-format on */

/* Every architecture we know has images in pages of 4 KiB; a larger kernel page is a multiple of it. */
#define PAGE_SHIFT 12
#define PAGE_SIZE  (1UL << PAGE_SHIFT) /* token for token as <sys/user.h> has it */

#endif
