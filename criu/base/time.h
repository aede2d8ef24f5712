/*
 * time.h - the clock for all measurements.
 */
#ifndef CRIU_BASE_TIME_H
#define CRIU_BASE_TIME_H

#include <stdint.h>
#include <time.h>

static inline uint64_t monotonic_time(void) /* ns */
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

#endif
