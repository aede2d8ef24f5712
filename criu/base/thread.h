/*
 * thread.h - threads that take no signals: those are for the one that drives the command.
 */
#ifndef CRIU_BASE_THREAD_H
#define CRIU_BASE_THREAD_H

#include <pthread.h>
#include "compiler.h"

/*
 * As pthread_create(): 0, or a positive errno value. What fails in the thread belongs to the attempt that the caller is in
 * (base/error.h): a thread that outlives the attempt leaves it first, with attempt_join(NULL).
 */
int thread_start(pthread_t *thread, void *(*run)(void *argument), void *argument) must_check;

#endif
