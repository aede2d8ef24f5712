/*
 * given_back.c - memory that is given back to the kernel reads as zeros afterwards, and memory that grows has zeros
 * behind its old end: also if it was restored.
 *
 * usage: given_back DIRECTORY given_back
 */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

#define SIZE (16UL << 20)

static char *memory;

static void set_up(void)
{
	memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	live_check(memory != MAP_FAILED, "mmap: %m");
	for (size_t i = 0; i < SIZE; i++)
		memory[i] = (char)(i / 4096 + 1 + i % 251 * 3) | 1;
}

static void check_zeros(const char *start, size_t size, const char *what)
{
	for (size_t i = 0; i < size; i++)
		live_check(!start[i], "%s: byte %zu is %d", what, i, start[i]);
}

static void check_content(size_t start, size_t size)
{
	for (size_t i = start; i < start + size; i++)
		live_check(memory[i] == ((char)(i / 4096 + 1 + i % 251 * 3) | 1), "byte %zu has changed", i);
}

static void give_back(void)
{
	live_check(madvise(memory + SIZE / 4, SIZE / 4, MADV_DONTNEED) == 0, "madvise: %m");
	check_zeros(memory + SIZE / 4, SIZE / 4, "given back");
}

static void verify(void)
{
	pid_t child;
	int status;

	check_content(0, SIZE);
	child = fork();
	if (!child) {
		give_back();
		check_content(SIZE / 2, SIZE / 2);
		_exit(0);
	}
	live_check(waitpid(child, &status, 0) == child && status == 0, "the child: %d", status);
	check_content(0, SIZE);
	give_back();
	live_check(madvise(memory, 4096, MADV_FREE) == 0, "MADV_FREE: %m");
	memory = mremap(memory, SIZE, 2 * SIZE, MREMAP_MAYMOVE);
	live_check(memory != MAP_FAILED, "mremap: %m");
	check_zeros(memory + SIZE, SIZE, "behind the old end");
	check_content(SIZE / 2, SIZE / 2);
}

int main(int argc, char **argv)
{
	const struct live_part parts[] = { { "given_back", set_up, verify } };

	return live_run(argc, argv, parts, 1);
}
