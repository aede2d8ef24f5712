/*
 * ring_test.c - AIO rings: sizes are those of the kernel, a new ring can be brought to the state of another, and
 * requests in flight are counted as the parasite does it, but in this process. The ring must not change by that,
 * whatever completes meanwhile.
 */
#include "unit.h"
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <poll.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "blobs/parasite/ring.c"
#include "memory/aio.h"

#define POLLS  60
#define ROUNDS 40

static int sockets[2];
static cpu_set_t allowed;
static uint64_t sent, expected; /* numbers of requests, and of the completion to be read next */

static int begin(void **state unused)
{
	aio_context_t ring;

	failure_clear();
	log_level = 0;
	sent = expected = 0;
	sched_getaffinity(0, sizeof(allowed), &allowed);
	if (aio_make_smallest(&ring))
		skip(); /* a kernel without AIO, or a container that is not allowed to use it */
	aio_destroy(&ring, 1);
	return socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets);
}

static int end(void **state unused)
{
	close(sockets[0]);
	close(sockets[1]);
	return 0;
}

static bool submit(aio_context_t ring, int opcode, int file, uint64_t data)
{
	struct iocb request = {
		.aio_data = data,
		.aio_lio_opcode = (uint16_t)opcode,
		.aio_fildes = (uint32_t)file,
		.aio_buf = opcode == IOCB_CMD_POLL ? POLLIN : 0,
	}, *requests = &request;

	bool is_sent;

	is_sent = sys_io_submit(ring, 1, &requests) == 1;
	/* Another CPU may have reserved free slots. */
	for (size_t cpu = 0; cpu < CPU_SETSIZE && !is_sent; cpu++) {
		cpu_set_t only;

		CPU_ZERO(&only);
		CPU_SET(cpu, &only);
		is_sent = !sched_setaffinity(0, sizeof(only), &only) &&
			  sys_io_submit(ring, 1, &requests) == 1;
	}
	sched_setaffinity(0, sizeof(allowed), &allowed);
	return is_sent;
}

static void complete(aio_context_t ring, uint32_t number)
{
	while (number--)
		assert_true(submit(ring, IOCB_CMD_PREAD, sockets[0], sent++));
}

static void take(aio_context_t ring, uint32_t number)
{
	struct io_event event;

	while (number--) {
		assert_int_equal(sys_io_getevents(ring, 1, 1, &event, NULL), 1);
		assert_int_equal(event.data, expected++);
	}
}

static long count(aio_context_t ring, uint32_t most)
{
	return count_requests(sockets[0], ring, aio_header_of(ring)->slots, most);
}

static aio_context_t make(uint64_t length, uint32_t *most)
{
	struct aio_lengths known = { 0 };
	aio_context_t ring;

	assert_int_equal(aio_find_most(&known, length, most), 0);
	aio_lengths_free(&known);
	assert_int_equal(aio_make(length, &ring), 0);
	return ring;
}

static uint64_t smallest(void)
{
	aio_context_t ring;
	uint64_t length;

	assert_int_equal(aio_make_smallest(&ring), 0);
	length = (aio_header_of(ring)->slots + 1UL) * sizeof(struct io_event);
	aio_destroy(&ring, 1);
	return length;
}

/* ---- sizes ---- */

static void numbers_that_lead_to_a_length(void **state unused)
{
	assert_int_equal(aio_slots(PAGE_SIZE), 127);
	assert_int_equal(aio_least_requests(PAGE_SIZE), 1);
	assert_int_equal(aio_most_requests(PAGE_SIZE), 62);
	assert_int_equal(aio_least_requests(2 * PAGE_SIZE), 63);
	assert_int_equal(aio_most_requests(2 * PAGE_SIZE), 126);
	assert_int_equal(aio_least_requests(3 * PAGE_SIZE), 127);
	assert_int_equal(aio_most_requests(3 * PAGE_SIZE), 190);
	assert_int_equal(aio_most_requests(0), 0);
	assert_int_equal(aio_least_requests(0), 0);
	assert_int_equal(aio_most_requests(PAGE_SIZE + 32), 0);
	assert_int_equal(aio_least_requests(1ULL << 40), 0);
}

