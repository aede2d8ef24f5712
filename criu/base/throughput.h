/*
 * throughput.h - bytes that were moved, and how long that took.
 */
#ifndef CRIU_BASE_THROUGHPUT_H
#define CRIU_BASE_THROUGHPUT_H

#include <stdint.h>
#include "base/time.h"

struct throughput {
	uint64_t bytes;
	uint64_t time; /* ns */
};

/* `began`: the monotonic_time() before. */
static inline void throughput_add(struct throughput *throughput, uint64_t bytes, uint64_t began)
{
	throughput->bytes += bytes;
	throughput->time += monotonic_time() - began;
}

static inline void throughput_merge(struct throughput *throughput, const struct throughput *other)
{
	throughput->bytes += other->bytes;
	throughput->time += other->time;
}

#endif
