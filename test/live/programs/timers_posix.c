/*
 * timers_posix.c - timers of timer_create() that are hard to restore: ids with gaps; clocks of CPU time (of the thread
 * itself, of another one, of the process); timers that signal one thread, no one, or a thread that has ended; a
 * periodic one whose signal is pending.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "live.h"

#define WAITING (SIGRTMIN + 1)
#define TOLD	(SIGRTMIN + 2)
#define SPENT	(SIGRTMIN + 3)
#define GAP	300
#define WORKERS 4

/* Creates a timer and returns the kernel's id, which libc may hide. */
static int create(int clock, int how, int signo, pid_t tid)
{
	struct sigevent event = { .sigev_notify = how,
				  .sigev_signo = signo,
				  .sigev_value.sival_int = 1000 + signo };
	int id;

	event._sigev_un._tid = tid;
	live_check(syscall(SYS_timer_create, clock, &event, &id) == 0, "timer_create: %m");
	return id;
}

static void set(int id, double first, double interval)
{
	struct itimerspec times = { { interval, (interval - (long)interval) * 1e9 },
				    { first, (first - (long)first) * 1e9 } };

	live_check(syscall(SYS_timer_settime, id, 0, &times, NULL) == 0, "timer_settime: %m");
}

static double left(int id, double *interval)
{
	struct itimerspec times;

	live_check(syscall(SYS_timer_gettime, id, &times) == 0, "timer %d: %m", id);
	if (interval)
		*interval = times.it_interval.tv_sec + times.it_interval.tv_nsec / 1e9;
	return times.it_value.tv_sec + times.it_value.tv_nsec / 1e9;
}

static void spend(double seconds)
{
	struct timespec now, end;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
	end.tv_nsec += seconds * 1e9;
	do
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	while (now.tv_sec * 1e9 + now.tv_nsec < end.tv_sec * 1e9 + end.tv_nsec);
}

static struct worker {
	pthread_t thread;
	int own, told; /* ids of timers: one of its CPU time, one that sends it TOLD */
	double own_left;
	atomic_int came;
	pid_t tid;
} workers[WORKERS];
static atomic_int prepared, stop;
static __thread struct worker *self;

static void on_told(int signo, siginfo_t *facts, void *context)
{
	if (self && facts->si_code == SI_TIMER && facts->si_value.sival_int == 1000 + TOLD)
		self->came++;
}

static void *work(void *argument)
{
	self = argument;
	self->tid = gettid();
	self->own = create(CLOCK_THREAD_CPUTIME_ID, SIGEV_NONE, 0, 0);
	set(self->own, 100 + (self - workers), 50);
	self->told = create(CLOCK_BOOTTIME, SIGEV_THREAD_ID, TOLD, self->tid);
	set(self->told, 0.02, 0.02);
	prepared++;
	while (!stop)
		live_sleep(0.005);
	/* Its own timer runs only while it works. */
	double before = left(self->own, NULL);
	live_check(before > 95 + (self - workers) && before <= 100 + (self - workers), "own timer: %f s left",
		   before);
	spend(0.05);
	double after = left(self->own, NULL);
	live_check(before - after > 0.04 && before - after < 0.5, "own timer: %f s, then %f s left", before,
		   after);
	int came = self->came;
	double began = live_now();
	while (self->came - came < 4 && live_now() < began + 10)
		live_sleep(0.02);
	live_check(self->came - came >= 4, "its timer expired %d times in 10 s", self->came - came);
	return NULL;
}

/* Creates a timer that signals this thread, which then ends. */
static void *leave_a_timer(void *id)
{
	*(int *)id = create(CLOCK_MONOTONIC, SIGEV_THREAD_ID, TOLD, gettid());
	set(*(int *)id, 500, 0);
	return NULL;
}

