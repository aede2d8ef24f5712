/*
 * uring_requests.c - requests in flight that wait: until a file is ready, or for a time. See uring.h.
 *
 * The kernel has those that wait for a file in a table, also requests other than polls: a read from an empty pipe is
 * tried once, then polled, and tried again when the pipe is ready. Until then it has done nothing, and when the pipe is
 * ready, it goes on only in the thread that has submitted it. So as long as that is frozen, such a request can be made
 * again from what was submitted. The kernel keeps that, in a struct for each kind of request.
 */
#include <errno.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/uring_reader.h"
#include "kernel_constants.h"

#define MOST_BUCKETS_BITS 16
#define MOST_REQUESTS	  (1u << 16) /* that wait in one ring */

#define SAVED_FLAGS (IOSQE_FIXED_FILE | IOSQE_ASYNC | IOSQE_CQE_SKIP_SUCCESS)
#define OTHER_FLAGS (IOSQE_IO_DRAIN | IOSQE_BUFFER_SELECT)

#define EVENTS_SEEN ((1u << 30) - 1) /* of poll_refs: IO_POLL_REF_MASK */

struct walk {
	const struct uring_reader *reader;
	const struct uring_facts *facts;
	struct uring_requests *requests;
	const char *problem;
};

static int read_part(const struct walk *walk, uint64_t from, enum place place, void *value, uint32_t size)
{
	return uring_read_at(walk->reader, from, place, value, size);
}

static int note_problem(struct walk *walk, const char *words)
{
	if (!walk->problem)
		walk->problem = words;
	return 0;
}

/* ---- what was submitted ---- */

static int read_poll(struct walk *walk, uint64_t from, struct uring_request *request)
{
	uint32_t events;
	int result = read_part(walk, from, POLL_EVENTS, &events, sizeof(events));

	request->length = (events & EPOLLONESHOT ? 0 : IORING_POLL_ADD_MULTI) |
			  (events & (uint32_t)EPOLLET ? 0 : IORING_POLL_ADD_LEVEL);
	request->operation_flags = events & ~(uint32_t)(EPOLLONESHOT | EPOLLET);
	return result;
}

static int read_transfer(struct walk *walk, uint64_t from, struct uring_request *request, uint64_t flags)
{
	uint64_t data, done = 0;
	int result = read_part(walk, from, TRANSFER_POSITION, &request->offset, 8);

	if (!result)
		result = read_part(walk, from, TRANSFER_ADDRESS, &request->address, 8);
	if (!result)
		result = read_part(walk, from, TRANSFER_LENGTH, &request->length, 4);
	if (!result)
		result = read_part(walk, from, TRANSFER_FLAGS, &request->operation_flags, 4);
	if (flags & walk->reader->bits[BIT_AT_POSITION])
		request->offset = UINT64_MAX;
	if (!result && flags & walk->reader->bits[BIT_ASYNC_DATA]) {
		result = read_part(walk, from, REQUEST_ASYNC, &data, 8);
		if (!result)
			result = read_part(walk, data, TRANSFER_DONE, &done, 8);
	}
	return result || !done ? result : note_problem(walk, "a transfer that is partly done");
}

static int read_message(struct walk *walk, uint64_t from, struct uring_request *request)
{
	uint32_t done = 0;
	int result = read_part(walk, from, MESSAGE_ADDRESS, &request->address, 8);

	if (!result)
		result = read_part(walk, from, MESSAGE_LENGTH, &request->length, 4);
	if (!result)
		result = read_part(walk, from, MESSAGE_FLAGS, &request->operation_flags, 4);
	if (!result)
		result = read_part(walk, from, MESSAGE_HOW, &request->how, 2);
	if (!result)
		result = read_part(walk, from, MESSAGE_DONE, &done, 4);
	return result || !done ? result : note_problem(walk, "a message that is partly received");
}

static int read_accept(struct walk *walk, uint64_t from, struct uring_request *request)
{
	uint32_t how = 0;
	int result = read_part(walk, from, ACCEPT_ADDRESS, &request->address, 8);

	if (!result)
		result = read_part(walk, from, ACCEPT_LENGTH, &request->offset, 8);
	if (!result)
		result = read_part(walk, from, ACCEPT_FLAGS, &request->operation_flags, 4);
	if (!result)
		result = read_part(walk, from, ACCEPT_HOW, &how, 4);
	if (!result)
		result = read_part(walk, from, ACCEPT_SLOT, &request->slot, 4);
	request->how = (uint16_t)how;
	return result;
}

