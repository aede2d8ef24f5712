/*
 * events.c - eventfd, signalfd and timerfd: counters, pending events, and what they do after the restore.
 *
 * usage: events DIRECTORY eventfd|saturated|semaphore|signalfd|timerfd|timerfd_real|timerfd_unread|timerfd_expiring
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "live.h"

static int fds[8];
static pid_t child;

static bool is_readable(int fd)
{
	return poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, 0) == 1;
}

static uint64_t take(int fd, const char *what)
{
	uint64_t value;

	live_check(read(fd, &value, sizeof(value)) == sizeof(value), "%s: %m", what);
	return value;
}

/* ---- eventfd ---- */

static void use_shared(void)
{
	signal(SIGTERM, live_stop_child);
	live_check(take(fds[4], "the child's eventfd") == 3, "the child read another number");
	live_check(write(fds[5], &(uint64_t){ 9 }, 8) == 8, "write: %m");
	for (;;)
		pause();
}

static void set_up_eventfd(void)
{
	fds[0] = eventfd(0, EFD_NONBLOCK);
	fds[1] = eventfd(UINT32_MAX, EFD_CLOEXEC | EFD_NONBLOCK);
	fds[2] = eventfd(0, 0);
	fds[3] = eventfd(7, EFD_NONBLOCK);
	live_check(write(fds[2], &(uint64_t){ UINT32_MAX - 1ULL }, 8) == 8, "write: %m");
	live_check(dup2(fds[3], 100) == 100 && fcntl(fds[3], F_SETFL, 0) == 0, "dup2: %m");
	fds[4] = eventfd(0, 0);
	fds[5] = eventfd(0, 0);
	child = live_fork(use_shared);
}

static void verify_eventfd(void)
{
	uint64_t nothing;

	live_check(!is_readable(fds[0]) && read(fds[0], &nothing, 8) < 0 && errno == EAGAIN,
		   "the empty eventfd can be read");
	live_check(fcntl(fds[1], F_GETFD) == FD_CLOEXEC && fcntl(fds[0], F_GETFD) == 0, "wrong FD_CLOEXEC");
	live_check(take(fds[1], "a large one") == UINT32_MAX, "the counter has changed");
	live_check(take(fds[2], "another") == UINT32_MAX - 1ULL, "the counter has changed");
	live_check(take(100, "a dup'ed one") == 7, "the counter has changed");
	live_check(fcntl(fds[3], F_SETFL, O_NONBLOCK) == 0 && fcntl(100, F_GETFL) & O_NONBLOCK,
		   "the copy is no longer the same file");
	live_check(write(fds[4], &(uint64_t){ 3 }, 8) == 8, "write: %m");
	live_check(take(fds[5], "what the child sends") == 9, "the child sent another number");
	live_join(child);
}

/* More than eventfd(2) accepts as an initial value, and full: a further write(2) would block. */
static void set_up_saturated(void)
{
	fds[0] = eventfd(0, EFD_NONBLOCK);
	live_check(write(fds[0], &(uint64_t){ UINT64_MAX - 1 }, 8) == 8, "write: %m");
}

static void verify_saturated(void)
{
	live_check(write(fds[0], &(uint64_t){ 1 }, 8) < 0 && errno == EAGAIN,
		   "the full eventfd accepts a write");
	live_check(poll(&(struct pollfd){ fds[0], POLLOUT, 0 }, 1, 0) == 0,
		   "the full eventfd is writable for poll()");
	live_check(take(fds[0], "the full one") == UINT64_MAX - 1, "the counter has changed");
}

static bool fdinfo_says(int fd, const char *words)
{
	char path[64], text[512] = "";

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	int file = open(path, O_RDONLY);
	ssize_t length = read(file, text, sizeof(text) - 1);
	close(file);
	return length > 0 && strstr(text, words);
}

static void set_up_semaphore(void)
{
	fds[0] = eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK);
	if (!fdinfo_says(fds[0], "eventfd-semaphore:"))
		live_skip("this kernel does not show which eventfd is a semaphore");
}

static void verify_semaphore(void)
{
	for (int i = 0; i < 3; i++)
		live_check(take(fds[0], "the semaphore") == 1, "the semaphore gives more than one");
	live_check(!is_readable(fds[0]), "the semaphore can be read four times");
}

