/*
 * memory_flags.c - flags that madvise() and mlock() set on mappings, as /proc/self/smaps shows them.
 *
 * usage: memory_flags DIRECTORY advice|access|lock: which group of flags.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "live.h"

#define SIZE (4UL << 20)

struct area {
	const char *name;
	int flags, advice;
	bool locked;
	char *memory;
	char before[256];
};

static struct area advice[] = {
	{ .name = "MADV_DONTFORK", .advice = MADV_DONTFORK },
	{ .name = "MADV_WIPEONFORK", .advice = MADV_WIPEONFORK },
	{ .name = "MADV_HUGEPAGE", .advice = MADV_HUGEPAGE },
	{ .name = "MADV_NOHUGEPAGE", .advice = MADV_NOHUGEPAGE },
	{ .name = "MADV_DONTDUMP", .advice = MADV_DONTDUMP },
	{ .name = "MAP_NORESERVE", .flags = MAP_NORESERVE },
	{ .name = "plain" },
	{ 0 },
};

static struct area access_hints[] = {
	{ .name = "MADV_SEQUENTIAL", .advice = MADV_SEQUENTIAL },
	{ .name = "MADV_RANDOM", .advice = MADV_RANDOM },
	{ 0 },
};

static struct area lock[] = {
	{ .name = "mlock", .locked = true },
	{ .name = "MAP_LOCKED", .flags = MAP_LOCKED },
	{ 0 },
};

/* The VmFlags line of the area that starts at `memory`. "sd" (soft-dirty) comes and goes, so it is blanked. */
static void read_flags(void *memory, char *result, size_t size)
{
	FILE *smaps = fopen("/proc/self/smaps", "re");
	char line[512], start[40];
	bool here = false;

	snprintf(start, sizeof(start), "%lx-", (unsigned long)memory);
	snprintf(result, size, "no such area");
	while (fgets(line, sizeof(line), smaps)) {
		if (strchr(line, '-') && strncmp(line, start, strlen(start)) == 0)
			here = true;
		if (here && strncmp(line, "VmFlags:", 8) == 0) {
			snprintf(result, size, "%s", line + 8);
			break;
		}
	}
	fclose(smaps);
	char *dirty = strstr(result, " sd");
	if (dirty)
		memmove(dirty, dirty + 3, strlen(dirty + 3) + 1);
}

/* Areas have gaps between them, so that the kernel does not merge them. */
static void set_up(struct area *area)
{
	char *memory = mmap(NULL, SIZE + 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	area->memory = mmap(memory + 4096, SIZE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | area->flags, -1, 0);
	live_check(area->memory != MAP_FAILED, "%s: mmap: %m", area->name);
	if (area->advice)
		live_check(madvise(area->memory, SIZE, area->advice) == 0, "%s: %m", area->name);
	if (area->locked)
		live_check(mlock(area->memory, SIZE) == 0, "%s: %m", area->name);
	live_fill(area->memory, SIZE, area->advice);
	read_flags(area->memory, area->before, sizeof(area->before));
}

static void verify(struct area *area)
{
	char now[256];

	read_flags(area->memory, now, sizeof(now));
	live_check(strcmp(now, area->before) == 0, "%s: the area's flags were%s and are%s", area->name,
		   area->before, now);
}

/* smaps is not read in a loop, because a read that a dump interrupts would mix two states. */
int main(int argc, char **argv)
{
	live_begin(argc, argv);
	struct area *areas = argv[2][0] == 'l'		    ? lock :
			     strcmp(argv[2], "access") == 0 ? access_hints :
							      advice;

	for (struct area *area = areas; area->name; area++)
		set_up(area);
	live_ready();
	while (!live_stopping()) {
		for (struct area *area = areas; area->name; area++)
			live_compare(area->memory, SIZE, area->advice, area->name);
		live_sleep(0.01);
	}
	for (struct area *area = areas; area->name; area++)
		verify(area);
	return live_finish();
}
