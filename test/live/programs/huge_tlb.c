/*
 * huge_tlb.c - anonymous memory in huge pages of hugetlbfs (MAP_HUGETLB): content, page size and the number of pages
 * taken from the pool stay the same.
 *
 * huge_tlb.c WHAT [KiB [ADDRESS]]: private | shared | unreserved | forked | protected
 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "live.h"

#define PAGE 4096UL
#define MOST 4

/* What smaps says about a mapping. */
struct sight {
	char access[5], flags[512];
	unsigned long page, private, shared;
};

static struct {
	char *start;
	size_t size;
	struct sight before;
} areas[MOST];
static int area_count;
static size_t huge_page = 2UL << 20;
static char *place; /* the address of the first mapping; NULL: any */

/* Adds up all mappings of the area: moved memory may come back in several. */
static void look(int area, struct sight *sight)
{
	unsigned long start = (unsigned long)areas[area].start, end = start + areas[area].size;
	FILE *smaps = fopen("/proc/self/smaps", "re");
	unsigned long from, to, size;
	char line[512], access[5];
	bool is_it = false;

	memset(sight, 0, sizeof(*sight));
	while (fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%lx-%lx %4s", &from, &to, access) == 3) {
			is_it = from >= start && to <= end;
			if (is_it)
				memcpy(sight->access, access, sizeof(access));
		}
		if (!is_it)
			continue;
		sscanf(line, "KernelPageSize: %lu", &sight->page);
		if (sscanf(line, "Private_Hugetlb: %lu", &size) == 1)
			sight->private += size;
		if (sscanf(line, "Shared_Hugetlb: %lu", &size) == 1)
			sight->shared += size;
		if (!strncmp(line, "VmFlags:", 8))
			snprintf(sight->flags, sizeof(sight->flags), "%s", line);
	}
	fclose(smaps);
}

static char *map(size_t pages, int flags)
{
	int size = __builtin_ctzl(huge_page) << 26;
	char *start = mmap(place, pages * huge_page, PROT_READ | PROT_WRITE,
			   MAP_ANONYMOUS | MAP_HUGETLB | size | flags, -1, 0);

	if (place)
		place += pages * huge_page;
	if (start == MAP_FAILED)
		live_skip("no huge pages of %zu KiB: %m", huge_page >> 10);
	areas[area_count].start = start;
	areas[area_count++].size = pages * huge_page;
	return start;
}

/* Pages that were touched exist, others do not, and the mappings have not changed. */
static void check_sights(void)
{
	for (int i = 0; i < area_count; i++) {
		const struct sight *old = &areas[i].before;
		struct sight now;

		look(i, &now);
		live_check(now.page == huge_page >> 10 && !strcmp(now.access, old->access) &&
				   !strcmp(now.flags, old->flags),
			   "area %d: pages of %lu KiB, %s, %s; it was %s, %s", i, now.page, now.access,
			   now.flags, old->access, old->flags);
		/* A shared page is not in the page tables before it is touched. */
		live_check(now.access[3] == 's' || now.private + now.shared == old->private + old->shared,
			   "area %d: %lu + %lu KiB, it had %lu + %lu", i, now.private, now.shared,
			   old->private, old->shared);
	}
}

static char *first, *second;

static void prepare_private(void)
{
	first = map(4, MAP_PRIVATE);
	live_fill(first, huge_page, 1);
	live_fill(first + 2 * huge_page + 5 * PAGE, PAGE, 2);
	second = map(2, MAP_PRIVATE);
	*(volatile char *)second = 0; /* it has only zeros, but it exists */
}

static void check_private(void)
{
	live_compare(first, huge_page, 1, "a private huge page");
	live_compare(first + 2 * huge_page + 5 * PAGE, PAGE, 2, "a page of a huge page");
	live_check(first[2 * huge_page] == 0 && first[2 * huge_page + 6 * PAGE] == 0, "the rest is not zero");
	live_check(second[0] == 0, "the page of zeros has changed");
}

static void prepare_shared(void)
{
	first = map(4, MAP_SHARED);
	live_fill(first + huge_page, huge_page, 3);
}

