/*
 * interrupted.c - a thread sleeps in a system call while it is dumped. The call returns what it would have returned:
 * never EINTR, not early, and late only by the time away.
 *
 * usage: interrupted DIRECTORY CALL (see the table at the end)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "live.h"

#define SECONDS	  1.2
#define TOLERANCE 0.3

static const struct timespec period = { 1, 200000000 };
static int empty_pipe[2], epoll;
static pid_t child;
static atomic_int ready, sleeper_tid, told, futex_word;
static long result;
static int error;
static double took;

static void record(long value)
{
	result = value;
	error = value < 0 ? errno : 0;
}

static void in_nanosleep(void)
{
	record(nanosleep(&period, NULL));
}

static void in_clock_nanosleep(void)
{
	record(-clock_nanosleep(CLOCK_MONOTONIC, 0, &period, NULL));
}

static void in_clock_nanosleep_until(void)
{
	struct timespec end;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += 1;
	end.tv_nsec += 200000000;
	if (end.tv_nsec >= 1000000000) {
		end.tv_sec++;
		end.tv_nsec -= 1000000000;
	}
	record(-clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL));
}

static void in_poll(void)
{
	record(poll(&(struct pollfd){ empty_pipe[0], POLLIN, 0 }, 1, (int)(SECONDS * 1000)));
}

static void in_ppoll(void)
{
	record(ppoll(&(struct pollfd){ empty_pipe[0], POLLIN, 0 }, 1, &period, NULL));
}

static void in_select(void)
{
	struct timeval timeout = { 1, 200000 };
	fd_set set;

	FD_ZERO(&set);
	FD_SET(empty_pipe[0], &set);
	record(select(empty_pipe[0] + 1, &set, NULL, NULL, &timeout));
}

static void in_pselect(void)
{
	sigset_t mask;
	fd_set set;

	sigfillset(&mask);
	FD_ZERO(&set);
	FD_SET(empty_pipe[0], &set);
	record(pselect(empty_pipe[0] + 1, &set, NULL, NULL, &period, &mask));
}

static void in_epoll(void)
{
	struct epoll_event event;

	record(epoll_wait(epoll, &event, 1, (int)(SECONDS * 1000)));
}

static void in_sigtimedwait(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	record(sigtimedwait(&set, NULL, &period));
}

static void in_futex(void)
{
	record(syscall(SYS_futex, &futex_word, FUTEX_WAIT, 0, &period, NULL, 0));
}

static void in_read(void)
{
	char byte;

	record(read(empty_pipe[0], &byte, 1));
}

static void in_poll_forever(void)
{
	record(poll(&(struct pollfd){ empty_pipe[0], POLLIN, 0 }, 1, -1));
}

static void in_epoll_forever(void)
{
	struct epoll_event event;

	record(epoll_wait(epoll, &event, 1, -1));
}

static void in_futex_forever(void)
{
	record(syscall(SYS_futex, &futex_word, FUTEX_WAIT, 0, NULL, NULL, 0));
}

static void in_wait4(void)
{
	record(waitpid(child, NULL, 0) == child ? 0 : -1);
}

static void in_waitid(void)
{
	siginfo_t facts;

	record(waitid(P_PID, child, &facts, WEXITED));
}

static void in_pause(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	record(pause());
}

static void in_sigsuspend(void)
{
	sigset_t set;

	sigfillset(&set);
	sigdelset(&set, SIGUSR1);
	record(sigsuspend(&set));
}

static void write_byte(pthread_t thread)
{
	live_check(write(empty_pipe[1], "x", 1) == 1, "write: %m");
}

static void end_child(pthread_t thread)
{
	kill(child, SIGTERM);
}

static void send_signal(pthread_t thread)
{
	pthread_kill(thread, SIGUSR1);
}

static void wake_futex(pthread_t thread)
{
	futex_word = 1;
	syscall(SYS_futex, &futex_word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/*
 * tell: ends a call that has no timeout. again: when the call starts over with its whole time, and so ends later by
 * what it had slept already: never; from the second dump on, because the kernel does not show when a restarted call is
 * to end; or always, because the kernel does not show how long it has slept.
 */
enum again { NEVER, FROM_SECOND, ALWAYS };

