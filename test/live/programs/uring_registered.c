/*
 * uring_registered.c - io_uring: what threads have registered beside files: descriptors of rings.
 *
 * usage: uring_registered DIRECTORY slots|blocked|elsewhere
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>

#include "uring.h"

#ifndef IORING_ENTER_REGISTERED_RING
#define IORING_ENTER_REGISTERED_RING (1U << 4)
#endif

static struct ring rings[3];
static pthread_t thread;
static volatile int is_ready, is_time;

static void register_slot(const struct ring *ring, uint32_t slot)
{
	struct io_uring_rsrc_update update = { .offset = slot, .data = (uint64_t)ring->fd };

	live_check(syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_RING_FDS, &update, 1) == 1 &&
			   update.offset == slot,
		   "register: %m");
}

static long enter_slot(uint32_t slot, uint32_t requests, uint32_t completions)
{
	return syscall(SYS_io_uring_enter, slot, requests, completions,
		       IORING_ENTER_GETEVENTS | IORING_ENTER_REGISTERED_RING, NULL, 0);
}

static void turn(struct ring *ring, uint32_t slot)
{
	for (uint64_t i = 0; i < 10; i++) {
		ring_prepare(ring, IORING_OP_NOP, i);
		live_check(enter_slot(slot, ring_publish(ring), 1) == 1, "enter slot %u: %m", slot);
		live_check(ring_take(ring).user_data == i, "another completion");
	}
}

/* ---- slots: of two threads, with gaps; two slots may have the same ring ---- */

static void *live_elsewhere(void *nothing)
{
	register_slot(&rings[1], 0);
	register_slot(&rings[2], 15);
	turn(&rings[2], 15);
	is_ready = 1;
	while (!is_time)
		live_sleep(0.01);
	turn(&rings[1], 0);
	turn(&rings[2], 15);
	live_check(enter_slot(1, 0, 0) < 0 && errno == EBADF, "it has a slot of another thread");
	return nothing;
}

static void set_up_slots(void)
{
	ring_make(&rings[0], 4, IORING_SETUP_SINGLE_ISSUER, 0);
	ring_make(&rings[1], 4, 0, 0);
	ring_make(&rings[2], 4, 0, 0);
	register_slot(&rings[0], 1);
	register_slot(&rings[1], 7);
	register_slot(&rings[1], 8);
	turn(&rings[0], 1);
	pthread_create(&thread, NULL, live_elsewhere, NULL);
	while (!is_ready)
		live_sleep(0.001);
}

static void verify_slots(void)
{
	turn(&rings[0], 1);
	turn(&rings[1], 7);
	turn(&rings[1], 8);
	live_check(enter_slot(0, 0, 0) < 0 && errno == EBADF, "another slot");
	is_time = 1;
	pthread_join(thread, NULL);
}

/* ---- blocked: a thread waits in such a ring ---- */

static void *wait_in_slot(void *nothing)
{
	register_slot(&rings[0], 3);
	is_ready = 1;
	live_check(enter_slot(3, 0, 1) == 0, "the wait ended: %m");
	return nothing;
}

static void set_up_blocked(void)
{
	ring_make(&rings[0], 4, 0, 0);
	pthread_create(&thread, NULL, wait_in_slot, NULL);
	while (!is_ready)
		live_sleep(0.001);
	live_sleep(0.01);
}

static void verify_blocked(void)
{
	ring_prepare(&rings[0], IORING_OP_NOP, 5);
	ring_submit(&rings[0]);
	pthread_join(thread, NULL);
	live_check(ring_take(&rings[0]).user_data == 5, "another completion");
}

/* ---- elsewhere: a thread has registered a ring that it has never used ---- */

static void *register_by_another(void *nothing)
{
	struct io_uring_rsrc_update update = { .offset = 5, .data = (uint64_t)rings[0].fd };

	live_check(syscall(SYS_io_uring_register, rings[1].fd, IORING_REGISTER_RING_FDS, &update, 1) == 1,
		   "register: %m");
	is_ready = 1;
	while (!is_time)
		live_sleep(0.01);
	turn(&rings[0], 5);
	return nothing;
}

static void set_up_elsewhere(void)
{
	ring_make(&rings[0], 4, 0, 0);
	ring_make(&rings[1], 4, 0, 0);
	pthread_create(&thread, NULL, register_by_another, NULL);
	while (!is_ready)
		live_sleep(0.001);
}

static void verify_elsewhere(void)
{
	is_time = 1;
	pthread_join(thread, NULL);
}

static const struct live_part parts[] = {
	{ "slots", set_up_slots, verify_slots },
	{ "blocked", set_up_blocked, verify_blocked },
	{ "elsewhere", set_up_elsewhere, verify_elsewhere },
};

int main(int argc, char **argv)
{
	return live_run_one(argc, argv, parts);
}
