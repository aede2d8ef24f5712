/*
 * interrupt.c - notes signals that ask criu to end. See interrupt.h.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include "base/error.h"
#include "base/interrupt.h"
#include "base/time.h"

#define ONE_AND_THE_SAME 300000000UL /* ns: timeout(1) signals criu, and then its process group */

static const struct {
	int number;
	const char *name;
} signals[] = { { SIGINT, "SIGINT" }, { SIGTERM, "SIGTERM" }, { SIGHUP, "SIGHUP" } };

static struct sigaction before[array_size(signals)];
static volatile sig_atomic_t noted; /* the signal; 0: none */
static atomic_ullong noted_at;	    /* CLOCK_MONOTONIC, ns */

void interrupt_end_by(int number)
{
	sigset_t only;

	signal(number, SIG_DFL);
	sigemptyset(&only);
	sigaddset(&only, number);
	sigprocmask(SIG_UNBLOCK, &only, NULL);
	raise(number);
}

static void note_signal(int number)
{
	uint64_t now = monotonic_time();

	if (!noted)
		noted_at = now;
	else if (now - noted_at > ONE_AND_THE_SAME)
		interrupt_end_by(number);
	noted = number;
}

void interrupt_begin(void)
{
	/* System calls are restarted. The next piece of work fails instead, with a message that says why. */
	struct sigaction action = { .sa_handler = note_signal, .sa_flags = SA_RESTART };

	noted = 0;
	for (size_t i = 0; i < array_size(signals); i++) {
		sigaction(signals[i].number, NULL, &before[i]);
		if (before[i].sa_handler != SIG_IGN)
			sigaction(signals[i].number, &action, NULL);
	}
}

void interrupt_end(void)
{
	for (size_t i = 0; i < array_size(signals); i++)
		sigaction(signals[i].number, &before[i], NULL);
}

int interrupt_check(void)
{
	for (size_t i = 0; i < array_size(signals); i++)
		if (noted == signals[i].number)
			return fail(0, "interrupted by %s", signals[i].name);
	return 0;
}

void interrupt_die(void)
{
	if (noted)
		interrupt_end_by(noted);
}
