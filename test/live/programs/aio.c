/*
 * aio.c - AIO rings: completions that wait to be read and requests in flight. The kernel must continue at the right
 * place in each ring.
 *
 * usage: aio DIRECTORY rings|many|full|busy|awaited|blocked|poll|poll_large|inherited|family [numbers]
 *	numbers: the kernel's numbers of the rings must stay the same, too
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "live.h"

struct header {
	uint32_t id, slots, head, tail, magic, compatible, incompatible, header_size;
	struct io_event events[];
};

/* Requests are numbered in the order of submission. Reads of a file in the page cache complete in the same order. */
struct ring {
	aio_context_t context;
	uint64_t sent, read;
	struct header noted;
};

#define SIZE  (1 << 20)
#define BLOCK 4096
#define DEPTH 64

static struct ring rings[40];
static size_t count;
static int file, pipes[2];
static char *buffers;
static pid_t child;
static bool keeps_numbers;

static volatile struct header *header_of(const struct ring *ring)
{
	return (struct header *)(uintptr_t)ring->context;
}

static long set_up(unsigned requests, aio_context_t *context)
{
	*context = 0;
	return syscall(SYS_io_setup, requests, context);
}

static struct ring *new_ring(unsigned requests)
{
	struct ring *ring = &rings[count++];

	live_check(set_up(requests, &ring->context) == 0, "io_setup(%u): %m", requests);
	return ring;
}

static bool submit_one(struct ring *ring)
{
	static char byte;
	struct iocb request = {
		.aio_data = ring->sent,
		.aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_fildes = file,
		.aio_buf = (uintptr_t)&byte,
		.aio_nbytes = 1,
	}, *requests = &request;
	long sent = syscall(SYS_io_submit, ring->context, 1L, &requests);

	live_check(sent == 1 || errno == EAGAIN, "io_submit: %m");
	ring->sent += sent == 1;
	return sent == 1;
}

static void submit(struct ring *ring, unsigned number)
{
	while (number--)
		live_check(submit_one(ring), "io_submit: no room");
}

static void check_event(struct ring *ring, const struct io_event *event)
{
	live_check(event->data == ring->read, "completion %llu instead of %llu", (long long)event->data,
		   (long long)ring->read);
	live_check(event->res == 1, "completion %llu: result %lld", (long long)event->data,
		   (long long)event->res);
	ring->read++;
}

static void take(struct ring *ring, unsigned number)
{
	struct io_event event;

	while (number--) {
		live_check(syscall(SYS_io_getevents, ring->context, 1L, 1L, &event, NULL) == 1,
			   "io_getevents: %m");
		check_event(ring, &event);
	}
}

/* Takes completions from the ring without a system call, as libaio does. */
static void take_by_hand(struct ring *ring, unsigned number)
{
	volatile struct header *header = header_of(ring);

	while (number--) {
		struct io_event event = *(struct io_event *)&header->events[header->head];

		check_event(ring, &event);
		header->head = (header->head + 1) % header->slots;
	}
}

static void check_empty(struct ring *ring)
{
	struct timespec now = { 0 };
	struct io_event event;

	live_check(syscall(SYS_io_getevents, ring->context, 1L, 1L, &event, &now) == 0,
		   "a completion too many: %llu", (long long)event.data);
}

static void note(void)
{
	for (size_t i = 0; i < count; i++)
		rings[i].noted = *(struct header *)header_of(&rings[i]);
}

static void verify_headers(void)
{
	for (size_t i = 0; i < count; i++) {
		volatile struct header *now = header_of(&rings[i]);
		const struct header *then = &rings[i].noted;

		live_check(now->slots == then->slots && now->head == then->head && now->tail == then->tail &&
				   now->magic == then->magic,
			   "ring %zu: slots %u, head %u, tail %u instead of %u, %u, %u", i, now->slots,
			   now->head, now->tail, then->slots, then->head, then->tail);
		live_check(!keeps_numbers || now->id == then->id, "ring %zu: number %u instead of %u", i,
			   now->id, then->id);
	}
}

