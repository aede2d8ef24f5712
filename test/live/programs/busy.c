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
static atomic_bool *parent_counts; /* shared by both processes */

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
	/* A thread that has just begun still blocks signals: libc has not finished with it. */
	for (int i = 1; i < thread_count; i++)
		live_await(counters[i], "thread %d does not count", i);
	if (is_child) {
		live_await(*parent_counts, "the parent's threads do not count");
		live_ready();
	}
	*parent_counts = true;
	count(&counters[0]);
	for (int i = 1; i < thread_count; i++)
		pthread_join(threads[i], NULL);
	live_compare(memory, SIZE, 1, "memory");
}

static void run_child(void)
{
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
	parent_counts = mmap(NULL, sizeof(*parent_counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			     -1, 0);
	live_check(memory != MAP_FAILED && parent_counts != MAP_FAILED, "mmap: %m");
	live_fill(memory, SIZE, 1);
	snprintf(text, sizeof(text), "%lx %d\n", (unsigned long)counters, thread_count);
	live_note("counters", text);
	pid_t child = live_fork(run_child);
	run(false);
	live_join(child);
	return live_finish();
}
