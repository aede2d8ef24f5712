/*
 * processes.c - very many processes in a tree, each with its own memory; their parents wait for them at the end. An
 * argument tells how many children each process has: with 1 the tree is a chain.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "live.h"

#define MOST_CHILDREN 2

static int count, most_children;
static atomic_int *alive;
static uint64_t own[512];

static void run(int number);
static int next_child;

static void run_child(void)
{
	run(next_child);
}

static void run(int number)
{
	pid_t children[MOST_CHILDREN];
	bool is_ready = false;
	int born = 0;

	live_fill(own, sizeof(own), number);
	for (int i = 1; i <= most_children; i++) {
		next_child = most_children * number + i;
		if (next_child < count)
			children[born++] = live_fork(run_child);
	}
	++*alive;
	while (!live_stopping()) {
		live_compare(own, sizeof(own), number, "own memory");
		if (number == 0 && !is_ready && *alive == count) {
			live_ready();
			is_ready = true;
		}
		live_sleep(number == 0 ? 0.005 : 0.05);
	}
	live_compare(own, sizeof(own), number, "own memory");
	for (int i = 0; i < born; i++)
		kill(children[i], SIGTERM);
	for (int i = 0; i < born; i++)
		live_join(children[i]);
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	count = atoi(argv[2]);
	most_children = argc > 3 ? atoi(argv[3]) : MOST_CHILDREN;
	alive = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	run(0);
	return live_finish();
}
