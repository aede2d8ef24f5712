/*
 * writer.c - FILE MIB PERCENT [ADVICE]: has memory in 4 KiB pages; with 0 as the advice, the host decides. On SIGUSR1 it writes PERCENT of the pages, scattered, and
 * then a byte into FILE.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096UL

int main(int argc, char **argv)
{
	size_t pages = argc > 3 ? strtoul(argv[2], NULL, 0) * 256 : 0;
	double percent = argc > 3 ? atof(argv[3]) : 1;
	int file = argc > 3 ? open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
	char *memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t step = 100 / percent, offset = 0;
	sigset_t wanted;
	int number;

	if (memory == MAP_FAILED || file < 0)
		return 1;
	sigemptyset(&wanted);
	sigaddset(&wanted, SIGUSR1);
	sigprocmask(SIG_BLOCK, &wanted, NULL);
	madvise(memory, pages * PAGE, argc > 4 ? atoi(argv[4]) : MADV_NOHUGEPAGE);
	for (size_t page = 0; page < pages; page++)
		for (size_t word = 0; word < 8; word++)
			((uint64_t *)(memory + page * PAGE))[word * 64] = page * 0x9e3779b97f4a7c15 + word;
	for (uint64_t round = 1;; round++) {
		if (write(file, ".", 1) != 1)
			return 1;
		sigwait(&wanted, &number);
		for (size_t page = offset++ % step; page < pages; page += step)
			((uint64_t *)(memory + page * PAGE))[7] = round * page + round;
	}
}
