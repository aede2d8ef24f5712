/*
 * ring.c - counts the requests that are in flight in an AIO ring.
 *
 * The kernel has no call for that, but a request keeps its slot of the ring from io_submit() until its completion is
 * read. So the parasite fills all free slots with requests of its own that complete at once (they read nothing from its
 * socket): the slots that are then neither its own nor unread are in flight. Then it turns the ring with more such
 * requests, until the kernel's tail, which nothing can set, is back where it was. Eight slots, two completions (A, B)
 * unread, one request in flight that completes (C) meanwhile:
 *
 *	A B . . . . . .      head 0, tail 2
 *	A B o o C o o .      full: 6 unread of the 7 that may be in use, and now C is in flight no more
 *	o o o . o o o o      turned: 8 of ours in all, and the tail three slots after the first one: 2 + C
 *	A B C . o o o o      what is the task's is put back; head 0, tail 3
 *
 * The kernel hands out free slots by CPU: each CPU has some in reserve (fs/aio.c, Linux 3.13), so all CPUs are visited.
 * A child does that, which shares only memory and files with the task: its CPU mask is its own, and it finishes even if
 * criu dies. All threads of the task stand still; only the kernel writes to the ring, and only at its tail.
 */
#include <errno.h>
#include <linux/aio_abi.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include "compiler.h"
#include "ring.h"
#include "syscalls.h"

#define BATCH	  64
#define CPU_WORDS 128 /* of a mask: 8192 CPUs, as many as a kernel can have */

/* What the kernel has at the address of a ring (fs/aio.c). */
struct ring {
	uint32_t id, slots, head, tail;
	uint32_t magic, compatible, incompatible, header_size;
	struct io_event events[];
};

/* Positions count from the head at the start, and do not wrap. */
struct probe {
	struct ring *ring;
	uint32_t slots, most;
	uint32_t first; /* position 0 */
	uint32_t sent;	/* the parasite's requests; also the position of the head */
	uint32_t seen;	/* completions that were read */
	uint32_t kept_count;
	struct io_event *kept; /* the task's completions, in order */
	struct iocb request;
	uint64_t allowed[CPU_WORDS];
	long result;
};

static struct io_event *event_at(struct probe *probe, uint32_t position)
{
	return &probe->ring->events[(probe->first + position) % probe->slots];
}

static void set_head(struct probe *probe, uint32_t position)
{
	__atomic_store_n(&probe->ring->head, (probe->first + position) % probe->slots, __ATOMIC_RELEASE);
}

/* Reads new completions, and keeps the task's. */
static void look(struct probe *probe)
{
	uint32_t tail = __atomic_load_n(&probe->ring->tail, __ATOMIC_ACQUIRE) % probe->slots;

	while ((probe->first + probe->seen) % probe->slots != tail) {
		const struct io_event *event = event_at(probe, probe->seen++);

		if (event->obj != (uintptr_t)&probe->request && probe->kept_count < probe->slots)
			probe->kept[probe->kept_count++] = *event;
	}
}

/* Fills the free slots of this CPU, until `wanted` requests have been sent in all. */
static void fill_here(struct probe *probe, uint32_t wanted)
{
	struct iocb *requests[BATCH];
	long sent;

	for (size_t i = 0; i < BATCH; i++)
		requests[i] = &probe->request;
	do {
		sent = sys_io_submit((uintptr_t)probe->ring, min(wanted - probe->sent, (uint32_t)BATCH),
				     requests);
		probe->sent += sent > 0 ? (uint32_t)sent : 0;
	} while (sent > 0 && probe->sent < wanted);
}

static void fill(struct probe *probe, uint32_t wanted)
{
	for (uint32_t cpu = 0; cpu < CPU_WORDS * 64 && probe->sent < wanted; cpu++) {
		uint64_t only[CPU_WORDS] = { 0 };

		if (!(probe->allowed[cpu / 64] >> cpu % 64 & 1))
			continue;
		only[cpu / 64] = 1ULL << cpu % 64;
		if (!sys_sched_setaffinity(0, sizeof(only), only))
			fill_here(probe, wanted);
	}
}

/*
 * Sets the head so that the kernel sees as many unread completions as the task has, and gives none of their slots away.
 */
static void turn(struct probe *probe)
{
	uint32_t before;

	do {
		before = probe->sent;
		set_head(probe, probe->sent);
		fill(probe, probe->slots);
		look(probe);
	} while (probe->sent < probe->slots && probe->sent > before);
}

static void put_back(struct probe *probe)
{
	for (uint32_t i = 0; i < probe->kept_count; i++)
		*event_at(probe, probe->sent + i) = probe->kept[i];
	set_head(probe, probe->sent);
}

static long measure(struct probe *probe)
{
	uint32_t head = probe->ring->head;
	long in_flight;

	probe->first = head % probe->slots;
	look(probe);
	fill(probe, probe->slots);
	look(probe);
	in_flight = (long)probe->most - probe->seen;
	if (!probe->sent)
		return in_flight; /* no slot was free, so nothing was changed */
	turn(probe);
	put_back(probe);
	if (probe->sent != probe->slots)
		return -EBUSY;
	probe->ring->head = head;
	return in_flight < 0 ? -ERANGE : in_flight;
}

static does_not_return void work(struct probe *probe)
{
	__builtin_memset(probe->allowed, 0xff, sizeof(probe->allowed));
	sys_sched_setaffinity(0, sizeof(probe->allowed), probe->allowed);
	__builtin_memset(probe->allowed, 0, sizeof(probe->allowed));
	probe->result = sys_sched_getaffinity(0, sizeof(probe->allowed), probe->allowed);
	if (probe->result > 0)
		probe->result = measure(probe);
	for (;;)
		sys_exit(0);
}

/* As vfork(): the child runs on this stack until it ends, and must not return from here. */
static __attribute__((noinline)) long bear_worker(struct probe *probe)
{
	long pid = sys_clone(CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_FS, NULL);

	if (!pid)
		work(probe);
	return pid;
}

long count_requests(int file, uint64_t ring, uint32_t slots, uint32_t most)
{
	size_t size = round_up(sizeof(struct probe) + slots * sizeof(struct io_event), PAGE_SIZE);
	long room = sys_mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct probe *probe = (struct probe *)room;
	long pid, result;

	if (room < 0 && room >= -4095)
		return room;
	probe->ring = (struct ring *)ring;
	probe->slots = slots;
	probe->most = most;
	probe->kept = (struct io_event *)(probe + 1);
	probe->request.aio_lio_opcode = IOCB_CMD_PREAD;
	probe->request.aio_fildes = (uint32_t)file;
	probe->result = -ESRCH; /* it was killed */
	pid = bear_worker(probe);
	if (pid > 0)
		sys_wait4((pid_t)pid, NULL, __WALL, NULL);
	result = pid < 0 ? pid : probe->result;
	sys_munmap(probe, size);
	return result;
}
