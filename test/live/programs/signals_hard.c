/*
 * signals_hard.c - signals that are hard to restore: many more are pending than the limit now allows, for the process
 * and for a thread. Threads are dumped in a handler on their alternate stack; one has disabled that stack meanwhile.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "live.h"

#define SHARED	(SIGRTMIN + 1)
#define PRIVATE (SIGRTMIN + 2)
#define ENTER	(SIGRTMIN + 3)
#define COUNT	500

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1U << 31)
#endif

static atomic_int prepared, stop;

struct worker {
	unsigned flags; /* of its alternate stack */
	char *stack;
	bool returned;
};

static __thread struct worker *self;

static bool is_on(const struct worker *worker, const void *address)
{
	return (const char *)address >= worker->stack && (const char *)address < worker->stack + (64 << 10);
}

static void verify_stack(bool is_inside)
{
	stack_t now;
	bool is_gone = is_inside && self->flags & SS_AUTODISARM;

	sigaltstack(NULL, &now);
	live_check(is_on(self, &now) == is_inside, "the thread runs on the wrong stack");
	if (is_gone)
		live_check(now.ss_flags == (int)SS_DISABLE ||
				   now.ss_flags == (int)(SS_DISABLE | SS_AUTODISARM),
			   "the disabled stack: flags %x", now.ss_flags);
	else
		live_check(now.ss_sp == self->stack && now.ss_size == 64 << 10 &&
				   (unsigned)now.ss_flags == (self->flags | (is_inside ? SS_ONSTACK : 0)),
			   "the stack is at %p, size %zu, flags %x", now.ss_sp, now.ss_size, now.ss_flags);
}

static void on_enter(int signo)
{
	verify_stack(true);
	prepared++;
	while (!stop) {
		verify_stack(true);
		live_sleep(0.002);
	}
	self->returned = true;
}

static void *in_handler(void *argument)
{
	stack_t stack = { .ss_size = 64 << 10 };

	self = argument;
	stack.ss_sp = self->stack = malloc(stack.ss_size);
	stack.ss_flags = self->flags;
	live_check(sigaltstack(&stack, NULL) == 0, "sigaltstack: %m");
	syscall(SYS_tgkill, getpid(), gettid(), ENTER);
	live_check(self->returned, "the handler did not return");
	verify_stack(false);
	return NULL;
}

static void send_many(pid_t tid, int signo)
{
	siginfo_t facts = { .si_signo = signo, .si_code = SI_QUEUE };

	for (int i = 0; i < COUNT; i++) {
		facts.si_value.sival_int = i;
		long result = tid ? syscall(SYS_rt_tgsigqueueinfo, getpid(), tid, signo, &facts) :
				    syscall(SYS_rt_sigqueueinfo, getpid(), signo, &facts);
		live_check(result == 0, "signal %d of %d: %m", i, COUNT);
	}
}

static void take_many(int signo)
{
	struct timespec now = { 0 };
	siginfo_t facts;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signo);
	for (int i = 0; i < COUNT; i++) {
		live_check(sigtimedwait(&set, &facts, &now) == signo, "signal %d of %d is lost: %m", i,
			   COUNT);
		live_check(facts.si_value.sival_int == i, "signal %d arrived, not %d",
			   facts.si_value.sival_int, i);
	}
	live_check(sigtimedwait(&set, &facts, &now) < 0, "too many signals are pending");
}

static void *with_signals(void *nothing)
{
	send_many(gettid(), PRIVATE);
	prepared++;
	while (!stop)
		live_sleep(0.002);
	take_many(PRIVATE);
	return NULL;
}

int main(int argc, char **argv)
{
	struct worker workers[] = { { .flags = 0 }, { .flags = SS_AUTODISARM } };
	struct sigaction action = { .sa_handler = on_enter, .sa_flags = SA_ONSTACK };
	struct rlimit limit = { 10, 20 }, now;
	pthread_t threads[3];
	sigset_t set;

	live_begin(argc, argv);
	sigaction(ENTER, &action, NULL);
	sigemptyset(&set);
	sigaddset(&set, SHARED);
	sigaddset(&set, PRIVATE);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	send_many(0, SHARED);
	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, in_handler, &workers[i]);
	pthread_create(&threads[2], NULL, with_signals, NULL);
	while (prepared < 3)
		live_sleep(0.001);
	setrlimit(RLIMIT_SIGPENDING, &limit);
	live_ready();
	live_wait_stop();
	getrlimit(RLIMIT_SIGPENDING, &now);
	live_check(now.rlim_cur == 10 && now.rlim_max == 20, "the limit is %lu, at most %lu", now.rlim_cur,
		   now.rlim_max);
	take_many(SHARED);
	stop = 1;
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	return live_finish();
}
