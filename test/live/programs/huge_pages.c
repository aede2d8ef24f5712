/*
 * huge_pages.c - memory in transparent huge pages: it is in huge pages afterwards, too, and its flags are the same.
 * (madvise(MADV_COLLAPSE), Linux 6.1, leaves no flag.)
 *
 * huge_pages.c [partly | shared | memfd | private]: only every second 2 MiB; shared anonymous memory; a memfd; a
 * private mapping of a memfd, in which every second block has pages of its own. The first block and the other ones show
 * the memfd's pages.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "live.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define HUGE (2UL << 20)
#define SIZE (16 * HUGE)

static char *memory;
static char flags[256];
static unsigned long wanted; /* KiB in huge pages, … */
static bool is_private;	     /* … if they are not the file's */

/* Leaves out "sd" (soft-dirty): it tells of writes, and is no property of a mapping. */
static void copy_flags(char *to, size_t size, const char *line)
{
	snprintf(to, size, "%.*s", (int)strcspn(line, "\n"), line);
	char *soft_dirty = strstr(to, " sd");
	if (soft_dirty)
		memmove(soft_dirty, soft_dirty + 3, strlen(soft_dirty + 3) + 1);
}

/* How many KiB from `memory` to its end are in huge pages. `vm_flags` gets the flags. */
static unsigned long huge_pages(char *vm_flags, size_t size)
{
	FILE *smaps = fopen("/proc/self/smaps", "re");
	unsigned long from = 0, to = 0, value, sum = 0;
	char line[512];

	while (fgets(line, sizeof(line), smaps)) {
		live_smaps_head(line, &from, &to);
		if (to <= (unsigned long)memory || from >= (unsigned long)memory + SIZE)
			continue;
		if (sscanf(line, "AnonHugePages: %lu", &value) == 1 ||
		    sscanf(line, "ShmemPmdMapped: %lu", &value) == 1)
			sum += value;
		if (strncmp(line, "VmFlags:", 8) == 0)
			copy_flags(vm_flags, size, line);
	}
	fclose(smaps);
	return sum;
}

/* Aligned as huge pages are. */
static char *map(int flags, int fd)
{
	char *room = mmap(NULL, SIZE + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *start = (char *)(((unsigned long)room + HUGE - 1) & ~(HUGE - 1));

	munmap(room, SIZE + HUGE);
	return mmap(start, SIZE, PROT_READ | PROT_WRITE, flags | MAP_FIXED_NOREPLACE, fd, 0);
}

/* Blocks that get pages of their own are no longer in huge pages. */
static void make_private(int fd)
{
	munmap(memory, SIZE);
	memory = map(MAP_PRIVATE, fd);
	live_check(memory != MAP_FAILED, "mmap: %m");
	for (size_t at = 0; at < SIZE; at += HUGE)
		(void)*(volatile char *)(memory + at + HUGE / 2);
	for (size_t at = HUGE; at < SIZE; at += 2 * HUGE)
		for (size_t page = at + 4096; page < at + HUGE / 4 * 3; page += 4096)
			*(volatile char *)(memory + page) = *(volatile char *)(memory + page);
}

static void verify(void)
{
	char now[256];
	unsigned long huge;

	live_compare(memory, SIZE, 1,
		     "huge memory"); /* shared memory is seen in page tables once it was touched */
	huge = huge_pages(now, sizeof(now));
	live_check(strcmp(now, flags) == 0, "the flags are %s, they were %s", now, flags);
	live_check(is_private || huge >= wanted * 3 / 4, "only %lu of %lu KiB are in huge pages", huge,
		   wanted);
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[2] : "";
	bool is_partly = !strcmp(what, "partly");
	int fd;

	is_private = !strcmp(what, "private");
	fd = is_private || !strcmp(what, "memfd") ? memfd_create("huge pages", 0) : -1;

	live_begin(argc, argv);
	live_check(fd < 0 || ftruncate(fd, SIZE) == 0, "ftruncate: %m");
	memory = map(!*what || is_partly ? MAP_PRIVATE | MAP_ANONYMOUS :
		     fd < 0		 ? MAP_SHARED | MAP_ANONYMOUS :
					   MAP_SHARED,
		     fd);
	live_check(memory != MAP_FAILED, "mmap: %m");
	live_fill(memory, SIZE, 1);
	for (size_t at = 0; at < SIZE; at += is_partly ? 2 * HUGE : HUGE)
		madvise(memory + at, HUGE, MADV_COLLAPSE);
	if (is_private)
		make_private(fd);
	live_compare(memory, SIZE, 1, "huge memory");
	wanted = huge_pages(flags, sizeof(flags));
	if (wanted < SIZE / 1024 / (is_partly || is_private ? 2 : 1))
		live_skip("this kernel makes no huge pages on request");
	live_ready();
	/* Not in a loop: a dump would find /proc/self/smaps open. */
	live_wait_stop();
	verify();
	return live_finish();
}
