/*
 * cow.c - children that share memory with their parent until one of them writes. After a restore, pages that were not
 * written must be shared again, and the others must not.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "live.h"

#define PAGE	 4096UL
#define PAGES	 2048
#define CHILDREN 2

static char *memory;
static int number;

static bool changed_by(int child, int page)
{
	return page % 16 == child;
}

static void verify(int child)
{
	for (int page = 0; page < PAGES; page++)
		live_compare(memory + page * PAGE, PAGE, changed_by(child, page) ? 1000000 + page : page,
			     child < 0 ? "the parent's memory" : "a child's memory");
}

static void change_and_verify(void)
{
	for (int page = 0; page < PAGES; page++)
		if (changed_by(number, page))
			live_fill(memory + page * PAGE, PAGE, 1000000 + page);
	while (!live_stopping()) {
		verify(number);
		live_sleep(0.02);
	}
}

/* How many KiB of the area are shared with other tasks, and how many only this task has. */
static void measure(unsigned long *shared, unsigned long *private)
{
	FILE *smaps = fopen("/proc/self/smaps", "re");
	char line[512], start[40];
	unsigned long value;
	bool here = false;

	*shared = *private = 0;
	snprintf(start, sizeof(start), "%lx-", (unsigned long)memory);
	while (fgets(line, sizeof(line), smaps)) {
		if (strncmp(line, start, strlen(start)) == 0)
			here = true;
		if (here && sscanf(line, "Shared_%*[^:]: %lu", &value) == 1)
			*shared += value;
		if (here && sscanf(line, "Private_%*[^:]: %lu", &value) == 1)
			*private += value;
		if (here && strncmp(line, "VmFlags", 7) == 0)
			break;
	}
	fclose(smaps);
}

/* Each child copied one page in 16; the parent shares every page with at least one child. */
static void verify_sharing(void)
{
	unsigned long shared, private;

	measure(&shared, &private);
	live_check(shared + private == PAGES * 4, "the memory is %lu KiB shared and %lu private", shared,
		   private);
	live_check(shared >= PAGES * 4 * 95 / 100, "only %lu of %lu KiB are shared", shared, PAGES * 4L);
}

int main(int argc, char **argv)
{
	pid_t children[CHILDREN];

	live_begin(argc, argv);
	memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(memory, PAGES * PAGE, MADV_NOHUGEPAGE);
	for (int page = 0; page < PAGES; page++)
		live_fill(memory + page * PAGE, PAGE, page);
	for (number = 0; number < CHILDREN; number++)
		children[number] = live_fork(change_and_verify);
	live_sleep(0.05);
	verify_sharing();
	live_ready();
	while (!live_stopping()) {
		verify(-1);
		live_sleep(0.02);
	}
	verify(-1);
	verify_sharing();
	for (int child = 0; child < CHILDREN; child++)
		live_join(children[child]);
	return live_finish();
}
