/*
 * uring.h - io_uring without a library: a ring with its two queues, requests and completions.
 */
#ifndef TEST_URING_H
#define TEST_URING_H

#include <linux/io_uring.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "live.h"

#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1U << 16)
#endif

static inline void live_need_kernel(int wanted, const char *why)
{
	struct utsname kernel;
	int major = 0, minor = 0;

	uname(&kernel);
	if (sscanf(kernel.release, "%d.%d", &major, &minor) == 2 && major * 100 + minor < wanted)
		live_skip("%s", why);
}

struct completion { /* of struct io_uring_cqe */
	uint64_t user_data;
	int32_t res;
	uint32_t flags;
};

struct ring {
	int fd;
	struct io_uring_params made;
	char *rings, *requests;
	size_t rings_size, requests_size;
	uint32_t prepared; /* a copy of the tail, as liburing keeps one */
};

static inline uint32_t *ring_word(const struct ring *ring, uint32_t offset)
{
	return (uint32_t *)(void *)(ring->rings + offset);
}

static inline size_t ring_request_size(const struct ring *ring)
{
	return ring->made.flags & IORING_SETUP_SQE128 ? 128 : 64;
}

static inline size_t ring_completion_size(const struct ring *ring)
{
	return ring->made.flags & IORING_SETUP_CQE32 ? 32 : 16;
}

static inline void ring_map(struct ring *ring)
{
	struct io_uring_params *made = &ring->made;
	size_t completions = made->cq_off.cqes + made->cq_entries * ring_completion_size(ring);
	size_t array = made->sq_off.array + made->sq_entries * 4;

	ring->rings_size = completions > array ? completions : array;
	ring->requests_size = made->sq_entries * ring_request_size(ring);
	ring->rings = mmap(NULL, ring->rings_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			   ring->fd, IORING_OFF_SQ_RING);
	ring->requests = mmap(NULL, ring->requests_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
			      ring->fd, IORING_OFF_SQES);
	live_check(ring->rings != MAP_FAILED && ring->requests != MAP_FAILED, "mmap of a ring: %m");
}

/* ring->made may have more wishes. */
static inline void ring_make_more(struct ring *ring, unsigned entries, unsigned flags, unsigned completions)
{
	ring->made.flags = flags | (completions ? IORING_SETUP_CQSIZE : 0);
	ring->made.cq_entries = completions;
	ring->fd = (int)syscall(SYS_io_uring_setup, entries, &ring->made);
	if (ring->fd < 0)
		live_skip("this kernel has no io_uring, or not with these flags");
	ring_map(ring);
}

static inline void ring_make(struct ring *ring, unsigned entries, unsigned flags, unsigned completions)
{
	memset(ring, 0, sizeof(*ring));
	ring_make_more(ring, entries, flags, completions);
}

static inline struct io_uring_sqe *ring_prepare(struct ring *ring, int opcode, uint64_t data)
{
	uint32_t slot = ring->prepared++ & (ring->made.sq_entries - 1);
	struct io_uring_sqe *request = (void *)(ring->requests + slot * ring_request_size(ring));

	memset(request, 0, ring_request_size(ring));
	request->opcode = (uint8_t)opcode;
	request->fd = -1;
	request->user_data = data;
	if (!(ring->made.flags & IORING_SETUP_NO_SQARRAY))
		ring_word(ring, ring->made.sq_off.array)[slot] = slot;
	return request;
}

/* Shows all prepared requests to the kernel; returns how many it has not taken yet. */
static inline uint32_t ring_publish(struct ring *ring)
{
	uint32_t head = __atomic_load_n(ring_word(ring, ring->made.sq_off.head), __ATOMIC_ACQUIRE);

	__atomic_store_n(ring_word(ring, ring->made.sq_off.tail), ring->prepared, __ATOMIC_RELEASE);
	return ring->prepared - head;
}

static inline long ring_enter(struct ring *ring, uint32_t requests, uint32_t completions)
{
	return syscall(SYS_io_uring_enter, ring->fd, requests, completions, IORING_ENTER_GETEVENTS, NULL, 0);
}

static inline void ring_submit(struct ring *ring)
{
	uint32_t wanted = ring_publish(ring);
	long sent = ring_enter(ring, wanted, 0);

	live_check(sent == (long)wanted, "io_uring_enter: %ld of %u: %m", sent, wanted);
}

/* For a ring with IORING_SETUP_SQPOLL: its thread sleeps after a second without a request. */
static inline void ring_wake(struct ring *ring)
{
	ring_publish(ring);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(ring_word(ring, ring->made.sq_off.flags), __ATOMIC_ACQUIRE) &
	    IORING_SQ_NEED_WAKEUP)
		live_check(syscall(SYS_io_uring_enter, ring->fd, 0, 0, IORING_ENTER_SQ_WAKEUP, NULL, 0) >= 0,
			   "cannot wake the thread of the ring: %m");
}

static inline uint32_t ring_unread(const struct ring *ring)
{
	return __atomic_load_n(ring_word(ring, ring->made.cq_off.tail), __ATOMIC_ACQUIRE) -
	       *ring_word(ring, ring->made.cq_off.head);
}

/* Takes the next completion, which must exist. */
static inline struct completion ring_take(struct ring *ring)
{
	uint32_t *head = ring_word(ring, ring->made.cq_off.head);
	struct completion completion;

	live_check(ring_unread(ring), "there is no completion");
	memcpy(&completion,
	       ring->rings + ring->made.cq_off.cqes +
		       (*head & (ring->made.cq_entries - 1)) * ring_completion_size(ring),
	       sizeof(completion));
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return completion;
}

#endif