/* ---- signalfd ---- */

static void set_up_signalfd(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMAX);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fds[0] = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	sigdelset(&set, SIGUSR1);
	fds[1] = signalfd(-1, &set, SFD_NONBLOCK);
	live_check(fds[0] >= 0 && fds[1] >= 0, "signalfd: %m");
	sigqueue(getpid(), SIGUSR1, (union sigval){ .sival_int = 5 });
}

static void verify_signalfd(void)
{
	struct signalfd_siginfo facts;

	live_check(!is_readable(fds[1]), "the second one reports a signal that is not in its mask");
	live_check(read(fds[0], &facts, sizeof(facts)) == sizeof(facts), "the pending signal: %m");
	live_check(facts.ssi_signo == SIGUSR1 && facts.ssi_int == 5, "it is signal %u with %d",
		   facts.ssi_signo, facts.ssi_int);
	live_check(read(fds[0], &facts, sizeof(facts)) < 0 && errno == EAGAIN, "one signal too many");
	sigqueue(getpid(), SIGRTMAX, (union sigval){ .sival_int = 6 });
	live_check(is_readable(fds[0]) && read(fds[1], &facts, sizeof(facts)) == sizeof(facts),
		   "SIGRTMAX: %m");
	live_check(facts.ssi_int == 6, "the signal has value %d", facts.ssi_int);
}

/* ---- timerfd ---- */

static struct itimerspec timer(double first, double period)
{
	return (struct itimerspec){
		.it_value = { (time_t)first, (long)((first - (time_t)first) * 1e9) },
		.it_interval = { (time_t)period, (long)((period - (time_t)period) * 1e9) },
	};
}

static void start(int index, clockid_t clock, int flags, int how, double first, double period)
{
	struct itimerspec value = timer(first, period);

	fds[index] = timerfd_create(clock, flags);
	live_check(fds[index] >= 0 && timerfd_settime(fds[index], how, &value, NULL) == 0, "timerfd: %m");
}

static double left(int index)
{
	struct itimerspec value;

	live_check(timerfd_gettime(fds[index], &value) == 0, "timerfd_gettime: %m");
	return value.it_value.tv_sec + value.it_value.tv_nsec / 1e9;
}

static double started;

static void set_up_timerfd(void)
{
	struct timespec now;

	started = live_now();
	start(0, CLOCK_MONOTONIC, TFD_NONBLOCK, 0, 0.001, 0); /* expired, not read */
	start(2, CLOCK_BOOTTIME, TFD_CLOEXEC, 0, 1000, 0);
	start(3, CLOCK_MONOTONIC, TFD_NONBLOCK, 0, 0, 0); /* never started */
	clock_gettime(CLOCK_MONOTONIC, &now);
	start(4, CLOCK_MONOTONIC, 0, TFD_TIMER_ABSTIME, now.tv_sec + 500.5, 3);
	start(5, CLOCK_MONOTONIC, 0, 0, 0.001, 0.3);
	take(fds[5], "the first tick");
	live_sleep(0.05);
}

/* For relative timers the time away does not count. */
static void verify_timerfd(void)
{
	double away = live_downtime(), passed = live_now() - started - away;

	live_check(take(fds[0], "the expired one") == 1 && !is_readable(fds[0]),
		   "the expired timer does not report one tick");
	live_check(left(2) > 999 - passed - away && left(2) < 1000.3 - passed, "%.3f s are left, %.3f passed",
		   left(2), passed);
	live_check(left(3) == 0 && !is_readable(fds[3]), "the timer that was never started runs");
	/* It was started with 500.5 s less at most one second; the peer forgets the fraction. */
	live_check(left(4) > 498 - passed - away && left(4) < 501.8 - passed, "%.3f s are left", left(4));
	take(fds[5], "one that was read");
}

/* Expires over and over, and is never read. */
static void set_up_unread(void)
{
	started = live_now();
	start(1, CLOCK_MONOTONIC, TFD_NONBLOCK, 0, 0.01, 0.02);
	live_sleep(0.05);
}

