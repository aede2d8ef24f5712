/*
 * aio.c - makes AIO rings.
 *
 * Only the kernel knows where it will write the next completion, and how many slots are in use. The tail in the ring is
 * written by the kernel, the head is read by it. So requests bring a new ring to a given head and tail: each reads
 * nothing from an empty file, completes within io_submit(), and moves the tail by one.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "base/thread.h"
#include "memory/aio.h"

#define SLOT	     sizeof(struct io_event)
#define SPARE	     2 /* slots that the kernel adds; the header takes the space of one more */
#define BATCH	     64
#define MOST_THREADS 64
#define LONGEST	     (0x10000000UL + PAGE_SIZE) /* bytes: the kernel's limit */

/* ---- sizes ---- */

uint32_t aio_slots(uint64_t length)
{
	return (uint32_t)(length / SLOT) - 1;
}

uint32_t aio_most_requests(uint64_t length)
{
	if (!length || length % PAGE_SIZE || length > LONGEST)
		return 0;
	return (uint32_t)(length / SLOT - 1 - SPARE) / 2;
}

uint32_t aio_least_requests(uint64_t length)
{
	uint32_t most = aio_most_requests(length);

	return most && length > PAGE_SIZE ? aio_most_requests(length - PAGE_SIZE) + 1 : min(most, 1u);
}

int aio_check_header(const struct aio_header *header, uint64_t length)
{
	uint32_t slots = aio_slots(length);

	return header->magic == AIO_MAGIC && header->header_size == sizeof(*header) &&
			       header->slots == slots && header->head < slots && header->tail < slots ?
		       0 :
		       -EINVAL;
}

/* ---- the kernel's ---- */

struct destruction {
	const aio_context_t *rings;
	size_t count;
	_Atomic size_t taken;
};

static void *destroy_rings(void *argument)
{
	struct destruction *work = argument;

	for (size_t next; (next = atomic_fetch_add(&work->taken, 1)) < work->count;)
		syscall(SYS_io_destroy, work->rings[next]);
	return NULL;
}

void aio_destroy(const aio_context_t *rings, size_t count)
{
	struct destruction work = { rings, count, 0 };

	if (count)
		threads_run(min(count, (size_t)MOST_THREADS) - 1, destroy_rings, &work);
}

static int set_up_ring(uint32_t requests, aio_context_t *ring)
{
	int error;

	*ring = 0;
	if (syscall(SYS_io_setup, requests, ring) == 0)
		return 0;
	error = errno;
	if (error == EAGAIN)
		fail_advice("a larger number in /proc/sys/fs/aio-max-nr");
	return fail(error, "cannot create an AIO ring for %u requests", requests);
}

int aio_make_smallest(aio_context_t *ring)
{
	return set_up_ring(1, ring);
}

int aio_make(uint64_t length, aio_context_t *ring)
{
	uint32_t requests = aio_least_requests(length), slots;
	int result = requests ?
			     set_up_ring(requests, ring) :
			     fail(EINVAL, "an AIO ring cannot have %llu bytes", (unsigned long long)length);

	if (result)
		return result;
	slots = aio_header_of(*ring)->slots;
	if (aio_header_of(*ring)->magic == AIO_MAGIC && slots == aio_slots(length))
		return 0;
	aio_destroy(ring, 1);
	return fail(EINVAL, "this machine creates an AIO ring of %u slots instead of %u", slots,
		    aio_slots(length));
}

/* Submits up to `wanted` requests that complete at once; returns how many fitted. */
static uint32_t submit_requests(aio_context_t ring, int file, uint32_t wanted)
{
	struct iocb request = { .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = (uint32_t)file };
	struct iocb *requests[BATCH];
	uint32_t done = 0;
	long sent = 1;

	for (size_t i = 0; i < BATCH; i++)
		requests[i] = &request;
	while (done < wanted && sent > 0) {
		sent = syscall(SYS_io_submit, ring, (long)min(wanted - done, (uint32_t)BATCH), requests);
		done += sent > 0 ? (uint32_t)sent : 0;
	}
	return done;
}

/* Work for a separate thread that creates a ring. */
struct job {
	aio_context_t ring;
	int file;
	uint32_t head, tail;
	uint32_t most;
	int result;
};

/* Completions up to the head are consumed at once, by setting the head, as libaio does; those behind it stay unread. */
static void advance_ring(struct job *job)
{
	struct aio_header *header = aio_header_of(job->ring);
	uint32_t slots = header->slots, unread = (job->tail + slots - job->head) % slots;

	for (uint32_t at = 0; at < job->head; at++, header->head = at)
		if (submit_requests(job->ring, job->file, 1) != 1)
			break;
	submit_requests(job->ring, job->file, unread);
	if (header->head != job->head || header->tail != job->tail)
		job->result = fail(EINVAL,
				   "an AIO ring of %u slots has head and tail %u, %u instead of %u, %u",
				   slots, header->head, header->tail, job->head, job->tail);
	memset(header + 1, 0, slots * SLOT);
}

static void fill_ring(struct job *job)
{
	job->most = submit_requests(job->ring, job->file, aio_header_of(job->ring)->slots);
}

struct pinned {
	void (*work)(struct job *job);
	struct job *job;
};

static void *run_pinned(void *argument)
{
	struct pinned *pinned = argument;
	cpu_set_t here;

	CPU_ZERO(&here);
	CPU_SET(sched_getcpu(), &here);
	if (sched_setaffinity(0, sizeof(here), &here) < 0)
		pinned->job->result = fail(errno, "cannot bind a thread of criu to a CPU");
	else
		pinned->work(pinned->job);
	return NULL;
}

/*
 * The kernel hands out free slots by CPU: a thread that is moved to another CPU finds fewer. So the thread is pinned.
 * It is a thread of its own because a pinned thread gets no more CPUs when its cpuset grows.
 */
static int run_job(void (*work)(struct job *job), struct job *job)
{
	struct pinned pinned = { work, job };
	autoclose int file = memfd_create("nothing", MFD_CLOEXEC);
	pthread_t thread;
	int result;

	if (file < 0)
		return fail(errno, "cannot create a temporary file for an AIO ring");
	job->file = file;
	result = thread_start(&thread, run_pinned, &pinned);
	if (result)
		return fail(result, "cannot start a thread for an AIO ring");
	pthread_join(thread, NULL);
	return job->result;
}

int aio_advance(aio_context_t ring, uint32_t head, uint32_t tail)
{
	struct job job = { .ring = ring, .head = head, .tail = tail };

	return run_job(advance_ring, &job);
}

int aio_find_most(struct aio_lengths *known, uint64_t length, uint32_t *most)
{
	struct job job = { 0 };
	int result;

	for (size_t i = 0; i < known->count; i++)
		if (known->items[i].length == length) {
			*most = known->items[i].most;
			return 0;
		}
	result = aio_make(length, &job.ring);
	if (result)
		return result;
	*grow(&known->rings, &known->ring_count) = job.ring;
	result = run_job(fill_ring, &job);
	*most = job.most;
	*grow(&known->items, &known->count) = (struct aio_length){ length, job.most };
	return result;
}

void aio_lengths_free(struct aio_lengths *known)
{
	aio_destroy(known->rings, known->ring_count);
	free(known->rings);
	free(known->items);
	*known = (struct aio_lengths){ 0 };
}
