/*
 * timers_storm.c - timers that expire during a dump: each must expire exactly once, before, during or after it. Half of
 * them signal a thread, half the process; alarm() is used at the same time.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "live.h"

#define SHOT  (SIGRTMIN + 1)
#define COUNT 1200
#define EVERY 0.00025 /* seconds between two of them */

static atomic_int shots[COUNT], alarms;
static int set_alarms;

static void on_shot(int signo, siginfo_t *facts, void *context)
{
	shots[facts->si_value.sival_int]++;
}

static void on_alarm(int signo)
{
	alarms++;
}

/* Sets the next alarm as soon as one has expired, so that one is running at every moment. */
static void keep_alarm_going(void)
{
	struct itimerval soon = { .it_value = { 0, 3000 } };

	if (alarms == set_alarms) {
		set_alarms++;
		setitimer(ITIMER_REAL, &soon, NULL);
	}
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_sigaction = on_shot, .sa_flags = SA_SIGINFO | SA_RESTART };
	timer_t timers[COUNT];

	live_begin(argc, argv);
	sigaction(SHOT, &action, NULL);
	action.sa_handler = on_alarm;
	action.sa_flags = SA_RESTART;
	sigaction(SIGALRM, &action, NULL);
	for (int i = 0; i < COUNT; i++) {
		struct sigevent event = { .sigev_notify = i % 2 ? SIGEV_SIGNAL : SIGEV_THREAD_ID,
					  .sigev_signo = SHOT };

		event.sigev_value.sival_int = i;
		event._sigev_un._tid = gettid();
		live_check(timer_create(CLOCK_MONOTONIC, &event, &timers[i]) == 0, "timer_create: %m");
	}
	for (int i = 0; i < COUNT; i++) {
		long after = (long)((i + 1) * EVERY * 1e9) + 100000000;
		struct itimerspec once = { .it_value = { after / 1000000000, after % 1000000000 } };

		timer_settime(timers[i], 0, &once, NULL);
	}
	live_ready();
	while (!live_stopping()) {
		keep_alarm_going();
		live_check(alarms <= set_alarms, "%d alarms were set, %d arrived", set_alarms, alarms);
		live_sleep(0.0005);
	}
	live_sleep(COUNT * EVERY + 0.15);
	for (int i = 0; i < COUNT; i++)
		live_check(shots[i] == 1, "timer %d expired %d times", i, shots[i]);
	live_check(alarms == set_alarms, "%d alarms were set, %d arrived", set_alarms, alarms);
	return live_finish();
}
