/*
 * compel_check.h - what the parts of compel_test share: saying how a check went, looking at a victim, and the visit of
 * a tracer.
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

/* One line: `ok NAME` or `FAIL NAME: why`, with the failure that is recorded. */
void check(bool is_right, const char *name, const char *format, ...) printf_like(3, 4);
uint64_t microseconds(void);
void end(pid_t pid); /* kills a victim and reaps it */

bool goes_on(volatile long *ticks);
uint64_t status_number(pid_t pid, const char *key); /* of /proc/PID/status */
char state_of(pid_t pid);
void wait_for_state(pid_t pid, char state);
pid_t child_of(pid_t pid); /* the first; 0: none */

/* What a process looks like from outside (compel_test.c). */
struct look {
	char *maps, *files, *masks;
};
struct look look_at(pid_t pid);
struct look look_when_settled(pid_t pid); /* … when all its threads have started */
void free_look(struct look *look);

/* Of a victim whose tracer is gone: what is wrong with it; NULL: nothing. It has a moment to come home. */
const char *went_wrong(pid_t pid, const struct look *before);
const char *tale_is_bad(void); /* of do_everything() */
/* Visits it so many times: does it notice, or is anything left? */
void visit_and_check(const char *name, void (*run)(struct tale *), int times);
/*
 * How did the call of start_blocking() end? It was disturbed after 150 ms, and could not be made for `away` ms. Ends
 * `pid` too.
 */
void end_blocking(pid_t pid, const struct blocking_call *call, const char *how, long away, bool is_orphaned);

int first_error(int one, int other);
int question(struct victim *victim); /* asks the parasite, and every thread, who they are */
int thaw(struct victim *victim);     /* victims_thaw() of one */
int visit(pid_t pid);		     /* freezes, infects, asks, cures, thaws */

/* compel_ends.c: processes that are stopped, traced, killed, or lose their tracer with something left to do */
void check_ends(int kills);
/* compel_desks.c: many threads that work for us at the same time */
void check_desks(int kills);
/* compel_groups.c: many processes that work for us at the same time */
void check_groups(int kills);

#endif
