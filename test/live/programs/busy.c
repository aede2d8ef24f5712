/*
 * busy.c - four threads, a child with four more, and 64 MiB of memory. Every thread counts. The note "counters"
 * (address and number) tells the harness where, so that it sees from outside that each thread goes on.
 *
 * usage: busy DIRECTORY [death_signal]     it wants SIGKILL when its parent dies
 *        busy DIRECTORY threads            more of them, which count more slowly: criu asks at most 88 threads at the
 *                                          same time
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "live.h"

#define THREADS	     4
#define MORE_THREADS 100
#define SIZE	     (64UL << 20)

static atomic_ulong counters[MORE_THREADS];
static int thread_count = THREADS;
static double pace = 0.001; /* seconds */
static char *memory;

static void *count(void *argument)
{
	atomic_ulong *counter = argument;

	while (!live_stopping()) {
		++*counter;
		live_sleep(pace);
	}
	return NULL;
}

/* The first counter is the caller's own. Returns when all threads have ended. */
static void run(bool is_child)
{
	pthread_t threads[MORE_THREADS];

	for (int i = 1; i < thread_count; i++)
		pthread_create(&threads[i], NULL, count, &counters[i]);
	if (is_child)
		live_ready();
	count(&counters[0]);
	for (int i = 1; i < thread_count; i++)
		pthread_join(threads[i], NULL);
	live_compare(memory, SIZE, 1, "memory");
}

static void run_child(void)
{
	live_sleep(0.05); /* until the parent's threads exist */
	run(true);
}

int main(int argc, char **argv)
{
	char text[64];

	live_begin(argc, argv);
	if (argc > 2 && !strcmp(argv[2], "threads")) {
		thread_count = MORE_THREADS;
		pace = 0.02;
	}
	if (argc > 2 && !strcmp(argv[2], "death_signal"))
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	live_fill(memory, SIZE, 1);
	snprintf(text, sizeof(text), "%lx %d\n", (unsigned long)counters, thread_count);
	live_note("counters", text);
	pid_t child = live_fork(run_child);
	run(false);
	live_join(child);
	return live_finish();
}
