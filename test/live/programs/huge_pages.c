/*
 * huge_pages.c - memory in transparent huge pages: it has as many afterwards, and no flag that it did not have before
 * (madvise(MADV_COLLAPSE), Linux 6.1, leaves none).
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "live.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define HUGE (2UL << 20)
#define SIZE (16 * HUGE)

static char *memory;
static char flags[256];

/* KiB in huge pages from `memory` to its end; `line` gets the flags. */
static unsigned long huge_pages(char *vm_flags, size_t size)
{
	FILE *smaps = fopen("/proc/self/smaps", "re");
	unsigned long from = 0, to = 0, value, sum = 0;
	char line[512];

	while (fgets(line, sizeof(line), smaps)) {
		sscanf(line, "%lx-%lx ", &from, &to);
		if (to <= (unsigned long)memory || from >= (unsigned long)memory + SIZE)
			continue;
		if (sscanf(line, "AnonHugePages: %lu", &value) == 1)
			sum += value;
		if (strncmp(line, "VmFlags:", 8) == 0)
			snprintf(vm_flags, size, "%s", line);
	}
	fclose(smaps);
	return sum;
}

static void verify(void)
{
	char now[256];
	unsigned long huge = huge_pages(now, sizeof(now));

	live_compare(memory, SIZE, 1, "huge memory");
	live_check(strcmp(now, flags) == 0, "the flags are %s, they were %s", now, flags);
	live_check(huge >= SIZE / 1024 * 3 / 4, "only %lu of %lu KiB are in huge pages", huge, SIZE / 1024);
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	char *room = mmap(NULL, SIZE + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memory = (char *)(((unsigned long)room + HUGE - 1) & ~(HUGE - 1));
	live_fill(memory, SIZE, 1);
	if (madvise(memory, SIZE, MADV_COLLAPSE) < 0 || huge_pages(flags, sizeof(flags)) < SIZE / 1024)
		live_skip("this kernel makes no huge pages when asked");
	live_ready();
	/* Not in a loop: a dump would find /proc/self/smaps open. */
	live_wait_stop();
	verify();
	return live_finish();
}
