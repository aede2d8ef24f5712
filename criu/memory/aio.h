/*
 * aio.h - AIO rings (io_setup): what the kernel keeps at their address, and how one is made that has come as far as another.
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
	uint32_t id; /* the kernel's number of it, in this process: what it finds it by */
	uint32_t slots;
	uint32_t head, tail; /* slots: the next completion to be read, and to be written */
	uint32_t magic, compatible, incompatible, header_size;
};

/*
 * io_setup(n) makes max(n, 4 a CPU) * 2 + 2 slots, and with them the header, which is as long as one, the last page is filled up. So
 * a range of numbers leads to the same ring. Nobody can tell which one it was; it only counts against fs.aio-max-nr.
 */
uint32_t aio_slots(uint64_t length); /* of a ring of so many bytes */
uint32_t aio_least_requests(
	uint64_t length); /* the smallest number for io_setup() that makes it; 0: none does */
uint32_t aio_most_requests(uint64_t length);

/* Does the header belong to a ring of this length? */
int aio_check_header(const struct aio_header *header, uint64_t length)
	must_check; /* 0 or -EINVAL, not recorded */

static inline struct aio_header *aio_header_of(aio_context_t ring)
{
	return (struct aio_header *)(uintptr_t)ring;
}

/* A new ring, somewhere in this process, of exactly this length. 0 or -errno, recorded. */
int aio_make(uint64_t length, aio_context_t *ring) must_check;
int aio_make_smallest(aio_context_t *ring) must_check;
/* Lets it come as far as a ring with this head and tail: the kernel goes on from there. Its content is zeros then. */
int aio_advance(aio_context_t ring, uint32_t head, uint32_t tail) must_check;
/* All of them at once, because each takes 45 ms: the kernel waits for all CPUs. */
void aio_destroy(const aio_context_t *rings, size_t count);

/* What rings this machine makes, by length: one of each is made in this process to find out. */
struct aio_lengths {
	struct aio_length {
		uint64_t length;
		uint32_t most; /* slots that can be in use at once; it depends on the number of CPUs */
	} * items;
	aio_context_t *rings;
	size_t count, ring_count;
};

int aio_find_most(struct aio_lengths *known, uint64_t length, uint32_t *most) must_check;
void aio_lengths_free(struct aio_lengths *known); /* takes a while: aio_destroy() */

#endif