static const struct call {
	const char *name;
	void (*call)(void);
	void (*tell)(pthread_t thread);
	long result;
	int error;
	enum again again;
} calls[] = {
	{ "nanosleep", in_nanosleep, NULL, 0, 0, FROM_SECOND },
	{ "clock_nanosleep", in_clock_nanosleep, NULL, 0, 0, FROM_SECOND },
	{ "clock_nanosleep_until", in_clock_nanosleep_until, NULL, 0, 0, NEVER },
	{ "poll", in_poll, NULL, 0, 0, NEVER },
	{ "ppoll", in_ppoll, NULL, 0, 0, NEVER },
	{ "select", in_select, NULL, 0, 0, NEVER },
	{ "pselect", in_pselect, NULL, 0, 0, NEVER },
	{ "epoll_wait", in_epoll, NULL, 0, 0, NEVER },
	{ "sigtimedwait", in_sigtimedwait, NULL, -1, EAGAIN, ALWAYS },
	{ "futex", in_futex, NULL, -1, ETIMEDOUT, FROM_SECOND },
	{ "read", in_read, write_byte, 1, 0, NEVER },
	{ "poll_forever", in_poll_forever, write_byte, 1, 0, NEVER },
	{ "epoll_wait_forever", in_epoll_forever, write_byte, 1, 0, NEVER },
	{ "futex_forever", in_futex_forever, wake_futex, 0, 0, NEVER },
	{ "wait4", in_wait4, end_child, 0, 0, NEVER },
	{ "waitid", in_waitid, end_child, 0, 0, NEVER },
	{ "pause", in_pause, send_signal, -1, EINTR, NEVER },
	{ "sigsuspend", in_sigsuspend, send_signal, -1, EINTR, NEVER },
};

static const struct call *chosen;

static void *sleeper(void *nothing)
{
	sleeper_tid = gettid();
	ready = 1;
	double start = live_now();
	chosen->call();
	took = live_now() - start;
	if (chosen->tell)
		live_check(told, "%s returned %ld (%s) before anything happened", chosen->name, result,
			   strerror(error));
	return NULL;
}

static void on_signal(int signo)
{
}

/* The sleeping thread blocks all signals, so that the main thread gets SIGTERM. */
static pthread_t start_sleeper(void)
{
	sigset_t all, old;
	pthread_t thread;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_create(&thread, NULL, sleeper, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	while (!ready)
		live_sleep(0.001);
	live_wait_asleep(sleeper_tid);
	return thread;
}

static void idle_until_term(void)
{
	signal(SIGTERM, live_stop_child);
	for (;;)
		pause();
}

static void set_up(const char *name)
{
	struct sigaction action = { .sa_handler = on_signal };

	chosen = live_choose(calls, name);
	sigaction(SIGUSR1, &action, NULL);
	live_check(pipe(empty_pipe) == 0, "pipe: %m");
	if (chosen->tell == end_child)
		child = live_fork(idle_until_term);
	if (strncmp(name, "epoll", 5) == 0) {
		epoll = epoll_create1(0);
		epoll_ctl(epoll, EPOLL_CTL_ADD, empty_pipe[0], &(struct epoll_event){ .events = EPOLLIN });
	}
}

int main(int argc, char **argv)
{
	double latest = SECONDS;

	live_begin(argc, argv);
	set_up(argv[2]);
	pthread_t thread = start_sleeper();
	double start = live_now();
	live_ready();
	live_wait_stop();
	told = 1;
	if (chosen->tell)
		chosen->tell(thread);
	pthread_join(thread, NULL);
	live_check(result == chosen->result && error == chosen->error,
		   "%s returned %ld (%s) after %.3f s, not %ld (%s)", chosen->name, result, strerror(error),
		   took, chosen->result, strerror(chosen->error));
	if (chosen->tell)
		return live_finish();
	latest += live_downtime() + TOLERANCE;
	if (chosen->again == ALWAYS || (chosen->again == FROM_SECOND && live_times_away() > 1))
		latest += live_now() - start;
	live_check(took >= SECONDS - 0.005, "%s returned early, after %.3f s", chosen->name, took);
	live_check(took <= latest, "%s took %.3f s, of which %.3f away", chosen->name, took, live_downtime());
	return live_finish();
}
