/*
 * aside.h - a thread that waits to do a part of its owner's work beside him.
 */
#ifndef CRIU_BASE_ASIDE_H
#define CRIU_BASE_ASIDE_H

struct aside;

/* NULL: no thread could be started. */
struct aside *aside_start(void);
void aside_end(struct aside *aside); /* NULL is fine */

/*
 * Begins work(argument); one at a time, so each is followed by a wait. What fails in it belongs to the attempt that the caller is in
 * (base/error.h).
 */
void aside_do(struct aside *aside, void (*work)(void *argument), void *argument);
void aside_wait(struct aside *aside);

#endif
