/*
 * tracked.c - changes memory between two snapshots of a chain: its argument names the change, which it makes on
 * SIGUSR1. It knows what each page must contain, before and after.
 *
 * Two areas of 4 MiB, one behind the other, so that whole page tables can be moved; each page begins with its number
 * and its generation, or is zero.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

#define PAGE	4096UL
#define PAGES	1024
#define FIRST	((char *)0x10000000000)
#define SECOND	(FIRST + PAGES * PAGE)
#define AWAY	(SECOND + 2 * PAGES * PAGE)
#define NOTHING 0 /* generation of a page of zeros */

static int expected[2 * PAGES]; /* generations */
static uint64_t numbers[2 * PAGES];
static volatile sig_atomic_t asked;
static char **arguments;

static uint64_t *page_at(int page)
{
	return (uint64_t *)(FIRST + page * PAGE);
}

static void write_page(int page, int generation)
{
	page_at(page)[0] = page;
	page_at(page)[1] = generation;
	page_at(page)[511] = page ^ generation;
	numbers[page] = page;
	expected[page] = generation;
}

static void verify(void)
{
	for (int page = 0; page < 2 * PAGES; page++) {
		uint64_t number = numbers[page], generation = expected[page];

		if (generation == NOTHING)
			number = 0;
		live_check(page_at(page)[0] == number && page_at(page)[1] == generation &&
				   page_at(page)[511] == (generation ? number ^ generation : 0),
			   "page %d has page %lu of generation %lu, not %lu of %lu", page,
			   (unsigned long)page_at(page)[0], (unsigned long)page_at(page)[1],
			   (unsigned long)number, (unsigned long)generation);
	}
}

static void map(char *place, size_t pages)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

	live_check(mmap(place, pages * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0) == place, "mmap: %m");
	madvise(place, pages * PAGE, MADV_NOHUGEPAGE);
}

static void expect_nothing(int from, int to)
{
	for (int page = from; page < to; page++)
		expected[page] = NOTHING;
}

static void do_write(void)
{
	for (int page = 0; page < 2 * PAGES; page += 97)
		write_page(page, 2);
}

static void do_replace(void)
{
	live_check(munmap(FIRST, PAGES * PAGE) == 0, "munmap: %m");
	map(FIRST, PAGES);
	expect_nothing(0, PAGES);
	for (int page = 0; page < PAGES; page += 3)
		write_page(page, 2);
}

