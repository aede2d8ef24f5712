/*
 * large.c - a process with a given amount of memory (MiB), which it writes once and checks at its end. For bench/run.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "live.h"

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	size_t size = strtoul(argv[2], NULL, 10) << 20;
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	live_check(memory != MAP_FAILED, "mmap: %m");
	madvise(memory, size, MADV_NOHUGEPAGE);
	live_fill(memory, size, 1);
	live_ready();
	live_wait_stop();
	live_compare(memory, size, 1, "memory");
	return live_finish();
}
