/*
 * helper_thread.h - a helper thread: it does one part of a piece of work while its owner does the other.
 */
#ifndef CRIU_BASE_HELPER_THREAD_H
#define CRIU_BASE_HELPER_THREAD_H

#include <stddef.h>

struct helper_thread;

/* NULL: no thread could be started. */
struct helper_thread *helper_thread_start(void);
void helper_thread_end(struct helper_thread *helper); /* NULL is fine */

/*
 * Begins work(argument) in the helper thread. There is one piece of work at a time, so each call is followed by
 * helper_thread_wait(). A failure within it belongs to the attempt of the caller (base/error.h).
 */
void helper_thread_run(struct helper_thread *helper, void (*work)(void *argument), void *argument);
void helper_thread_wait(struct helper_thread *helper);

/*
 * Calls work(context, i) once for each i below `count`, in any order, in the caller and a second thread. If there are
 * fewer than `worth`, the caller does all of it: to start and end a thread takes 0.1 ms.
 */
void share_work(size_t count, size_t worth, void (*work)(void *context, size_t i), void *context);

#endif
