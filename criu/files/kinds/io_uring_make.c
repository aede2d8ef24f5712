/*
 * io_uring_make.c - makes rings that are like others, and brings them to their positions.
 *
 * The kernel counts requests and completions from 0 on, in 32 bits, and keeps both counts for itself: a program sees
 * them, and may keep copies, so both must be as they were. Requests that do nothing (IORING_OP_NOP) complete within
 * io_uring_enter() and move both. Without a completion (IOSQE_CQE_SKIP_SUCCESS, Linux 5.17) they move only the first.
 * Messages from another ring (IORING_OP_MSG_RING, Linux 5.18) move only the second.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "files/kinds/io_uring.h"

#define SQE sizeof(struct io_uring_sqe)
#define CQE sizeof(struct io_uring_cqe)

/* ---- setup ---- */

static size_t sqe_size(uint32_t setup)
{
	return setup & IORING_SETUP_SQE128 ? 2 * SQE : SQE;
}

static void note_layout(struct uring *uring, const struct io_uring_params *made)
{
	const struct io_sqring_offsets *sq = &made->sq_off;
	const struct io_cqring_offsets *cq = &made->cq_off;
	uint32_t layout[URING_LAYOUT] = {
		[SQ_HEAD_AT] = sq->head,
		[SQ_TAIL_AT] = sq->tail,
		[SQ_MASK_AT] = sq->ring_mask,
		[SQ_ENTRIES_AT] = sq->ring_entries,
		[SQ_FLAGS_AT] = sq->flags,
		[SQ_DROPPED_AT] = sq->dropped,
		[SQ_ARRAY_AT] = sq->array,
		[CQ_HEAD_AT] = cq->head,
		[CQ_TAIL_AT] = cq->tail,
		[CQ_MASK_AT] = cq->ring_mask,
		[CQ_ENTRIES_AT] = cq->ring_entries,
		[CQ_OVERFLOW_AT] = cq->overflow,
		[CQ_CQES_AT] = cq->cqes,
		[CQ_FLAGS_AT] = cq->flags,
	};

	memcpy(uring->layout, layout, sizeof(layout));
}

void uring_set_sizes(struct uring *uring)
{
	size_t cqe = uring->setup & IORING_SETUP_CQE32 ? 2 * CQE : CQE;
	size_t completions = uring->layout[CQ_CQES_AT] + uring->cq_entries * cqe;
	size_t array = uring->setup & IORING_SETUP_NO_SQARRAY ?
			       0 :
			       uring->layout[SQ_ARRAY_AT] + uring->sq_entries * sizeof(uint32_t);

	uring->rings_size = round_up(max(completions, array), PAGE_SIZE);
	uring->sqes_size = round_up(uring->sq_entries * sqe_size(uring->setup), PAGE_SIZE);
}

void uring_prepare(struct uring *uring, const IoUringFileEntry *entry)
{
	*uring = (struct uring){ .fd = -1,
				 .setup = entry->setup,
				 .sq_entries = entry->sq_entries,
				 .wanted = { .flags = (entry->setup & ~IORING_SETUP_CLAMP) |
						      IORING_SETUP_CQSIZE,
					     .cq_entries = entry->cq_entries,
					     .sq_thread_cpu = entry->thread_cpu,
					     .sq_thread_idle = entry->thread_idle } };
}

int uring_note_made(struct uring *uring, const IoUringFileEntry *entry)
{
	const struct io_uring_params *made = &uring->wanted;

	uring->sq_entries = made->sq_entries;
	uring->cq_entries = made->cq_entries;
	note_layout(uring, made);
	uring_set_sizes(uring);
	if (made->sq_entries != entry->sq_entries || made->cq_entries != entry->cq_entries ||
	    !(made->features & IORING_FEAT_SINGLE_MMAP))
		return fail(EINVAL,
			    "this kernel creates an io_uring of %u and %u entries instead of %u and %u",
			    made->sq_entries, made->cq_entries, entry->sq_entries, entry->cq_entries);
	return 0;
}

int uring_create(struct uring *uring)
{
	uring->fd = (int)syscall(SYS_io_uring_setup, uring->sq_entries, &uring->wanted);
	if (uring->fd >= 0)
		return 0;
	fail_advice("0 in /proc/sys/kernel/io_uring_disabled, if it has another number");
	return fail(errno, "cannot create an io_uring for %u requests and %u completions", uring->sq_entries,
		    uring->wanted.cq_entries);
}

int uring_make(struct uring *uring, const IoUringFileEntry *entry)
{
	uring_prepare(uring, entry);
	return uring_create(uring) ?: uring_note_made(uring, entry);
}

int uring_make_like(struct uring *uring, const IoUringFileEntry *entry)
{
	IoUringFileEntry like = *entry;

	like.setup &= ~(uint32_t)(IORING_SETUP_SQPOLL | IORING_SETUP_SQ_AFF);
	return uring_make(uring, &like);
}

void uring_close(struct uring *uring)
{
	uring_unmap(uring);
	if (uring->fd >= 0)
		close(steal_fd(&uring->fd));
}

/* ---- memory ---- */

static char *map_part(int fd, size_t size, off_t offset)
{
	void *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset);

	return mapped == MAP_FAILED ? NULL : mapped;
}

