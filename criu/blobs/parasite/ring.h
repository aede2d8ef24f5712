/*
 * ring.h - how many requests are in flight in an AIO ring of the task that we are in.
 */
#ifndef RING_H
#define RING_H

#include <stdint.h>
#include "compiler.h"

/*
 * `file` is a socket of ours. `slots` are those of the ring, `most` as many as the kernel lets be in use at once. -errno: it cannot
 * be told; the ring is as it was all the same.
 */
long count_requests(int file, uint64_t ring, uint32_t slots, uint32_t most) must_check;

#endif
