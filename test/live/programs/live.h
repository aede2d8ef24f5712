/*
 * live.h - what the programs of the live tests share: they tell the harness that they are ready, run until it stops
 * them, and write a verdict.
 *
 * A program is run as `program DIRECTORY`. It prepares its state, calls live_ready(), checks its state over and over
 * until live_stopping(), checks a last time and returns live_finish(). The first live_fail() of any of its processes is
 * the verdict. These functions leave nothing open or mapped.
 */
#ifndef TEST_LIVE_H
#define TEST_LIVE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

extern const char *live_directory;

void live_begin(int argc, char **argv); /* from now on SIGTERM means stop */
void live_ready(void);
void live_note(const char *name,
	       const char *text); /* writes a file for the harness; call it before live_ready() */
bool live_stopping(void);
void live_wait_stop(void); /* sleeps until SIGTERM */
volatile int *live_stop_flag(void);
int live_finish(void); /* writes the verdict: PASS, unless something failed */

_Noreturn void live_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void live_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void live_stop_child(int signo); /* for children: exit 0 on SIGTERM */

/*
 * Most programs test one of several things, which their argument names: a row of a table, whose first member is the
 * name. live_find() returns the row or NULL. live_choose() makes the test fail if there is none.
 */
const void *live_row(const void *table, size_t row_size, size_t rows, const char *name, bool must_be);
#define live_row_of(table, name, must_be)                                                                 \
	((__typeof__(&(table)[0]))live_row(table, sizeof((table)[0]), sizeof(table) / sizeof((table)[0]), \
					   name, must_be))
#define live_find(table, name)	 live_row_of(table, name, false)
#define live_choose(table, name) live_row_of(table, name, true)

/* One of these things, in a program that sets it up, and verifies it when it has to stop. */
struct live_part {
	const char *name;
	void (*set_up)(void), (*verify)(void);
};
/* The whole main() of such a program; the second argument names the part. */
int live_run(int argc, char **argv, const struct live_part *parts, size_t count);
#define live_run_one(argc, argv, parts) live_run(argc, argv, parts, sizeof(parts) / sizeof((parts)[0]))

void live_path(char *buffer, size_t size, const char *name); /* DIRECTORY/name */
double live_now(void);					     /* CLOCK_MONOTONIC, seconds */
double live_downtime(void);	  /* seconds away so far, as the harness measured */
int live_times_away(void);	  /* how many dumps that were */
void live_sleep(double seconds);  /* also if signals arrive */
void live_wait_asleep(pid_t tid); /* until this thread or process sleeps in a call */

pid_t live_fork(void (*child)(void)); /* the child runs `child`, then exits with 0 */
void live_join(pid_t pid);	      /* SIGTERM, wait, and fail unless it exited with 0 */

void live_fill(void *memory, size_t size, uint64_t seed);
void live_compare(const void *memory, size_t size, uint64_t seed, const char *what);

/* Is it the first line of a mapping in smaps? Gives its range. Other lines may begin with hexadecimal digits, too. */
bool live_smaps_head(const char *line, unsigned long *start, unsigned long *end);

#define live_check(condition, ...)              \
	do {                                    \
		if (!(condition))               \
			live_fail(__VA_ARGS__); \
	} while (0)

/*
 * Waits for at least 20 s, or fails. Counts how often it has looked, because the program may be away meanwhile, for any
 * time.
 */
#define live_await(condition, ...)                                   \
	do {                                                         \
		for (int looks = 0; !(condition); looks++) {         \
			live_check(looks < LIVE_LOOKS, __VA_ARGS__); \
			live_sleep(LIVE_INTERVAL);                   \
		}                                                    \
	} while (0)
#define LIVE_INTERVAL 0.0005 /* seconds */
#define LIVE_LOOKS    40000

#endif