int uring_map(struct uring *uring, int fd)
{
	uring->rings = map_part(fd, uring->rings_size, IORING_OFF_SQ_RING);
	if (uring->rings)
		uring->sqes = map_part(fd, uring->sqes_size, IORING_OFF_SQES);
	if (uring->sqes)
		return 0;
	return fail(errno, "cannot map an io_uring");
}

void uring_unmap(struct uring *uring)
{
	if (uring->rings)
		munmap(uring->rings, uring->rings_size);
	if (uring->sqes)
		munmap(uring->sqes, uring->sqes_size);
	uring->rings = uring->sqes = NULL;
}

/* ---- positions ---- */

/* Every request is this one, so the content of the queue is written once. */
static void fill(struct uring *uring, const struct io_uring_sqe *request)
{
	uint32_t *array = uring_word(uring, SQ_ARRAY_AT);

	for (uint32_t i = 0; i < uring->sq_entries; i++) {
		memcpy(uring->sqes + i * sqe_size(uring->setup), request, sizeof(*request));
		if (!(uring->setup & IORING_SETUP_NO_SQARRAY))
			array[i] = i;
	}
}

/* Completions are consumed by setting the head, as all programs do. */
static void consume(struct uring *uring)
{
	uint32_t tail = __atomic_load_n(uring_word(uring, CQ_TAIL_AT), __ATOMIC_ACQUIRE);

	__atomic_store_n(uring_word(uring, CQ_HEAD_AT), tail, __ATOMIC_RELEASE);
}

/* Waiting for no completion posts those that the kernel has left to this thread (IORING_SETUP_DEFER_TASKRUN). */
static long enter(struct uring *uring, uint32_t requests)
{
	unsigned wakeup = uring->setup & IORING_SETUP_SQPOLL ? IORING_ENTER_SQ_WAKEUP : 0;

	return syscall(SYS_io_uring_enter, uring->fd, requests, 0, IORING_ENTER_GETEVENTS | wakeup, NULL, 0);
}

/* A thread of the kernel takes them, if the ring has one; then their completions are posted, too. */
static int await_thread(struct uring *uring)
{
	int result = 0;

	while (!result && __atomic_load_n(uring_word(uring, SQ_HEAD_AT), __ATOMIC_ACQUIRE) !=
				  *uring_word(uring, SQ_TAIL_AT)) {
		if (enter(uring, 0) < 0)
			return fail(errno, "the thread of an io_uring takes no requests");
		sched_yield();
		result = interrupt_check();
	}
	return result;
}

/*
 * Makes so many requests in `uring`; `receiver`, perhaps the same ring, gets their completions. There is always space:
 * it is at least as long.
 */
static int make_requests(struct uring *uring, struct uring *receiver, const struct io_uring_sqe *request,
			 uint32_t count)
{
	uint32_t most = min(uring->sq_entries, receiver->cq_entries), *tail = uring_word(uring, SQ_TAIL_AT);
	int result = 0;

	fill(uring, request);
	while (!result && count) {
		uint32_t next = min(count, most);

		__atomic_store_n(tail, *tail + next, __ATOMIC_RELEASE);
		if (enter(uring, next) != (long)next)
			return fail(errno ?: EIO, "an io_uring does not accept requests");
		if (receiver != uring && enter(receiver, 0) < 0)
			return fail(errno, "an io_uring does not accept messages");
		result = await_thread(uring) ?: interrupt_check();
		consume(receiver);
		count -= next;
	}
	return result;
}

static int send_messages(struct uring *uring, uint32_t count)
{
	struct io_uring_sqe message = { .opcode = IORING_OP_MSG_RING,
					.flags = IOSQE_CQE_SKIP_SUCCESS,
					.fd = uring->fd,
					.addr = IORING_MSG_DATA };
	struct uring sender = { .fd = -1 };
	const IoUringFileEntry plain = { .sq_entries = min(uring->cq_entries, 256u), .cq_entries = 512 };
	int result = count ? uring_make(&sender, &plain) : 0;

	if (count && !result)
		result = uring_map(&sender, sender.fd) ?: make_requests(&sender, uring, &message, count);
	uring_close(&sender);
	return result;
}

int uring_advance(struct uring *uring, uint32_t sq_head, uint32_t cq_tail)
{
	struct io_uring_sqe request = { .opcode = IORING_OP_NOP, .fd = -1 };
	uint32_t both = min(sq_head, cq_tail), *head = uring_word(uring, SQ_HEAD_AT),
		 *tail = uring_word(uring, CQ_TAIL_AT);
	int result = make_requests(uring, uring, &request, both);

	request.flags = IOSQE_CQE_SKIP_SUCCESS;
	result = result							       ?:
			 make_requests(uring, uring, &request, sq_head - both) ?:
			 send_messages(uring, cq_tail - both);
	if (!result && (__atomic_load_n(head, __ATOMIC_ACQUIRE) != sq_head ||
			__atomic_load_n(tail, __ATOMIC_ACQUIRE) != cq_tail))
		result = fail(EINVAL, "an io_uring is at %u, %u instead of %u, %u", *head, *tail, sq_head,
			      cq_tail);
	return result;
}
