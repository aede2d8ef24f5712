/*
 * bits.h - long bit arrays, searched 64 bits at a time.
 */
#ifndef CRIU_BASE_BITS_H
#define CRIU_BASE_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BITS_WORDS(count) (((count) + 63) / 64)

/* The first bit in [from, end) that is set (or clear, if `is_set` is false); `end` if there is none. */
static inline size_t bits_find(const uint64_t *bits, size_t from, size_t end, bool is_set)
{
	uint64_t other = is_set ? 0 : ~0ULL; /* bits that are not wanted */

	while (from < end) {
		uint64_t word = (bits[from / 64] ^ other) >> from % 64;

		if (word)
			return from + __builtin_ctzll(word) < end ? from + __builtin_ctzll(word) : end;
		from += 64 - from % 64;
	}
	return end;
}

static inline void bits_set(uint64_t *bits, size_t from, size_t end)
{
	for (size_t next; from < end; from = next) {
		uint64_t mask = ~0ULL << from % 64;

		next = from - from % 64 + 64;
		if (next > end) {
			mask &= ~0ULL >> (next - end);
			next = end;
		}
		bits[from / 64] |= mask;
	}
}

#endif