/* Takes all completions that waited, then fills and empties the ring several times. */
static void verify_ring(struct ring *ring)
{
	uint32_t slots = header_of(ring)->slots;

	take(ring, ring->sent - ring->read);
	check_empty(ring);
	for (uint32_t done = 0; done < 3 * slots; done += 10) {
		submit(ring, 10);
		if (done % 20)
			take(ring, 10);
		else
			take_by_hand(ring, 10);
	}
	while (submit_one(ring))
		;
	take(ring, ring->sent - ring->read);
	check_empty(ring);
}

static void verify_all(void)
{
	verify_headers();
	for (size_t i = 0; i < count; i++)
		verify_ring(&rings[i]);
	live_check(syscall(SYS_io_destroy, rings[0].context) == 0, "io_destroy: %m");
}

/* ---- rings: several, in every state; one in the middle was destroyed ---- */

static void set_up_rings(void)
{
	aio_context_t gone;
	struct ring *ring = new_ring(1);

	submit(ring, 5); /* some read, some not */
	take(ring, 1);
	take_by_hand(ring, 1);
	ring = new_ring(200); /* beyond the end of the ring */
	for (uint32_t i = 0; i < header_of(ring)->slots - 3; i++) {
		submit(ring, 1);
		take(ring, 1);
	}
	submit(ring, 10);
	live_check(set_up(1, &gone) == 0, "io_setup: %m");
	ring = new_ring(1); /* the third pass over the ring, all read */
	for (uint32_t i = 0; i < 2 * header_of(ring)->slots + 7; i++) {
		submit(ring, 1);
		take(ring, 1);
	}
	new_ring(500); /* untouched */
	live_check(syscall(SYS_io_destroy, gone) == 0, "io_destroy: %m");
	note();
}

static void set_up_many(void)
{
	for (int i = 0; i < 40; i++)
		submit(new_ring(1 + i * 30), i);
	note();
}

/* The kernel hands out the slots of a ring to each CPU in batches, so elsewhere a full ring may have some left. */
static void stay_on_one_cpu(void)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	live_check(sched_setaffinity(0, sizeof(one), &one) == 0, "sched_setaffinity: %m");
}

/* The ring is full: one more completion would overwrite one that waits. */
static void set_up_full(void)
{
	struct ring *ring;

	stay_on_one_cpu();
	ring = new_ring(1);
	submit(ring, 50);
	take(ring, 50);
	while (submit_one(ring))
		;
	ring = new_ring(100); /* all but one */
	while (submit_one(ring))
		;
	take(ring, 1);
	note();
}

static void verify_full(void)
{
	verify_headers();
	live_check(!submit_one(&rings[0]), "the full ring accepts a request");
	verify_all();
}

/* ---- busy: requests in flight at every moment ---- */

static void send_block(struct ring *ring, unsigned slot, uint64_t number)
{
	struct iocb request = {
		.aio_data = number << 8 | slot,
		.aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_fildes = file,
		.aio_buf = (uintptr_t)buffers + slot * BLOCK,
		.aio_nbytes = BLOCK,
		.aio_offset = number * BLOCK % SIZE,
	}, *requests = &request;

	memset(buffers + slot * BLOCK, 0, BLOCK);
	live_check(syscall(SYS_io_submit, ring->context, 1L, &requests) == 1, "io_submit: %m");
	ring->sent++;
}

static uint64_t awaited[DEPTH]; /* the number of the request in flight; 0: none */

static void check_block(struct ring *ring, const struct io_event *event)
{
	unsigned slot = event->data & 255;
	uint64_t number = event->data >> 8;

	live_check(slot < DEPTH && number && awaited[slot] == number,
		   "completion %llu is of no request in flight", (long long)number);
	live_check(event->res == BLOCK, "request %llu: result %lld", (long long)number,
		   (long long)event->res);
	live_compare(buffers + slot * BLOCK, BLOCK, number * BLOCK % SIZE, "what was read");
	awaited[slot] = 0;
	ring->read++;
}