static int64_t now(clockid_t clock)
{
	struct timespec time = { 0 };

	clock_gettime(clock, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* The end of a timeout is a time of its clock. Only one that a user set by the calendar is made with it again. */
static void set_time(struct uring_request *request, int64_t end)
{
	const uint32_t clocks = IORING_TIMEOUT_BOOTTIME | IORING_TIMEOUT_REALTIME;
	uint32_t clock = request->operation_flags & clocks;

	if (clock == IORING_TIMEOUT_REALTIME && request->operation_flags & IORING_TIMEOUT_ABS) {
		request->time = end;
		return;
	}
	request->operation_flags &= ~IORING_TIMEOUT_ABS;
	request->time = end - now(clock == IORING_TIMEOUT_REALTIME ? CLOCK_REALTIME :
				  clock == IORING_TIMEOUT_BOOTTIME ? CLOCK_BOOTTIME :
								     CLOCK_MONOTONIC);
	request->time = max(request->time, (int64_t)0);
}

/* Some also end when so many other requests are complete; ends of timeouts do not count. */
static int read_count(struct walk *walk, uint64_t from, struct uring_request *request)
{
	uint32_t count, target, out;
	int result = read_part(walk, from, TIMEOUT_COUNT, &count, 4);

	if (!result)
		result = read_part(walk, from, TIMEOUT_TARGET, &target, 4);
	if (!result)
		result = read_part(walk, walk->facts->ring, COUNTED_OUT, &out, 4);
	if (result || !count)
		return result;
	request->offset = target - (walk->facts->cq_tail - out);
	return (int32_t)request->offset > 0 ? 0 : note_problem(walk, "a timeout that is over");
}

static int read_timeout(struct walk *walk, uint64_t from, struct uring_request *request)
{
	uint64_t data;
	int64_t end = 0;
	int result = read_part(walk, from, REQUEST_ASYNC, &data, 8);

	if (!result)
		result = read_part(walk, data, TIMER_EXPIRES, &end, 8);
	if (!result)
		result = read_part(walk, data, TIMER_FLAGS, &request->operation_flags, 4);
	if (!result &&
	    request->operation_flags & ~(uint32_t)(IORING_TIMEOUT_ABS | IORING_TIMEOUT_BOOTTIME |
						   IORING_TIMEOUT_REALTIME | IORING_TIMEOUT_ETIME_SUCCESS))
		return note_problem(walk, "a timeout that repeats");
	set_time(request, end);
	request->length = 1;
	return result ?: read_count(walk, from, request);
}

static int read_submitted(struct walk *walk, uint64_t from, struct uring_request *request, uint64_t flags)
{
	if (request->opcode != IORING_OP_POLL_ADD && request->opcode != IORING_OP_TIMEOUT &&
	    !(flags & walk->reader->bits[BIT_POLLED]))
		return note_problem(walk, "a request that waits in a way that criu does not know");
	switch (request->opcode) {
	case IORING_OP_POLL_ADD:
		return read_poll(walk, from, request);
	case IORING_OP_TIMEOUT:
		return read_timeout(walk, from, request);
	case IORING_OP_READ:
	case IORING_OP_WRITE:
		return read_transfer(walk, from, request, flags);
	case IORING_OP_RECV:
		return read_message(walk, from, request);
	case IORING_OP_ACCEPT:
		return read_accept(walk, from, request);
	default:
		return note_problem(walk, "a request of a kind that criu cannot make again");
	}
}

/* ---- all requests ---- */

/* A request that a worker thread has had keeps credentials: mostly those that its thread still has. */
static int check_rights(struct walk *walk, uint64_t from, uint64_t task)
{
	uint64_t rights, of_task;
	int result = read_part(walk, from, REQUEST_RIGHTS, &rights, 8);

	if (!result)
		result = read_part(walk, task, TASK_RIGHTS, &of_task, 8);
	return result || rights == of_task ? result : note_problem(walk, "a request with other credentials");
}

static int read_submitter(struct walk *walk, uint64_t from, struct uring_request *request, uint64_t flags)
{
	uint64_t user, task;
	int result = read_part(walk, from, REQUEST_USER, &user, 8);

	if (!result)
		result = read_part(walk, user, USER_OF_REQUEST, &task, 8);
	if (!result)
		result = uring_read_ids(walk->reader, task, &request->thread, &request->process);
	if (!result && flags & walk->reader->bits[BIT_CREDENTIALS])
		result = check_rights(walk, from, task);
	return result;
}

static int read_request(struct walk *walk, uint64_t from, struct uring_request *request)
{
	uint64_t flags = 0, link = 0;
	uint32_t events = 0;
	int result;

	request->at = from;
	result = read_part(walk, from, REQUEST_OPCODE, &request->opcode, 1);

	if (!result)
		result = read_part(walk, from, REQUEST_FLAGS, &flags, 4);
	if (!result)
		result = read_part(walk, from, REQUEST_LINK, &link, 8);
	if (!result && request->opcode != IORING_OP_TIMEOUT)
		result = read_part(walk, from, REQUEST_EVENTS, &events, 4);
	request->is_ready = events & EVENTS_SEEN;
	if (!result)
		result = read_part(walk, from, REQUEST_DATA, &request->user_data, 8);
	if (!result)
		result = read_part(walk, from, REQUEST_FD, &request->fd, 4);
	if (!result && request->opcode != IORING_OP_TIMEOUT)
		result = read_part(walk, from, REQUEST_FILE, &request->file, 8);
	if (result)
		return result;
	if (link)
		return note_problem(walk, "a request with others that follow it (IOSQE_IO_LINK)");
	if (flags & (OTHER_FLAGS | walk->reader->bits[BIT_FAIL] | walk->reader->bits[BIT_HAS_BUFFER]))
		return note_problem(walk,
				    "a request with a provided buffer, or one that waits for all others");
	request->flags = flags & SAVED_FLAGS;
	return read_submitter(walk, from, request, flags) ?: read_submitted(walk, from, request, flags);
}

static int add_request(struct walk *walk, uint64_t from)
{
	if (walk->requests->count >= MOST_REQUESTS)
		return fail(EBUSY, "too many requests of an io_uring wait");
	return read_request(walk, from, grow(&walk->requests->items, &walk->requests->count));
}

static int walk_polled(struct walk *walk)
{
	const struct uring_reader *reader = walk->reader;
	uint64_t table, node;
	uint32_t bits;
	int result = read_part(walk, walk->facts->ring, POLLED, &table, 8);

	if (!result)
		result = read_part(walk, walk->facts->ring, POLLED_BITS, &bits, 4);
	if (!result && bits > MOST_BUCKETS_BITS)
		return fail(EINVAL, "criu does not know this kernel's io_uring: a table of 2^%u lists", bits);
	for (uint32_t i = 0; !result && i < 1u << bits; i++) {
		result = read_part(walk, table + (uint64_t)i * reader->bucket_size, BUCKET_LIST, &node, 8);
		while (!result && node) {
			result = add_request(walk, node - reader->offsets[REQUEST_NODE]);
			if (!result && peek_read(&reader->peek, node, &node, sizeof(node)))
				result = uring_cannot_read(-EFAULT);
		}
	}
	return result;
}

static int walk_timeouts(struct walk *walk)
{
	const struct uring_reader *reader = walk->reader;
	uint64_t head = walk->facts->ring + reader->offsets[TIMEOUTS], node;
	int result = read_part(walk, walk->facts->ring, TIMEOUTS, &node, 8);

	while (!result && node != head) {
		result = add_request(walk, node - reader->offsets[TIMEOUT_NODE]);
		if (!result && peek_read(&reader->peek, node, &node, sizeof(node)))
			result = uring_cannot_read(-EFAULT);
	}
	return result;
}

/* Timeouts first: when they are submitted again, no other completion may count for one of them. */
int uring_read_requests(const struct uring_reader *reader, const struct uring_facts *facts,
			struct uring_requests *requests, const char **problem)
{
	struct walk walk = { reader, facts, requests, NULL };
	int result = 0;

	*requests = (struct uring_requests){ 0 };
	if (reader->has_requests && facts->in_flight)
		result = walk_timeouts(&walk) ?: walk_polled(&walk);
	*problem = walk.problem;
	return result;
}

bool uring_lists_requests(const struct uring_reader *reader)
{
	return reader->has_requests;
}

void uring_requests_free(struct uring_requests *requests)
{
	free(requests->items);
	*requests = (struct uring_requests){ 0 };
}
