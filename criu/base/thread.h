/*
 * thread.h - threads with all signals blocked: signals go to the thread that drives the command.
 */
#ifndef CRIU_BASE_THREAD_H
#define CRIU_BASE_THREAD_H

#include <pthread.h>
#include "compiler.h"

/*
 * As pthread_create(): 0, or a positive errno value. Failures in the thread belong to the attempt of the caller
 * (base/error.h). A thread that outlives the attempt leaves it first, with attempt_join(NULL).
 */
int thread_start(pthread_t *thread, void *(*run)(void *argument), void *argument) must_check;

/*
 * Calls run(argument) in the caller and in up to `helpers` more threads at the same time, until all have returned. If
 * no thread can be started, the caller is alone: so run() takes its work from the argument piece by piece.
 */
void threads_run(size_t helpers, void *(*run)(void *argument), void *argument);

#endif
