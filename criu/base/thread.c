/*
 * thread.c - starts threads. See thread.h.
 */
#include <signal.h>
#include "base/thread.h"

int thread_start(pthread_t *thread, void *(*run)(void *argument), void *argument)
{
	sigset_t all, old;
	int result;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	result = pthread_create(thread, NULL, run, argument);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return result;
}
