/*
 * thread.c - starts threads. See thread.h.
 */
#include <signal.h>
#include <stdlib.h>
#include "base/error.h"
#include "base/memory.h"
#include "base/thread.h"

struct start {
	void *(*run)(void *argument);
	void *argument;
	struct attempt *attempt;
};

static void *begin(void *argument)
{
	struct start start = *(struct start *)argument;

	free(argument);
	attempt_join(start.attempt);
	return start.run(start.argument);
}

int thread_start(pthread_t *thread, void *(*run)(void *argument), void *argument)
{
	struct start *start = allocate(sizeof(*start));
	sigset_t all, old;
	int result;

	*start = (struct start){ run, argument, attempt_current() };
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	result = pthread_create(thread, NULL, begin, start);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (result)
		free(start);
	return result;
}

void threads_run(size_t helpers, void *(*run)(void *argument), void *argument)
{
	autofree pthread_t *threads = allocate_array(helpers, sizeof(*threads));
	size_t started = 0;

	while (started < helpers && !thread_start(&threads[started], run, argument))
		started++;
	run(argument);
	while (started > 0)
		pthread_join(threads[--started], NULL);
}
