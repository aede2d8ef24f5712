/*
 * timers.c - interval timers and POSIX timers: each keeps its interval, and expires when the time that was left at the
 * dump has passed after the restore. Periodic timers go on.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "live.h"

#define ONE_SHOT (SIGRTMIN + 1)
#define PERIODIC (SIGRTMIN + 2)
#define DELAY	 1.5

static atomic_int alarms, one_shots, ticks;
static double started, alarm_at, one_shot_at;
static timer_t one_shot, periodic, silent;

static void on_signal(int signo, siginfo_t *facts, void *context)
{
	if (signo == SIGALRM) {
		alarm_at = live_now();
		alarms++;
	} else if (signo == ONE_SHOT && facts->si_value.sival_int == 4711) {
		one_shot_at = live_now();
		one_shots++;
	} else if (signo == PERIODIC && facts->si_code == SI_TIMER) {
		ticks++;
	}
}

static void set_up_interval_timers(void)
{
	struct itimerval real = { .it_value = { 1, 500000 } };
	struct itimerval virtual = { .it_value = { 1000, 0 }, .it_interval = { 7, 5 } };
	struct itimerval profiling = { .it_value = { 2000, 0 }, .it_interval = { 8, 6 } };

	setitimer(ITIMER_REAL, &real, NULL);
	setitimer(ITIMER_VIRTUAL, &virtual, NULL);
	setitimer(ITIMER_PROF, &profiling, NULL);
}

static timer_t new_timer(int signo, int value, int how, double first, double interval)
{
	struct sigevent event = { .sigev_notify = how, .sigev_signo = signo, .sigev_value.sival_int = value };
	struct itimerspec times = { .it_value = { (time_t)first, (long)((first - (time_t)first) * 1e9) },
				    .it_interval = { (time_t)interval,
						     (long)((interval - (time_t)interval) * 1e9) } };
	timer_t timer;

	event._sigev_un._tid = gettid();
	live_check(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0, "timer_create: %m");
	live_check(timer_settime(timer, 0, &times, NULL) == 0, "timer_settime: %m");
	return timer;
}

static void verify_interval_timer(int which, long most, long interval, const char *name)
{
	struct itimerval timer;

	getitimer(which, &timer);
	live_check(timer.it_interval.tv_sec == interval, "%s: interval %ld", name, timer.it_interval.tv_sec);
	live_check(timer.it_value.tv_sec <= most && timer.it_value.tv_sec >= most - 20,
		   "%s: %ld s left of %ld", name, timer.it_value.tv_sec, most);
}

static void verify(void)
{
	struct itimerspec times;

	verify_interval_timer(ITIMER_VIRTUAL, 1000, 7, "ITIMER_VIRTUAL");
	verify_interval_timer(ITIMER_PROF, 2000, 8, "ITIMER_PROF");
	live_check(timer_gettime(silent, &times) == 0, "timer_gettime: %m");
	live_check(times.it_interval.tv_sec == 50 && times.it_value.tv_sec >= 480 &&
			   times.it_value.tv_sec < 500,
		   "the silent timer: %ld s left, interval %ld", times.it_value.tv_sec,
		   times.it_interval.tv_sec);
}

static void verify_shot(atomic_int *count, const double *at, const char *name)
{
	double latest = started + DELAY + live_downtime() + 0.4;

	while (!*count && live_now() < latest)
		live_sleep(0.005);
	live_check(*count == 1, "%s expired %d times", name, *count);
	live_check(*at >= started + DELAY - 0.02, "%s expired early, after %.3f s", name, *at - started);
	live_check(*at <= latest, "%s expired late, after %.3f s of which %.3f away", name, *at - started,
		   live_downtime());
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART };

	live_begin(argc, argv);
	sigaction(SIGALRM, &action, NULL);
	sigaction(ONE_SHOT, &action, NULL);
	sigaction(PERIODIC, &action, NULL);
	started = live_now();
	set_up_interval_timers();
	one_shot = new_timer(ONE_SHOT, 4711, SIGEV_THREAD_ID, DELAY, 0);
	periodic = new_timer(PERIODIC, 1, SIGEV_SIGNAL, 0.01, 0.01);
	silent = new_timer(0, 0, SIGEV_NONE, 500, 50);
	live_ready();
	while (!live_stopping()) {
		verify();
		live_sleep(0.005);
	}
	verify();
	verify_shot(&alarms, &alarm_at, "ITIMER_REAL");
	verify_shot(&one_shots, &one_shot_at, "the one-shot timer");
	int before = ticks;
	live_sleep(0.1);
	live_check(ticks - before >= 5, "the periodic timer expired %d times in 0.1 s", ticks - before);
	live_check(timer_delete(one_shot) == 0 && timer_delete(periodic) == 0, "timer_delete: %m");
	return live_finish();
}