static void move(char *from, char *to, size_t pages)
{
	live_check(mremap(from, pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to,
		   "mremap: %m");
}

/* Whole page tables change places: pages keep their content, but have new addresses. */
static void do_swap(void)
{
	move(FIRST, AWAY, PAGES);
	move(SECOND, FIRST, PAGES);
	move(AWAY, SECOND, PAGES);
	for (int page = 0; page < PAGES; page++) {
		numbers[page] = page + PAGES;
		numbers[page + PAGES] = page;
	}
}

/* A few pages, one by one. */
static void do_shift(void)
{
	move(FIRST + 10 * PAGE, FIRST + 700 * PAGE, 5);
	map(FIRST + 10 * PAGE, 5);
	expect_nothing(10, 15);
	for (int page = 700; page < 705; page++)
		numbers[page] = page - 690;
}

/* Half of the dropped pages are read again, so that the kernel's zero page is mapped there. */
static void do_drop(void)
{
	live_check(madvise(FIRST + 100 * PAGE, 200 * PAGE, MADV_DONTNEED) == 0, "MADV_DONTNEED: %m");
	expect_nothing(100, 300);
	for (int page = 100; page < 200; page++)
		live_check(!*(volatile uint64_t *)page_at(page), "a dropped page is not empty");
}

/* Drops all pages; on some kernels the page tables disappear, too. */
static void do_empty(void)
{
	live_check(madvise(FIRST, PAGES * PAGE, MADV_DONTNEED) == 0, "MADV_DONTNEED: %m");
	expect_nothing(0, PAGES);
}

/* The mapping stays, but its page tables are moved away. */
static void do_leave(void)
{
	int how = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;

	live_check(mremap(FIRST, PAGES * PAGE, PAGES * PAGE, how, AWAY) == AWAY, "mremap: %m");
	expect_nothing(0, PAGES);
}

/* Alternate pages, some MiB of them. */
static void do_much(void)
{
	for (int page = 0; page < 2 * PAGES; page += 2)
		write_page(page, 2);
}

static void do_free(void)
{
	live_check(madvise(FIRST + 100 * PAGE, 200 * PAGE, MADV_FREE) == 0, "MADV_FREE: %m");
	for (int page = 100; page < 300; page++)
		write_page(page, 3);
}

static void do_zero(void)
{
	memset(FIRST + 50 * PAGE, 0, 50 * PAGE);
	expect_nothing(50, 100);
}

static void do_protect(void)
{
	write_page(7, 2);
	live_check(mprotect(FIRST, 64 * PAGE, PROT_READ) == 0, "mprotect: %m");
	live_check(mprotect(SECOND, 64 * PAGE, PROT_NONE) == 0, "mprotect: %m");
	live_check(mprotect(SECOND, 64 * PAGE, PROT_READ | PROT_WRITE) == 0, "mprotect: %m");
}

/* Writes equal pages, which KSM then merges. */
static void do_merge(void)
{
	live_check(madvise(SECOND, PAGES * PAGE, MADV_MERGEABLE) == 0, "MADV_MERGEABLE: %m");
	for (int page = PAGES; page < PAGES + 64; page++) {
		write_page(page, 2);
		page_at(page)[0] = page_at(page)[511] = 0;
		page_at(page)[511] = 2;
		numbers[page] = 0;
	}
	live_sleep(1);
}

static pid_t child;

static void child_main(void)
{
	signal(SIGTERM, live_stop_child);
	verify();
	for (;;)
		pause();
}

static void do_fork(void)
{
	child = live_fork(child_main);
	do_write();
}

/* A heap that grew, and a stack that was deep for a while. */
static void do_grow(void)
{
	map(SECOND + PAGES * PAGE, 64);
	memset(SECOND + PAGES * PAGE, 0x5a, 64 * PAGE);
	for (int i = 0; i < 64; i++)
		live_check(SECOND[PAGES * PAGE + i * PAGE] == 0x5a, "the added memory has changed");
	memset(alloca(64 * PAGE), 0x5a, 64 * PAGE);
}

static void do_exec(void)
{
	execv("/proc/self/exe", arguments);
	live_fail("exec: %m");
}

/* Both areas map one file and have pages of their own, except each 16th, which shows the file's page in both. */
static void map_file(void)
{
	char path[4096];
	int fd;

	live_path(path, sizeof(path), "file");
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	live_check(fd >= 0 && write(fd, FIRST, PAGES * PAGE) == (ssize_t)(PAGES * PAGE), "%s: %m", path);
	for (char *area = FIRST; area <= SECOND; area += PAGES * PAGE)
		live_check(mmap(area, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0) ==
				   area,
			   "mmap: %m");
	close(fd);
	for (int page = 0; page < 2 * PAGES; page++)
		if (page % 16)
			write_page(page, 1);
		else
			numbers[page] = page % PAGES;
}

/* One area replaces the other, with its page tables. The file's pages are at the same places as before. */
static void do_file(void)
{
	move(FIRST, SECOND, PAGES);
	map(FIRST, PAGES);
	expect_nothing(0, PAGES);
	for (int page = 0; page < PAGES; page++)
		numbers[page + PAGES] = page;
}

static const struct {
	const char *name;
	void (*act)(void);
} actions[] = {
	{ "write", do_write }, { "replace", do_replace }, { "swap", do_swap },	 { "shift", do_shift },
	{ "drop", do_drop },   { "free", do_free },	  { "zero", do_zero },	 { "protect", do_protect },
	{ "merge", do_merge }, { "fork", do_fork },	  { "grow", do_grow },	 { "exec", do_exec },
	{ "much", do_much },   { "empty", do_empty },	  { "leave", do_leave }, { "file", do_file },
};

static void act(const char *name)
{
	live_choose(actions, name)->act();
}

static void on_signal(int signo)
{
	(void)signo;
	asked = 1;
}

/* After do_exec() the program starts again: its pages are of another generation, and some are missing. */
int main(int argc, char **argv)
{
	bool was_here = getenv("TRACKED_AGAIN");
	char *action = argc > 2 ? argv[2] : "write";

	arguments = argv;
	live_begin(argc, argv);
	signal(SIGUSR1, on_signal);
	map(FIRST, 2 * PAGES);
	for (int page = 0; page < 2 * PAGES; page++)
		if (!was_here || page % 5)
			write_page(page, was_here ? 4 : 1);
	if (!strcmp(action, "file"))
		map_file();
	if (was_here)
		live_note("done", "1");
	setenv("TRACKED_AGAIN", "1", 1);
	live_ready();
	while (!live_stopping()) {
		if (asked) {
			asked = 0;
			act(action);
			live_note("done", "1");
		}
		verify();
		live_sleep(0.01);
	}
	verify();
	if (child)
		live_join(child);
	return live_finish();
}
