/*
 * ring.h - counts the requests that are in flight in an AIO ring of the task.
 */
#ifndef RING_H
#define RING_H

#include <stdint.h>
#include "compiler.h"

/*
 * `file` is the parasite's socket, `slots` the number of slots of the ring, `most` the number that the kernel lets be
 * in use at once. -errno: the number cannot be found out; the ring is unchanged in any case.
 */
long count_requests(int file, uint64_t ring, uint32_t slots, uint32_t most) must_check;

#endif