static void set_up_busy(void)
{
	char path[4096];
	int direct;

	new_ring(DEPTH);
	buffers = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (size_t at = 0; at < SIZE; at += BLOCK) {
		live_fill(buffers, BLOCK, at);
		live_check(pwrite(file, buffers, BLOCK, at) == BLOCK, "write: %m");
	}
	live_check(fsync(file) == 0, "fsync: %m");
	live_path(path, sizeof(path), "file");
	direct = open(path, O_RDONLY | O_DIRECT);
	if (direct >= 0)
		file = direct;
}

static void be_busy(void)
{
	struct ring *ring = &rings[0];
	struct io_event event;

	for (unsigned slot = 0; slot < DEPTH; slot++)
		if (!awaited[slot]) {
			awaited[slot] = ring->sent + 1;
			send_block(ring, slot, ring->sent + 1);
		}
	if (syscall(SYS_io_getevents, ring->context, 1L, 1L, &event, NULL) == 1)
		check_block(ring, &event);
}

static void verify_busy(void)
{
	struct ring *ring = &rings[0];
	struct io_event event;

	while (ring->read < ring->sent) {
		live_check(syscall(SYS_io_getevents, ring->context, 1L, 1L, &event, NULL) == 1,
			   "io_getevents: %m");
		check_block(ring, &event);
	}
	check_empty(ring);
}

/* ---- awaited: requests are in flight until the harness writes to a named pipe ---- */

#define POLLS 8

static void send_poll(struct ring *ring, int fd, uint64_t data)
{
	struct iocb request = {
		.aio_data = data,
		.aio_lio_opcode = IOCB_CMD_POLL,
		.aio_fildes = fd,
		.aio_buf = POLLIN,
	}, *requests = &request;

	live_check(syscall(SYS_io_submit, ring->context, 1L, &requests) == 1, "io_submit: %m");
}

static void set_up_awaited(void)
{
	struct ring *ring = new_ring(10);
	char path[4096];

	live_path(path, sizeof(path), "fifo");
	live_check(mkfifo(path, 0600) == 0, "%s: %m", path);
	pipes[0] = open(path, O_RDONLY | O_NONBLOCK); /* only one end, so that no poll waits in two queues */
	pipes[1] = open(path, O_WRONLY);
	submit(ring, 100); /* so that completions of the polls pass the end of the ring */
	take(ring, 95);
	for (uint64_t i = 1; i <= POLLS; i++)
		send_poll(ring, pipes[0], 1000 * i);
	submit(ring, 15);
	note();
}

/* It must not check its ring meanwhile, which the harness changes at any time. */
static void rest(void)
{
}

static void verify_awaited(void)
{
	struct ring *ring = &rings[0];
	struct io_event events[POLLS];
	uint64_t sum = 0;

	take(ring, 20);
	live_check(syscall(SYS_io_getevents, ring->context, (long)POLLS, (long)POLLS, events, NULL) == POLLS,
		   "io_getevents: %m");
	for (int i = 0; i < POLLS; i++) {
		live_check(events[i].data % 1000 == 0 && events[i].res & POLLIN, "a completion of %llu: %lld",
			   (long long)events[i].data, (long long)events[i].res);
		sum |= 1 << events[i].data / 1000;
	}
	live_check(sum == (2 << POLLS) - 2, "not every poll has completed once");
	check_empty(ring);
	note();
	verify_all();
}

/* ---- blocked: a thread waits for completions of requests that were not submitted yet ---- */

static pthread_t waiter;

static void *wait_for_two(void *argument)
{
	take(argument, 2);
	return NULL;
}

static void set_up_blocked(void)
{
	new_ring(10);
	live_check(pthread_create(&waiter, NULL, wait_for_two, &rings[0]) == 0, "pthread_create");
	note();
}

static void verify_blocked(void)
{
	verify_headers();
	submit(&rings[0], 2);
	pthread_join(waiter, NULL);
	live_check(rings[0].read == 2, "the thread has read %llu", (long long)rings[0].read);
	note();
	verify_all();
}

/* ---- poll: in flight until something is written; a completion behind it waits, too ---- */

static void poll_in(struct ring *ring)
{
	live_check(pipe(pipes) == 0, "pipe: %m");
	submit(ring, 30);
	take(ring, 20);
	send_poll(ring, pipes[0], 77);
	note();
}

