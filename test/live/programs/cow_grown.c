/*
 * cow_grown.c - a child is created with its parent's heap of 64 MiB and a deep stack. Then both grow or shrink their
 * own. After a restore, what both still have must be shared again, and the rest must be each process's own.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "live.h"

#define MIB    (1UL << 20)
#define COMMON (64 * MIB)
#define STACK  (MIB / 2)

static char *heap;
static size_t heap_size;
static bool is_child;

static void verify_heap(void)
{
	size_t common = heap_size < COMMON ? heap_size : COMMON;

	live_compare(heap, common, 1, is_child ? "the child's heap" : "the parent's heap");
	if (heap_size > COMMON)
		live_compare(heap + COMMON, heap_size - COMMON, is_child ? 2 : 3,
			     "the part that the heap has grown by");
	live_check((char *)sbrk(0) == heap + heap_size, "the heap ends at %p, not at %p", sbrk(0),
		   (void *)(heap + heap_size));
}

static void resize_heap(long by)
{
	live_check(sbrk(by) != (void *)-1, "sbrk: %m");
	heap_size += by;
	if (by > 0)
		live_fill(heap + COMMON, by, is_child ? 2 : 3);
}

/* How many KiB of the pages from `start` to `end` other processes have, too. */
static unsigned long shared_with_others(const char *start, const char *end)
{
	FILE *smaps = fopen("/proc/self/smaps", "re");
	unsigned long from = 0, to = 0, value, sum = 0;
	char line[512];

	while (fgets(line, sizeof(line), smaps)) {
		live_smaps_head(line, &from, &to);
		if (to > (unsigned long)start && from < (unsigned long)end &&
		    sscanf(line, "Shared_%*[^:]: %lu", &value) == 1)
			sum += value;
	}
	fclose(smaps);
	return sum;
}

static void verify_sharing(void)
{
	unsigned long shared = shared_with_others(heap, heap + COMMON), expected = COMMON / 1024 / 2;

	live_check(shared >= expected * 95 / 100, "only %lu KiB of the heap are shared, of %lu", shared,
		   expected);
}

static void live_on(void)
{
	if (!is_child)
		live_ready();
	while (!live_stopping()) {
		verify_heap();
		live_sleep(0.02);
	}
	verify_heap();
	verify_sharing();
}

/* Runs `what` with that much of the stack filled above it, then checks that the filling is unchanged. */
__attribute__((noinline)) static void deep(size_t size, uint64_t seed, void (*what)(void))
{
	char *room = alloca(size);

	live_fill(room, size, seed);
	what();
	live_compare(room, size, seed, "the stack");
}

static void grow_and_live(void)
{
	resize_heap(8 * MIB);
	deep(STACK, 5, live_on);
}

static void child(void)
{
	is_child = true;
	grow_and_live();
}

static pid_t pid;

static void fork_and_shrink(void)
{
	pid = live_fork(child);
	resize_heap(-(long)(32 * MIB));
	live_sleep(0.3);
	deep(STACK / 4, 6, live_on);
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	free(malloc(64 << 10)); /* for libc's own allocations, below the heap of the test */
	heap = (char *)(((unsigned long)sbrk(0) + 4095) & ~4095UL);
	live_check(brk(heap + COMMON) == 0, "brk: %m");
	heap_size = COMMON;
	madvise(heap, COMMON, MADV_NOHUGEPAGE);
	live_fill(heap, COMMON, 1);
	deep(STACK, 4, fork_and_shrink);
	live_join(pid);
	return live_finish();
}