/* While its signal is blocked, a periodic timer sends only one. When that is taken, it goes on. */
static void verify_waiting(int id)
{
	double began = live_now(), next = left(id, NULL);
	struct timespec now = { 0 };
	siginfo_t facts = { 0 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, WAITING);
	live_check(sigtimedwait(&set, &facts, &now) == WAITING,
		   "the signal of the blocked timer is lost: %m");
	live_check(facts.si_code == SI_TIMER && facts.si_timerid == id &&
			   facts.si_value.sival_int == 1000 + WAITING,
		   "its signal has code %d, timer %d, value %d", facts.si_code, facts.si_timerid,
		   facts.si_value.sival_int);
	live_check(sigtimedwait(&set, &facts, &now) < 0 || live_now() - began >= next,
		   "the blocked timer sent two signals");
	now.tv_sec = 1;
	live_check(sigtimedwait(&set, &facts, &now) == WAITING, "the blocked timer does not go on: %m");
}

static void verify_left(int id, double most, double expected_interval, const char *what)
{
	double interval, now = left(id, &interval);

	live_check(now <= most && now > most - 20, "%s: %f s left of %f", what, now, most);
	live_check(interval == expected_interval, "%s: interval %f", what, interval);
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_sigaction = on_told, .sa_flags = SA_SIGINFO | SA_RESTART };
	int gone, far, waiting, spent, real, idle, once;
	pthread_t thread;
	sigset_t blocked;

	live_begin(argc, argv);
	sigaction(TOLD, &action, NULL);
	sigemptyset(&blocked);
	sigaddset(&blocked, WAITING);
	sigaddset(&blocked, SPENT);
	pthread_sigmask(SIG_BLOCK, &blocked, NULL);
	pthread_create(&thread, NULL, leave_a_timer, &gone);
	pthread_join(thread, NULL);
	for (int i = 0; i < WORKERS; i++)
		pthread_create(&workers[i].thread, NULL, work, &workers[i]);
	while (prepared < WORKERS)
		live_sleep(0.001);
	for (int i = 0; i < GAP; i++)
		syscall(SYS_timer_delete, create(CLOCK_MONOTONIC, SIGEV_NONE, 0, 0));
	far = create(CLOCK_TAI, SIGEV_SIGNAL, TOLD, 0);
	set(far, 300, 0.25);
	waiting = create(CLOCK_MONOTONIC, SIGEV_SIGNAL, WAITING, 0);
	set(waiting, 0.3, 0.3);
	once = create(CLOCK_REALTIME, SIGEV_SIGNAL, SPENT, 0);
	set(once, 0.01, 0);
	spent = create(CLOCK_PROCESS_CPUTIME_ID, SIGEV_SIGNAL, TOLD, 0);
	set(spent, 200, 3);
	real = create(CLOCK_REALTIME, SIGEV_NONE, 0, 0);
	set(real, 400, 0);
	idle = create(CLOCK_MONOTONIC, SIGEV_SIGNAL, TOLD, 0);
	live_sleep(0.35);
	live_ready();
	live_wait_stop();
	live_check(far >= GAP && idle == far + 5, "ids %d and %d", far, idle);
	verify_waiting(waiting);
	verify_left(gone, 500, 0, "the timer of the thread that is gone");
	verify_left(far, 300, 0.25, "the timer of CLOCK_TAI");
	verify_left(spent, 200, 3, "the timer of the process's CPU time");
	verify_left(real, 400, 0, "the timer without a signal");
	live_check(left(idle, NULL) == 0 && left(once, NULL) == 0, "a timer that was not set runs");
	sigemptyset(&blocked);
	sigaddset(&blocked, SPENT);
	live_check(sigtimedwait(&blocked, NULL, &(struct timespec){ 0 }) == SPENT,
		   "the signal of a timer that ran out: %m");
	live_check(sigtimedwait(&blocked, NULL, &(struct timespec){ 0 }) < 0, "the timer ran out twice");
	stop = 1;
	for (int i = 0; i < WORKERS; i++)
		pthread_join(workers[i].thread, NULL);
	return live_finish();
}
