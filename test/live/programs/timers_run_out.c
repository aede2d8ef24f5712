/*
 * timers_run_out.c - setitimer() timers with an interval that have expired and do not run. ITIMER_REAL goes on only
 * when its SIGALRM is taken. After the restore it must go on if, and only if, it would have without a dump.
 *
 * usage: timers_run_out DIRECTORY waiting|sent|dead|disarmed
 *   waiting	SIGALRM is blocked, and the timer's own is pending
 *   sent	… and one that kill() has sent is pending in its place
 *   dead	the pending SIGALRM was discarded (SIG_IGN): the timer goes on only when another SIGALRM is sent
 *   disarmed	timers of CPU time that have an interval, but do not run
 */
#define _GNU_SOURCE
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "live.h"

#define EVERY 20000 /* microseconds */

static volatile sig_atomic_t ticks, first_code;
static struct itimerspec told;
static timer_t timer;

static void on_alarm(int signo, siginfo_t *facts, void *context)
{
	if (!ticks++)
		first_code = facts->si_code;
}

static void mask_alarm(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	live_check(sigprocmask(how, &set, NULL) == 0, "sigprocmask: %m");
}

static void handle_alarm(void)
{
	struct sigaction action = { .sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO | SA_RESTART };

	live_check(sigaction(SIGALRM, &action, NULL) == 0, "sigaction: %m");
}

static void set(int which, long value, long interval)
{
	struct itimerval times = { { 0, interval }, { 0, value } };

	live_check(setitimer(which, &times, NULL) == 0, "setitimer: %m");
}

static void verify(int which, long value, long interval)
{
	struct itimerval times;

	live_check(getitimer(which, &times) == 0, "getitimer: %m");
	live_check(times.it_value.tv_sec == 0 && times.it_value.tv_usec == value &&
			   times.it_interval.tv_sec == 0 && times.it_interval.tv_usec == interval,
		   "timer %d: %ld.%06ld s left, interval %ld.%06ld", which, times.it_value.tv_sec,
		   times.it_value.tv_usec, times.it_interval.tv_sec, times.it_interval.tv_usec);
}

static bool is_waiting(void)
{
	sigset_t pending;

	sigpending(&pending);
	return sigismember(&pending, SIGALRM);
}

static void verify_real(bool waits)
{
	verify(ITIMER_REAL, 0, EVERY);
	live_check(is_waiting() == waits, "SIGALRM %s", waits ? "is not pending" : "is pending");
	live_check(!ticks, "SIGALRM was taken %d times", ticks);
}

static void run_out(void)
{
	mask_alarm(SIG_BLOCK);
	set(ITIMER_REAL, EVERY, EVERY);
	live_sleep(3 * EVERY / 1e6);
	verify_real(true);
}

static void waiting(void)
{
	run_out();
}

static void sent(void)
{
	mask_alarm(SIG_BLOCK);
	live_check(kill(getpid(), SIGALRM) == 0, "kill: %m");
	run_out();
}

static void dead(void)
{
	run_out();
	signal(SIGALRM, SIG_IGN);
	handle_alarm();
	verify_real(false);
}

/* What this kernel reports about the timer of timer_create(); it must report the same after the restore. */
static struct itimerspec ask(void)
{
	struct itimerspec times;

	live_check(timer_gettime(timer, &times) == 0, "timer_gettime: %m");
	return times;
}

static void disarmed(void)
{
	struct itimerspec times = { { 0, EVERY * 1000 }, { 0, 0 } };

	live_check(timer_create(CLOCK_PROCESS_CPUTIME_ID, &(struct sigevent){ .sigev_notify = SIGEV_NONE },
				&timer) == 0 &&
			   timer_settime(timer, 0, &times, NULL) == 0,
		   "timer_create: %m");
	told = ask();
	set(ITIMER_VIRTUAL, 0, EVERY);
	set(ITIMER_PROF, 0, 2 * EVERY);
}

/*
 * One signal is pending. If the process does not get a CPU for a while afterwards, it may see more than one tick, but
 * never more than the time allows.
 */
static void must_tick(int code)
{
	double began = live_now(), most;
	int seen;

	mask_alarm(SIG_UNBLOCK);
	live_check(ticks >= 1 && first_code == code, "%d signals at once, the first with code %d", ticks,
		   first_code);
	while (ticks < 5 && live_now() < began + 10)
		live_sleep(EVERY / 1e6);
	seen = ticks;
	most = 2 + (live_now() - began) / (EVERY / 1e6);
	live_check(seen >= 5 && seen <= most, "%d ticks in the time of %.1f", seen, most);
}

static void verify_disarmed(void)
{
	verify(ITIMER_VIRTUAL, 0, EVERY);
	verify(ITIMER_PROF, 0, 2 * EVERY);
	struct itimerspec now = ask();
	live_check(!memcmp(&now, &told, sizeof(now)), "POSIX timer: interval %ld ns, was %ld",
		   now.it_interval.tv_nsec, told.it_interval.tv_nsec);
}

static void finish_dead(void)
{
	verify_real(false);
	mask_alarm(SIG_UNBLOCK);
	live_sleep(3 * EVERY / 1e6);
	verify_real(false);
	kill(getpid(), SIGALRM);
	must_tick(SI_USER);
}

static void finish_waiting(void)
{
	verify_real(true);
	must_tick(SI_KERNEL);
}

static void finish_sent(void)
{
	verify_real(true);
	must_tick(SI_USER);
}

static const struct {
	const char *name;
	void (*set_up)(void), (*finish)(void);
} states[] = {
	{ "waiting", waiting, finish_waiting },
	{ "sent", sent, finish_sent },
	{ "dead", dead, finish_dead },
	{ "disarmed", disarmed, verify_disarmed },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	handle_alarm();
	__auto_type state = live_choose(states, argv[2]);
	state->set_up();
	live_ready();
	live_wait_stop();
	state->finish();
	return live_finish();
}