static atomic_ulong *desk(void)
{
	return (atomic_ulong *)(void *)(first + 3 * huge_page);
}

static void answer(void)
{
	while (!live_stopping()) {
		desk()[1] = desk()[0];
		live_compare(first + huge_page, huge_page, 3, "a shared huge page in a child");
		live_sleep(0.001);
	}
}

static void check_shared(void)
{
	unsigned long request = ++desk()[0];

	live_await(desk()[1] == request, "the child does not answer");
	live_compare(first + huge_page, huge_page, 3, "a shared huge page");
}

static void prepare_unreserved(void)
{
	first = map(1000, MAP_PRIVATE | MAP_NORESERVE);
	live_fill(first + 999 * huge_page, PAGE, 4);
	second = map(1000, MAP_SHARED | MAP_NORESERVE);
	live_fill(second + 500 * huge_page, PAGE, 5);
}

static void check_unreserved(void)
{
	live_compare(first + 999 * huge_page, PAGE, 4, "an unreserved page");
	live_compare(second + 500 * huge_page, PAGE, 5, "an unreserved shared page");
}

/* The child changes one page, drops another, and shares the third. */
static void change_and_wait(void)
{
	live_fill(first, PAGE, 7);
	madvise(first + huge_page, huge_page, MADV_DONTNEED);
	while (!live_stopping()) {
		live_compare(first, PAGE, 7, "a changed huge page in a child");
		live_compare(first + 2 * huge_page, huge_page, 6, "an inherited huge page in a child");
		live_sleep(0.001);
	}
	live_check(first[huge_page] == 0, "a dropped huge page has come back");
}

static void prepare_forked(void)
{
	first = map(3, MAP_PRIVATE);
	for (int i = 0; i < 3; i++)
		live_fill(first + i * huge_page, huge_page, 6);
}

static void check_forked(void)
{
	for (int i = 0; i < 3; i++)
		live_compare(first + i * huge_page, huge_page, 6, "a huge page of a parent");
}

static void prepare_protected(void)
{
	first = map(2, MAP_PRIVATE);
	live_fill(first, huge_page, 8);
	mprotect(first, 2 * huge_page, PROT_NONE);
	second = map(2, MAP_PRIVATE);
	live_fill(second, huge_page, 9);
	mprotect(second, 2 * huge_page, PROT_READ);
	madvise(second, 2 * huge_page, MADV_DONTDUMP);
}

static void check_protected(void)
{
	live_compare(second, huge_page, 9, "a huge page that can only be read");
	mprotect(first, 2 * huge_page, PROT_READ);
	live_compare(first, huge_page, 8, "an inaccessible huge page");
	mprotect(first, 2 * huge_page, PROT_NONE);
}

static const struct {
	const char *name;
	void (*prepare)(void), (*check)(void), (*child)(void);
} kinds[] = {
	{ "private", prepare_private, check_private, NULL },
	{ "shared", prepare_shared, check_shared, answer },
	{ "unreserved", prepare_unreserved, check_unreserved, NULL },
	{ "forked", prepare_forked, check_forked, change_and_wait },
	{ "protected", prepare_protected, check_protected, NULL },
};

int main(int argc, char **argv)
{
	pid_t child = 0;

	live_begin(argc, argv);
	if (argc > 3)
		huge_page = strtoul(argv[3], NULL, 10) << 10;
	if (argc > 4)
		place = (char *)strtoul(argv[4], NULL, 16);
	__auto_type kind = live_choose(kinds, argv[2]);
	kind->prepare();
	if (kind->child)
		child = live_fork(kind->child);
	live_sleep(0.05); /* the child has made its changes */
	for (int i = 0; i < area_count; i++)
		look(i, &areas[i].before);
	live_ready();
	/* Not in a loop: a dump would find /proc/self/smaps open. */
	while (!live_stopping()) {
		kind->check();
		live_sleep(0.002);
	}
	check_sights();
	kind->check();
	if (child)
		live_join(child);
	return live_finish();
}
