/*
 * siblings.c - a leader of a session, and children that each have memory of their own.
 *
 * usage: siblings DIRECTORY COUNT MIB plain|death-signal: the latter wants a signal when its parent dies.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "live.h"

#define MOST 64

static size_t size;

static void be_sibling(void)
{
	unsigned char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	live_check(memory != MAP_FAILED, "mmap: %m");
	live_fill(memory, size, getpid());
	while (!live_stopping()) {
		live_compare(memory, size, getpid(), "its memory");
		live_sleep(0.01);
	}
	live_compare(memory, size, getpid(), "its memory");
}

int main(int argc, char **argv)
{
	pid_t children[MOST];
	int count = atoi(argv[2]);

	live_begin(argc, argv);
	live_check(count <= MOST && setsid() == getpid(), "cannot begin");
	size = (size_t)atoi(argv[3]) << 20;
	if (!strcmp(argv[4], "death-signal"))
		live_check(prctl(PR_SET_PDEATHSIG, SIGUSR1) == 0, "prctl: %m");
	for (int i = 0; i < count; i++)
		children[i] = live_fork(be_sibling);
	for (int i = 0; i < count; i++)
		live_wait_asleep(children[i]);
	live_ready();
	live_wait_stop();
	for (int i = 0; i < count; i++)
		live_join(children[i]);
	return live_finish();
}
