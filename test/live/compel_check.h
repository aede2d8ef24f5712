/*
 * compel_check.h - what the parts of compel_test share: they report a check, look at a victim, and visit it as a tracer
 * does.
 */
#ifndef COMPEL_CHECK_H
#define COMPEL_CHECK_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include "compel.h"
#include "compel_victims.h"

extern int failures;
extern struct tale *tale;

/* Prints one line, `ok NAME` or `FAIL NAME: why`, with the recorded failure. */
void check(bool is_right, const char *name, const char *format, ...) printf_like(3, 4);
uint64_t microseconds(void);
void end(pid_t pid); /* kills a victim and reaps it */

bool goes_on(volatile long *ticks);
uint64_t status_number(pid_t pid, const char *key); /* of /proc/PID/status */
char state_of(pid_t pid);
void wait_for_state(pid_t pid, char state);
pid_t child_of(pid_t pid); /* its first child; 0: none */

/* What a process looks like from outside (compel_test.c). */
struct look {
	char *maps, *files, *masks;
};
struct look look_at(pid_t pid);
struct look look_when_settled(pid_t pid); /* … when all its threads have started */
void free_look(struct look *look);

/* What is wrong with a victim whose tracer has died, or NULL. It gets some time to return to its own code. */
const char *went_wrong(pid_t pid, const struct look *before);
const char *tale_is_bad(void); /* what do_everything() has noticed, or NULL */
/* Visits a victim `times` times, and checks that it notices nothing and that nothing is left in it. */
void visit_and_check(const char *name, void (*run)(struct tale *), int times);
/*
 * Checks how the call of start_blocking() has ended. It was disturbed after 150 ms, and the thread could not run for
 * `away` ms. Ends `pid`, too.
 */
void end_blocking(pid_t pid, const struct blocking_call *call, const char *how, long away, bool is_orphaned);

int first_error(int one, int other);
int question(struct victim *victim); /* asks every thread for its id, and the parasite for more */
int thaw(struct victim *victim);     /* victims_thaw() of one */
int visit(pid_t pid);		     /* freezes, infects, asks, cures, thaws */

/* compel_ends.c: processes that are stopped, traced or killed, or whose tracer dies while they owe it calls */
void check_ends(int kills);
/* compel_desks.c: many threads that work for the tracer at the same time */
void check_desks(int kills);
/* compel_groups.c: many processes that work for the tracer at the same time */
void check_groups(int kills);

#endif