static void set_up_poll(void)
{
	poll_in(new_ring(10));
}

/* So large that criu spends most of the time counting, not waiting for the next count. */
static void set_up_poll_large(void)
{
	poll_in(new_ring(30000));
}

static void verify_poll(void)
{
	struct io_event event;

	verify_headers();
	take(&rings[0], 10);
	check_empty(&rings[0]);
	live_check(write(pipes[1], "x", 1) == 1, "write: %m");
	live_check(syscall(SYS_io_getevents, rings[0].context, 1L, 1L, &event, NULL) == 1,
		   "io_getevents: %m");
	live_check(event.data == 77 && event.res & POLLIN, "the poll completed with %lld",
		   (long long)event.res);
	note();
	verify_all();
}

/* ---- inherited: the child sees its parent's ring, if the kernel allows it (6.18 does, 7.2 does not) ---- */

static void see(void)
{
	unsigned char resident;
	bool sees = mincore((void *)(uintptr_t)rings[0].context, 1, &resident) == 0;

	signal(SIGTERM, live_stop_child);
	live_check(write(pipes[1], sees ? "y" : "n", 1) == 1, "write: %m");
	for (;;)
		pause();
}

static void set_up_inherited(void)
{
	char byte;

	live_check(pipe(pipes) == 0, "pipe: %m");
	submit(new_ring(10), 3);
	note();
	child = live_fork(see);
	live_check(read(pipes[0], &byte, 1) == 1, "read: %m");
	if (byte == 'y')
		return;
	live_join(child);
	live_skip("on this kernel a child does not see its parent's ring");
}

static void verify_inherited(void)
{
	live_join(child);
	verify_all();
}

/* ---- family: the child has unmapped the inherited ring and has its own, perhaps at the same address ---- */

static size_t inherited_size; /* determined before the fork, because not every kernel lets the child see it */

static void have_own_ring(void)
{
	sigset_t term;
	int signo;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, NULL);
	munmap((void *)(uintptr_t)rings[0].context, inherited_size);
	count = 0;
	memset(rings, 0, sizeof(rings));
	submit(new_ring(10), 4);
	take(&rings[0], 2);
	note();
	live_check(write(pipes[1], "x", 1) == 1, "write: %m");
	sigwait(&term, &signo);
	verify_all();
}

static void set_up_family(void)
{
	char byte;

	live_check(pipe(pipes) == 0, "pipe: %m");
	submit(new_ring(10), 3);
	note();
	inherited_size = (header_of(&rings[0])->slots + 1) * sizeof(struct io_event);
	child = live_fork(have_own_ring);
	live_check(read(pipes[0], &byte, 1) == 1, "read: %m");
}

static const struct {
	const char *name;
	void (*set_up)(void);
	void (*go_on)(void);
	void (*verify)(void);
} states[] = {
	{ "rings", set_up_rings, verify_headers, verify_all },
	{ "many", set_up_many, verify_headers, verify_all },
	{ "full", set_up_full, verify_headers, verify_full },
	{ "busy", set_up_busy, be_busy, verify_busy },
	{ "awaited", set_up_awaited, rest, verify_awaited },
	{ "blocked", set_up_blocked, verify_headers, verify_blocked },
	{ "poll", set_up_poll, verify_headers, verify_poll },
	{ "poll_large", set_up_poll_large, verify_headers, verify_poll },
	{ "inherited", set_up_inherited, verify_headers, verify_inherited },
	{ "family", set_up_family, verify_headers, verify_inherited },
};

int main(int argc, char **argv)
{
	char path[4096];

	live_begin(argc, argv);
	live_path(path, sizeof(path), "file");
	file = open(path, O_RDWR | O_CREAT, 0600);
	live_check(file >= 0 && write(file, "x", 1) == 1, "%s: %m", path);
	__auto_type state = live_choose(states, argv[2]);
	keeps_numbers = argc > 3;
	state->set_up();
	live_ready();
	while (!live_stopping()) {
		state->go_on();
		if (state->go_on != be_busy)
			live_sleep(0.01);
	}
	state->verify();
	return live_finish();
}
