/*
 * signals.c - handlers, masks and pending signals: after the restore each signal arrives exactly once, with its value
 * and in order. Signals for one thread still arrive in that thread.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

#define SHARED	(SIGRTMIN + 1)
#define PRIVATE (SIGRTMIN + 2)
#define COUNT	10

struct kernel_action {
	unsigned long handler, flags, restorer, mask;
};

static struct kernel_action before[65];
static atomic_int prepared;

static void on_signal(int signo)
{
}

static void on_signal_with_facts(int signo, siginfo_t *facts, void *context)
{
}

static struct kernel_action action_of(int signo)
{
	struct kernel_action action = { 0 };

	syscall(SYS_rt_sigaction, signo, NULL, &action, 8);
	return action;
}

static void set_up_actions(void)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART | SA_ONSTACK };

	sigaction(SIGUSR1, &action, NULL);
	action.sa_flags = SA_NODEFER | SA_RESETHAND;
	sigaddset(&action.sa_mask, SIGHUP);
	sigaddset(&action.sa_mask, SIGRTMAX);
	sigaction(SIGUSR2, &action, NULL);
	action.sa_sigaction = on_signal_with_facts;
	action.sa_flags = SA_SIGINFO;
	sigaction(SHARED, &action, NULL);
	sigaction(PRIVATE, &action, NULL);
	signal(SIGHUP, SIG_IGN);
	signal(SIGRTMAX, SIG_IGN);
	action.sa_flags = SA_NOCLDWAIT | SA_NOCLDSTOP;
	action.sa_handler = SIG_DFL;
	sigaction(SIGCHLD, &action, NULL);
}

/* Called after the first thread was created, because libc then installs handlers of its own. */
static void remember_actions(void)
{
	for (int signo = 1; signo <= 64; signo++)
		before[signo] = action_of(signo);
}

static void verify_actions(void)
{
	for (int signo = 1; signo <= 64; signo++) {
		struct kernel_action now = action_of(signo);
		live_check(memcmp(&now, &before[signo], sizeof(now)) == 0,
			   "signal %d: handler %lx flags %lx mask %lx, was %lx %lx %lx", signo, now.handler,
			   now.flags, now.mask, before[signo].handler, before[signo].flags,
			   before[signo].mask);
	}
}

static void block(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SHARED);
	sigaddset(set, PRIVATE);
	sigaddset(set, SIGUSR1);
	sigaddset(set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, set, NULL);
}

static void send_to_thread(pid_t tid, int value)
{
	siginfo_t facts = { .si_signo = PRIVATE, .si_code = SI_QUEUE };

	facts.si_pid = getpid();
	facts.si_uid = getuid();
	facts.si_value.sival_int = value;
	live_check(syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, PRIVATE, &facts) == 0,
		   "rt_tgsigqueueinfo: %m");
}

static siginfo_t next(int signo)
{
	struct timespec now = { 0 };
	siginfo_t facts = { 0 };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signo);
	if (sigtimedwait(&set, &facts, &now) < 0)
		facts.si_signo = 0;
	return facts;
}

static void verify_queue(int signo, int first)
{
	for (int i = 0; i < COUNT; i++) {
		siginfo_t facts = next(signo);
		live_check(facts.si_signo == signo, "signal %d, number %d of %d did not arrive", signo, i,
			   COUNT);
		live_check(facts.si_value.sival_int == first + i, "signal %d, number %d carries %d, not %d",
			   signo, i, facts.si_value.sival_int, first + i);
		live_check(facts.si_code == SI_QUEUE && facts.si_pid == getpid() && facts.si_uid == getuid(),
			   "signal %d: code %d from process %d of user %d", signo, facts.si_code,
			   facts.si_pid, facts.si_uid);
	}
	live_check(next(signo).si_signo == 0, "signal %d arrived too often", signo);
}

static void *own_signals(void *stop)
{
	sigset_t set;

	block(&set);
	for (int i = 0; i < COUNT; i++)
		send_to_thread(gettid(), 1000 + i);
	prepared = 1;
	while (!*(atomic_int *)stop)
		live_sleep(0.002);
	verify_queue(PRIVATE, 1000);
	return NULL;
}

static void queue_signals(void)
{
	for (int i = 0; i < COUNT; i++) {
		live_check(sigqueue(getpid(), SHARED, (union sigval){ .sival_int = i }) == 0, "sigqueue: %m");
		send_to_thread(gettid(), 100 + i);
	}
	kill(getpid(), SIGUSR1);
	kill(getpid(), SIGUSR1); /* the second is merged with the first */
	syscall(SYS_tgkill, getpid(), gettid(), SIGUSR2);
}

static void verify_plain(int signo, int code)
{
	siginfo_t facts = next(signo);

	live_check(facts.si_signo == signo && facts.si_code == code && facts.si_pid == getpid(),
		   "signal %d: got %d, code %d from %d", signo, facts.si_signo, facts.si_code, facts.si_pid);
	live_check(next(signo).si_signo == 0, "signal %d arrived twice", signo);
}

/* The si_code of a signal that tgkill() sent; it is not the same on every kernel, so the program tries it. */
static int code_of_tgkill(void)
{
	syscall(SYS_tgkill, getpid(), gettid(), SIGUSR2);
	return next(SIGUSR2).si_code;
}

static void verify_no_zombies(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	pid_t waited;
	do
		waited = waitpid(pid, NULL, 0);
	while (waited < 0 && errno == EINTR);
	live_check(waited == -1 && errno == ECHILD, "SA_NOCLDWAIT: waitpid returned %d (%m)", waited);
}

int main(int argc, char **argv)
{
	static atomic_int stop;
	pthread_t thread;
	sigset_t set, now;

	live_begin(argc, argv);
	set_up_actions();
	block(&set);
	int tgkill_code = code_of_tgkill();
	queue_signals();
	pthread_create(&thread, NULL, own_signals, &stop);
	while (!prepared)
		live_sleep(0.001);
	remember_actions();
	live_ready();
	while (!live_stopping()) {
		verify_actions();
		live_sleep(0.002);
	}
	verify_actions();
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	live_check(memcmp(&set, &now, 8) == 0, "the signal mask changed");
	verify_queue(SHARED, 0);
	verify_queue(PRIVATE, 100);
	verify_plain(SIGUSR1, SI_USER);
	verify_plain(SIGUSR2, tgkill_code);
	stop = 1;
	pthread_join(thread, NULL);
	verify_no_zombies();
	return live_finish();
}
