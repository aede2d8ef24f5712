/*
 * many_areas.c - a given number of mappings of one page, alternating between two protections, in a process and its
 * child.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/mman.h>

#include "live.h"

#define PAGE 4096UL

static char *memory;
static size_t count;

static void verify(void)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t *words = (uint64_t *)(memory + i * PAGE);

		live_check(words[0] == i + 1 && words[511] == ~i, "page %zu has changed", i);
	}
}

static void child(void)
{
	while (!live_stopping())
		live_sleep(0.01);
	verify();
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	count = strtoul(argv[2], NULL, 10);
	memory = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (size_t i = 0; i < count; i++) {
		uint64_t *words = (uint64_t *)(memory + i * PAGE);

		words[0] = i + 1;
		words[511] = ~i;
	}
	for (size_t i = 1; i < count; i += 2)
		live_check(mprotect(memory + i * PAGE, PAGE, PROT_READ) == 0, "mapping %zu: %m", i);
	pid_t pid = live_fork(child);
	live_ready();
	live_wait_stop();
	verify();
	live_join(pid);
	return live_finish();
}
