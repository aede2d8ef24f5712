/*
 * guard.c - guard pages (MADV_GUARD_INSTALL, Linux 6.13): they stay inaccessible, and neighbouring pages keep their
 * content.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "live.h"

#define PAGE  4096UL
#define PAGES 16
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE  103
#endif

static char *memory;

static bool is_guard(int page)
{
	return page == 3 || page == 4 || page == 9;
}

static bool can_read(char *address)
{
	int pipes[2];

	live_check(pipe(pipes) == 0, "pipe: %m");
	bool result = write(pipes[1], address, 1) == 1;
	close(pipes[0]);
	close(pipes[1]);
	return result;
}

static void verify(void)
{
	for (int page = 0; page < PAGES; page++) {
		live_check(can_read(memory + page * PAGE) != is_guard(page), "page %d: can%s be read", page,
			   is_guard(page) ? "" : "not");
		if (!is_guard(page))
			live_compare(memory + page * PAGE, PAGE, page, "a neighbour of a guard page");
	}
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (int page = 0; page < PAGES; page++) {
		live_fill(memory + page * PAGE, PAGE, page);
		if (is_guard(page) && madvise(memory + page * PAGE, PAGE, MADV_GUARD_INSTALL) < 0)
			live_skip("this kernel has no guard pages");
	}
	live_ready();
	while (!live_stopping()) {
		verify();
		live_sleep(0.01);
	}
	verify();
	live_check(madvise(memory, PAGES * PAGE, MADV_GUARD_REMOVE) == 0, "MADV_GUARD_REMOVE: %m");
	for (int page = 0; page < PAGES; page++)
		live_check(can_read(memory + page * PAGE),
			   "page %d: inaccessible after the guards were removed", page);
	return live_finish();
}
