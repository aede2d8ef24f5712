/*
 * aio.h - AIO rings (io_setup): the data that the kernel keeps at their address, and how to create one that has
 * advanced as far as another.
 */
#ifndef CRIU_MEMORY_AIO_H
#define CRIU_MEMORY_AIO_H

#include <linux/aio_abi.h>
#include <stddef.h>
#include <stdint.h>
#include "compiler.h"

#define AIO_MAGIC 0xa10a10a1

/* The first bytes of a ring; slots of struct io_event follow (fs/aio.c). */
struct aio_header {
	uint32_t id; /* the kernel's number of the ring in this process, by which the kernel finds it */
	uint32_t slots;
	uint32_t head, tail; /* slots: the next completion to be read, and to be written */
	uint32_t magic, compatible, incompatible, header_size;
};

/*
 * io_setup(n) makes max(n, 4 for each CPU) * 2 + 2 slots. The header is as long as a slot, and the last page is filled
 * up with slots. So a range of numbers leads to the same ring. The original number is unknown; it only counts against
 * fs.aio-max-nr.
 */
uint32_t aio_slots(uint64_t length);	      /* of a ring of this many bytes */
uint32_t aio_least_requests(uint64_t length); /* the smallest number for io_setup() that makes it; 0: none */
uint32_t aio_most_requests(uint64_t length);

/* Does the header belong to a ring of this length? */
int aio_check_header(const struct aio_header *header, uint64_t length)
	must_check; /* 0 or -EINVAL, not recorded */

static inline struct aio_header *aio_header_of(aio_context_t ring)
{
	return (struct aio_header *)(uintptr_t)ring;
}

/* Creates a ring of exactly this length somewhere in this process. 0 or -errno, recorded. */
int aio_make(uint64_t length, aio_context_t *ring) must_check;
int aio_make_smallest(aio_context_t *ring) must_check;
/* Advances it to this head and tail, from which the kernel continues. Then its content is zeros. */
int aio_advance(aio_context_t ring, uint32_t head, uint32_t tail) must_check;
/* Destroys all of them at once, because each takes 45 ms: the kernel waits for all CPUs. */
void aio_destroy(const aio_context_t *rings, size_t count);

/* The rings that this machine creates, by length: one of each length is created in this process to find out. */
struct aio_lengths {
	struct aio_length {
		uint64_t length;
		uint32_t most; /* slots that can be in use at once; depends on the number of CPUs */
	} * items;
	aio_context_t *rings;
	size_t count, ring_count;
};

int aio_find_most(struct aio_lengths *known, uint64_t length, uint32_t *most) must_check;
void aio_lengths_free(struct aio_lengths *known); /* takes a while: aio_destroy() */

#endif