static void verify_unread(void)
{
	double away = live_downtime(), passed = live_now() - started - away;
	uint64_t ticks;

	ticks = take(fds[1], "the periodic one");
	live_check(ticks >= passed / 0.02 - 3 && ticks <= (passed + away) / 0.02 + 3, "%lu ticks in %.3f s",
		   (unsigned long)ticks, passed);
	live_sleep(0.05);
	live_check(take(fds[1], "the periodic one") >= 2, "the periodic timer no longer ticks");
}

/*
 * Whenever the dump looks, one of these is just expiring: one-shot timers, which expire one after the other, and timers
 * with a period of 1 ms. None may be lost, and none that is not running may start.
 */
#define EXPIRING 400

static int expiring[EXPIRING], ticking[20], resting;

static void set_up_expiring(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	for (int i = 0; i < EXPIRING; i++) {
		struct itimerspec value = timer(0.05 + i * 0.001, 0);

		if (i % 2) {
			double at = now.tv_nsec / 1e9 + 0.05 + i * 0.001;

			value = timer(at, 0);
			value.it_value.tv_sec += now.tv_sec;
		}
		expiring[i] = timerfd_create(i % 3 ? CLOCK_MONOTONIC : CLOCK_BOOTTIME, TFD_NONBLOCK);
		if (i % 3 == 0)
			value = timer(0.05 + i * 0.001, 0);
		live_check(timerfd_settime(expiring[i], i % 3 && i % 2 ? TFD_TIMER_ABSTIME : 0, &value,
					   NULL) == 0,
			   "timerfd: %m");
	}
	for (int i = 0; i < 20; i++) {
		struct itimerspec value = timer(0.001, 0.001);

		ticking[i] = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
		live_check(timerfd_settime(ticking[i], 0, &value, NULL) == 0, "timerfd: %m");
	}
	/* Not started, but it has a period. */
	resting = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	live_check(timerfd_settime(resting, 0, &(struct itimerspec){ .it_interval.tv_nsec = 1000000 },
				   NULL) == 0,
		   "timerfd: %m");
}

static void verify_expiring(void)
{
	for (int i = 0; i < EXPIRING; i++) {
		live_check(poll(&(struct pollfd){ expiring[i], POLLIN, 0 }, 1, 2000) == 1,
			   "one-shot timer %d has not expired", i);
		live_check(take(expiring[i], "a one-shot timer") == 1, "one-shot timer %d ticks", i);
		live_check(!is_readable(expiring[i]), "one-shot timer %d expires again", i);
	}
	for (int i = 0; i < 20; i++) {
		live_check(take(ticking[i], "a timer with a period of 1 ms") > 20, "timer %d has lost ticks",
			   i);
		live_check(poll(&(struct pollfd){ ticking[i], POLLIN, 0 }, 1, 2000) == 1,
			   "timer %d no longer ticks", i);
	}
	live_check(!is_readable(resting), "a timer that was not started runs");
}

static void set_up_real(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	start(0, CLOCK_REALTIME, TFD_NONBLOCK, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, now.tv_sec + 1000,
	      0);
	start(1, CLOCK_REALTIME, TFD_NONBLOCK, TFD_TIMER_ABSTIME, now.tv_sec - 1000, 0);
	started = now.tv_sec;
}

/* An absolute timer expires at the same time as without a dump. The peer's may be late by the time away. */
static void verify_real(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	double due = started + 1000 - now.tv_sec - now.tv_nsec / 1e9;
	live_check(left(0) > due - 0.05 && left(0) < due + 0.05, "%.3f s are left, not %.3f", left(0), due);
	live_check(take(fds[1], "what has passed") == 1, "the timer whose time has passed did not tick once");
}

static const struct live_part parts[] = {
	{ "eventfd", set_up_eventfd, verify_eventfd },
	{ "saturated", set_up_saturated, verify_saturated },
	{ "semaphore", set_up_semaphore, verify_semaphore },
	{ "signalfd", set_up_signalfd, verify_signalfd },
	{ "timerfd", set_up_timerfd, verify_timerfd },
	{ "timerfd_real", set_up_real, verify_real },
	{ "timerfd_unread", set_up_unread, verify_unread },
	{ "timerfd_expiring", set_up_expiring, verify_expiring },
};

int main(int argc, char **argv)
{
	return live_run_one(argc, argv, parts);
}
