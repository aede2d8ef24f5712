/*
 * crowd.c - FILE KIND COUNT: creates many of one thing, for bench/crowds, and sleeps. It writes a byte into FILE when
 * all exist. Other files are created in the working directory.
 *
 *	threads   of one process, each asleep in a futex         files     open, each another
 *	deep      processes, each the child of the one before    mappings  of one page, of two protections by turns
 *	wide      processes, all children of the root            single    one process with 1 MiB
 *	watches   of one inotify                                 mixed     descriptors of all kinds of crowd_files.c, or
 *	                                                                   of one of them (pipes, sockets, ghosts, ...)
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "crowd.h"

#define PAGE  4096UL
#define STACK 65536

static void give_up(const char *what)
{
	perror(what);
	exit(1);
}

static void *sleep_on(void *argument)
{
	for (;;)
		pause();
	return argument;
}

static void make_threads(long count)
{
	pthread_attr_t attributes;
	pthread_t thread;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK);
	while (--count > 0)
		if (pthread_create(&thread, &attributes, sleep_on, NULL))
			give_up("pthread_create");
}

static void make_files(long count)
{
	char path[64];

	for (long i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "file.%ld", i);
		if (open(path, O_RDWR | O_CREAT, 0600) < 0)
			give_up(path);
	}
}

static void make_mappings(long count)
{
	char *memory = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		give_up("mmap");
	for (long i = 0; i < count; i++)
		memory[i * PAGE] = 1;
	for (long i = 1; i < count; i += 2)
		if (mprotect(memory + i * PAGE, PAGE, PROT_READ))
			give_up("mprotect");
}

static void make_memory(void)
{
	size_t size = 1 << 20;
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		give_up("mmap");
	memset(memory, 1, size);
}

/* In a child: it ends when its parent does. */
static pid_t make_child(void)
{
	pid_t child = fork();

	if (child < 0)
		give_up("fork");
	if (!child)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	return child;
}

/* Only the last process of the chain returns: it has no child to create. */
static void make_deep(long count)
{
	while (--count > 0)
		if (make_child())
			sleep_on(NULL);
}

static void make_wide(long count)
{
	while (--count > 0)
		if (!make_child())
			sleep_on(NULL);
}

int main(int argc, char **argv)
{
	long count = argc > 3 ? strtol(argv[3], NULL, 10) : 0;
	int ready = argc > 3 ? open(argv[1], O_WRONLY | O_CREAT, 0600) : -1;

	if (ready < 0 || count < 1)
		return 2;
	if (!strcmp(argv[2], "threads"))
		make_threads(count);
	else if (!strcmp(argv[2], "files"))
		make_files(count);
	else if (!strcmp(argv[2], "mappings"))
		make_mappings(count);
	else if (!strcmp(argv[2], "single"))
		make_memory();
	else if (!strcmp(argv[2], "deep"))
		make_deep(count);
	else if (!strcmp(argv[2], "wide"))
		make_wide(count);
	else if (!crowd_make_files(argv[2], count))
		return 2;
	if (write(ready, ".", 1) != 1)
		return 1;
	close(ready);
	sleep_on(NULL);
}
