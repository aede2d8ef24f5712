/* stopped.c - a child that was stopped by SIGSTOP is still stopped after the restore, and goes on when it is told to. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "live.h"

static atomic_ulong *counter;

static void count(void)
{
	while (!live_stopping()) {
		++*counter;
		live_sleep(0.001);
	}
}

int main(int argc, char **argv)
{
	int status;

	live_begin(argc, argv);
	counter = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t child = live_fork(count);
	live_sleep(0.02);
	kill(child, SIGSTOP);
	live_check(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status),
		   "the child did not stop");
	unsigned long before = *counter;
	live_ready();
	while (!live_stopping()) {
		live_check(*counter == before, "the stopped child counted from %lu to %lu", before, *counter);
		live_sleep(0.005);
	}
	live_check(*counter == before, "the stopped child counted from %lu to %lu", before, *counter);
	kill(child, SIGCONT);
	double end = live_now() + 5;
	while (*counter < before + 5) {
		live_check(live_now() < end, "the child did not go on after SIGCONT");
		live_sleep(0.001);
	}
	live_join(child);
	return live_finish();
}
