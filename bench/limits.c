/*
 * limits.c - WHAT [FILE] MIB: moves bytes as plainly as a program can, and prints the seconds. What criu takes is compared
 * with that.
 *
 *	direct FILE MIB      writes memory to a file past the page cache, and syncs it
 *	write FILE MIB       writes memory to a file with write()
 *	fill FILE MIB        two threads read a file that is in the page cache into huge pages
 *	fork MIB             fork(), with pages of 4 KiB
 *	scattered MIB        reads every hundredth page of another process, in calls of 1024 pages
 *	touch MIB            writes memory for the first time. In a virtual machine that is slow until the host has found memory
 *	                     for it; then whoever gets these pages next need not wait for that
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define PAGE	   4096UL
#define HUGE	   (2UL << 20)
#define PIECE	   (8UL << 20)
#define MOST_PAGES 1024
#define STEP	   100 /* pages */

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static char *map(size_t size)
{
	char *space = mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (space == MAP_FAILED)
		err(1, "mmap");
	return (char *)(((uintptr_t)space + HUGE - 1) / HUGE * HUGE);
}

static char *map_small_pages(size_t size)
{
	char *memory = map(size);

	madvise(memory, size, MADV_NOHUGEPAGE);
	for (size_t at = 0; at < size; at += sizeof(uint64_t))
		*(uint64_t *)(memory + at) = at * 0x9e3779b97f4a7c15;
	return memory;
}

static double write_file(const char *path, int flags, size_t size)
{
	char *memory = map_small_pages(size);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | flags, 0600);
	double begin = now();

	if (fd < 0 || (flags & O_DIRECT && fallocate(fd, 0, 0, size) < 0))
		err(1, "%s", path);
	for (size_t at = 0; at < size;) {
		ssize_t done = write(fd, memory + at, size - at < PIECE ? size - at : PIECE);

		if (done <= 0)
			err(1, "%s", path);
		at += done;
	}
	if (flags & O_DIRECT && fsync(fd) < 0)
		err(1, "%s", path);
	return now() - begin;
}

struct part {
	int fd;
	char *memory;
	size_t start, end;
};

static void *fill_part(void *argument)
{
	struct part *part = argument;

	for (size_t at = part->start; at < part->end; at += HUGE) {
		part->memory[at] = 1;
		madvise(part->memory + at, HUGE, MADV_COLLAPSE);
		if (pread(part->fd, part->memory + at, HUGE, at) != (ssize_t)HUGE)
			err(1, "pread");
	}
	return NULL;
}

static double fill(const char *path, size_t size)
{
	int fd = open(path, O_RDONLY);
	double begin = now();
	char *memory = map(size);
	size_t middle = size / 2 / HUGE * HUGE;
	struct part parts[] = { { fd, memory, 0, middle }, { fd, memory, middle, size / HUGE * HUGE } };
	pthread_t thread;

	pthread_create(&thread, NULL, fill_part, &parts[1]);
	fill_part(&parts[0]);
	pthread_join(thread, NULL);
	return now() - begin;
}

static double time_fork(size_t size)
{
	char *memory = map_small_pages(size);
	double begin = now(), took;
	pid_t child = fork();

	if (!child)
		_exit(memory[0] & 0);
	took = now() - begin;
	waitpid(child, NULL, 0);
	return took;
}

static double touch(size_t size)
{
	char *memory = map(size);
	double begin = now();

	madvise(memory, size, MADV_NOHUGEPAGE);
	for (size_t at = 0; at < size; at += PAGE)
		memory[at] = 1;
	return now() - begin;
}

/* The child only waits; its memory is its own, because it has filled it itself. */
static double read_scattered(size_t size)
{
	char *memory = map(size), *buffer = map(size / STEP + HUGE);
	int ready[2];
	pid_t child;
	char byte;
	double begin;

	memset(buffer, 1, size / STEP + HUGE);
	if (pipe(ready) < 0)
		err(1, "pipe");
	child = fork();
	if (!child) {
		madvise(memory, size, MADV_NOHUGEPAGE);
		for (size_t at = 0; at < size; at += 64)
			memory[at] = (char)at;
		if (write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	if (read(ready[0], &byte, 1) != 1)
		err(1, "child");
	begin = now();
	for (size_t page = 0; page < size / PAGE;) {
		struct iovec there[MOST_PAGES], here = { buffer, 0 };
		size_t count = 0;

		for (; count < MOST_PAGES && page < size / PAGE; page += STEP)
			there[count++] = (struct iovec){ memory + page * PAGE, PAGE };
		here.iov_len = count * PAGE;
		if (process_vm_readv(child, &here, 1, there, count, 0) != (ssize_t)here.iov_len)
			err(1, "process_vm_readv");
		buffer += here.iov_len;
	}
	begin = now() - begin;
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return begin;
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";
	size_t size = argc > 2 ? strtoul(argv[argc - 1], NULL, 0) << 20 : 0;
	double seconds;

	if (!strcmp(what, "direct") && argc == 4)
		seconds = write_file(argv[2], O_DIRECT, size);
	else if (!strcmp(what, "write") && argc == 4)
		seconds = write_file(argv[2], 0, size);
	else if (!strcmp(what, "fill") && argc == 4)
		seconds = fill(argv[2], size);
	else if (!strcmp(what, "fork"))
		seconds = time_fork(size);
	else if (!strcmp(what, "touch"))
		seconds = touch(size);
	else if (!strcmp(what, "scattered"))
		seconds = read_scattered(size);
	else
		errx(2, "see the head of limits.c");
	printf("%.6f\n", seconds);
}
