/* random.h - random numbers that only depend on a seed (splitmix64). */
#ifndef TEST_CHAIN_RANDOM_H
#define TEST_CHAIN_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

static inline uint64_t random_next(uint64_t *state)
{
	uint64_t value = *state += 0x9e3779b97f4a7c15;

	value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
	value = (value ^ value >> 27) * 0x94d049bb133111eb;
	return value ^ value >> 31;
}

static inline uint64_t random_below(uint64_t *state, uint64_t limit)
{
	return random_next(state) % limit;
}

static inline bool random_percent(uint64_t *state, unsigned int percent)
{
	return random_below(state, 100) < percent;
}

static inline uint64_t random_derive(uint64_t seed, uint64_t number)
{
	uint64_t state = seed * 0xd1342543de82ef95 + number;

	return random_next(&state);
}

#endif