static void kernel_agrees(void **state unused)
{
	uint64_t length = smallest();

	for (int i = 0; i < 5; i++, length += PAGE_SIZE) {
		uint32_t numbers[] = { aio_least_requests(length), aio_most_requests(length) };

		for (size_t at = 0; at < array_size(numbers); at++) {
			aio_context_t ring = 0;

			assert_int_equal(sys_io_setup(numbers[at], &ring), 0);
			assert_int_equal(aio_check_header(aio_header_of(ring), length), 0);
			assert_int_not_equal(aio_check_header(aio_header_of(ring), length + PAGE_SIZE), 0);
			aio_destroy(&ring, 1);
		}
	}
}

static void impossible_headers(void **state unused)
{
	const struct aio_header good = { 7, 127, 126, 0, AIO_MAGIC, 1, 0, 32 };
	struct aio_header bad[] = { good, good, good, good, good };

	assert_int_equal(aio_check_header(&good, PAGE_SIZE), 0);
	bad[0].slots++;
	bad[1].head = 127;
	bad[2].tail = UINT32_MAX;
	bad[3].magic++;
	bad[4].header_size = 0;
	for (size_t i = 0; i < array_size(bad); i++)
		assert_int_equal(aio_check_header(&bad[i], PAGE_SIZE), -EINVAL);
}

static void impossible_lengths(void **state unused)
{
	aio_context_t ring;

	assert_true(aio_make(PAGE_SIZE + 32, &ring) < 0);
	failure_clear();
	if (smallest() > PAGE_SIZE)
		assert_true(aio_make(smallest() - PAGE_SIZE, &ring) < 0);
}

/* ---- a ring in the state of another ---- */

static void check_goes_on(aio_context_t ring, uint32_t unread, uint32_t most)
{
	struct aio_header *header = aio_header_of(ring);
	uint32_t tail = header->tail;

	memset(header + 1, 0, header->slots * sizeof(struct io_event));
	for (uint32_t i = unread; i < most; i++)
		assert_true(submit(ring, IOCB_CMD_PREAD, sockets[0], 1000 + i));
	assert_false(submit(ring, IOCB_CMD_PREAD, sockets[0], 1));
	for (uint32_t i = unread; i < most; i++)
		assert_int_equal(((struct io_event *)(header + 1))[(tail + i - unread) % header->slots].data,
				 1000 + i);
}

static void a_ring_is_brought_to_a_state(void **state unused)
{
	uint64_t length = smallest();
	uint32_t most, slots = aio_slots(length);
	struct aio_lengths known = { 0 };
	const uint32_t heads[] = { 0, 1, slots / 2, slots - 1 };

	assert_int_equal(aio_find_most(&known, length, &most), 0);
	for (size_t i = 0; i < array_size(heads); i++)
		for (uint32_t unread = 0; unread <= most; unread += most / 3) {
			uint32_t tail = (heads[i] + unread) % slots;
			aio_context_t ring;

			assert_int_equal(aio_make(length, &ring), 0);
			*grow(&known.rings, &known.ring_count) = ring;
			assert_int_equal(aio_advance(ring, heads[i], tail), 0);
			assert_int_equal(aio_header_of(ring)->head, heads[i]);
			assert_int_equal(aio_header_of(ring)->tail, tail);
			check_goes_on(ring, unread, most);
		}
	aio_lengths_free(&known);
}

/* ---- requests in flight ---- */

/* For every head and number of unread completions: nothing is in flight, and nothing has changed. */
static void nothing_in_flight(void **state unused)
{
	uint64_t length = smallest();
	uint32_t most;
	aio_context_t ring = make(length, &most);
	uint32_t slots = aio_slots(length);

	for (uint32_t round = 0; round < slots; round++) {
		uint32_t unread = round % 4 ? round * 7 % most : most * (round % 8 / 4);
		struct aio_header before;

		complete(ring, unread);
		before = *aio_header_of(ring);
		assert_int_equal(count(ring, most), 0);
		assert_memory_equal(&before, aio_header_of(ring), sizeof(before));
		take(ring, unread);
		assert_int_equal(count(ring, most), 0);
		complete(ring, 1);
		take(ring, 1);
	}
	aio_destroy(&ring, 1);
}

static void a_larger_ring(void **state unused)
{
	uint32_t most;
	aio_context_t ring = make(20 * PAGE_SIZE, &most);

	complete(ring, 1500);
	take(ring, 1400);
	assert_int_equal(count(ring, most), 0);
	take(ring, 100);
	complete(ring, most);
	assert_false(submit(ring, IOCB_CMD_PREAD, sockets[0], 0));
	assert_int_equal(count(ring, most), 0);
	take(ring, most);
	aio_destroy(&ring, 1);
}

static void some_in_flight(void **state unused)
{
	uint32_t most;
	aio_context_t ring = make(smallest(), &most);
	autoclose int events = eventfd(0, 0);
	struct aio_header before;

	complete(ring, 10);
	take(ring, 4);
	for (uint64_t i = 0; i < 5; i++) /* the last one that waits is woken first */
		assert_true(submit(ring, IOCB_CMD_POLL, events, 14 - i));
	before = *aio_header_of(ring);
	for (int i = 0; i < 3; i++)
		assert_int_equal(count(ring, most), 5);
	assert_memory_equal(&before, aio_header_of(ring), sizeof(before));
	assert_int_equal(write(events, &(uint64_t){ 1 }, 8), 8);
	assert_int_equal(count(ring, most), 0);
	take(ring, 11);
	aio_destroy(&ring, 1);
}

/* ---- requests that complete while they are counted ---- */

static int events[POLLS];
static volatile bool goes_on;

static void *complete_them(void *argument unused)
{
	for (int i = 0; i < POLLS; i++) {
		if (write(events[i], &(uint64_t){ 1 }, 8) != 8)
			return NULL;
		for (volatile int spin = 0; spin < 2000; spin++)
			;
	}
	goes_on = false;
	return NULL;
}

static void completions_meanwhile(void **state unused)
{
	uint32_t most;
	aio_context_t ring = make(smallest(), &most);
	pthread_t thread;
	long left = 0;

	for (int i = 0; i < POLLS; i++)
		events[i] = eventfd(0, 0);
	for (int round = 0; round < ROUNDS; round++) {
		complete(ring, (uint32_t)round);
		for (int i = 0; i < POLLS; i++, sent++)
			assert_true(submit(ring, IOCB_CMD_POLL, events[i], sent));
		goes_on = true;
		assert_int_equal(pthread_create(&thread, NULL, complete_them, NULL), 0);
		do {
			left = count(ring, most);
			assert_in_range(left, 0, POLLS);
		} while (left || goes_on);
		pthread_join(thread, NULL);
		assert_int_equal(count(ring, most), 0);
		take(ring, (uint32_t)round + POLLS);
		for (int i = 0; i < POLLS; i++)
			assert_int_equal(read(events[i], &(uint64_t){ 0 }, 8), 8);
	}
	for (int i = 0; i < POLLS; i++)
		close(events[i]);
	aio_destroy(&ring, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(numbers_that_lead_to_a_length, begin, end),
		cmocka_unit_test_setup_teardown(kernel_agrees, begin, end),
		cmocka_unit_test_setup_teardown(impossible_headers, begin, end),
		cmocka_unit_test_setup_teardown(impossible_lengths, begin, end),
		cmocka_unit_test_setup_teardown(a_ring_is_brought_to_a_state, begin, end),
		cmocka_unit_test_setup_teardown(nothing_in_flight, begin, end),
		cmocka_unit_test_setup_teardown(a_larger_ring, begin, end),
		cmocka_unit_test_setup_teardown(some_in_flight, begin, end),
		cmocka_unit_test_setup_teardown(completions_meanwhile, begin, end),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
