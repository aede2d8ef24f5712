/*
 * threads.c - threads with state of their own: thread-local memory, a name, a signal mask, an alternate signal stack, a
 * scheduling policy, a nice value, a robust mutex.
 *
 * usage: threads DIRECTORY COUNT [plain|each]: "plain" leaves all of that out (for very many threads); "each" adds
 * CPUs, timer slack, priority of input and output, personality.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "live.h"

#define MOST 256

static __thread long local[64];

struct worker {
	int number;
	pthread_t self;
	pid_t tid;
	pthread_mutex_t robust;
	void *signal_stack, *robust_list;
	int policy, nice;
	atomic_ulong rounds;
};

static struct worker workers[MOST];
static int count;
static bool plain, each;
static atomic_int prepared;

static void name_of(const struct worker *worker, char *name, size_t size)
{
	snprintf(name, size, "thread %d", worker->number);
}

static sigset_t mask_of(const struct worker *worker)
{
	sigset_t mask;

	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGRTMIN + worker->number % 16);
	sigaddset(&mask, SIGUSR1);
	return mask;
}

static void *robust_list(void)
{
	void *head = NULL;
	size_t length;

	syscall(SYS_get_robust_list, 0, &head, &length);
	return head;
}

static void set_up_policy(struct worker *worker)
{
	static const int policies[] = { SCHED_OTHER, SCHED_BATCH, SCHED_IDLE, SCHED_RR };
	struct sched_param parameters = { 0 };

	worker->policy = policies[worker->number % 4];
	if (worker->policy == SCHED_RR)
		parameters.sched_priority = 3;
	if (sched_setscheduler(0, worker->policy, &parameters) < 0)
		worker->policy = SCHED_OTHER; /* not every container allows real-time scheduling */
	worker->nice = worker->number % 5;
	setpriority(PRIO_PROCESS, 0, worker->nice);
}

/* Different for neighbouring threads. The format of other versions of criu has no fields for these. */
static void set_up_place(const struct worker *worker)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(worker->number % sysconf(_SC_NPROCESSORS_ONLN), &cpus);
	live_check(sched_setaffinity(0, sizeof(cpus), &cpus) == 0, "sched_setaffinity: %m");
	prctl(PR_SET_TIMERSLACK, 60000 + worker->number);
	live_check(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | worker->number % 8) == 0, "ioprio_set: %m");
	personality(worker->number % 2 ? ADDR_NO_RANDOMIZE : 0);
}

static void verify_place(const struct worker *worker)
{
	long count = sysconf(_SC_NPROCESSORS_ONLN), slack = prctl(PR_GET_TIMERSLACK);
	long io_priority = syscall(SYS_ioprio_get, 1, 0);
	int now = personality(0xffffffff);
	cpu_set_t cpus;

	sched_getaffinity(0, sizeof(cpus), &cpus);
	live_check(CPU_COUNT(&cpus) == 1 && CPU_ISSET(worker->number % count, &cpus), "thread %d: on %d CPUs",
		   worker->number, CPU_COUNT(&cpus));
	live_check(slack == (worker->policy == SCHED_RR ? 0 : 60000 + worker->number),
		   "thread %d: timer slack %ld", worker->number, slack);
	live_check(io_priority == (2 << 13 | worker->number % 8),
		   "thread %d: priority of input and output %lx", worker->number, io_priority);
	live_check(now == (worker->number % 2 ? ADDR_NO_RANDOMIZE : 0), "thread %d: personality %x",
		   worker->number, now);
}

static void set_up(struct worker *worker)
{
	stack_t stack = { .ss_size = 64 << 10 };
	pthread_mutexattr_t attributes;
	sigset_t mask = mask_of(worker);
	char name[16];

	name_of(worker, name, sizeof(name));
	prctl(PR_SET_NAME, name);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
	stack.ss_sp = worker->signal_stack = malloc(stack.ss_size);
	live_check(sigaltstack(&stack, NULL) == 0, "sigaltstack: %m");
	if (each)
		set_up_place(worker);
	set_up_policy(worker);
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&worker->robust, &attributes);
	pthread_mutex_lock(&worker->robust);
	worker->robust_list = robust_list();
}

static void verify_scheduling(const struct worker *worker)
{
	struct sched_param parameters;

	sched_getparam(0, &parameters);
	live_check(sched_getscheduler(0) == worker->policy, "thread %d: policy %d, not %d", worker->number,
		   sched_getscheduler(0), worker->policy);
	live_check(parameters.sched_priority == (worker->policy == SCHED_RR ? 3 : 0),
		   "thread %d: priority %d", worker->number, parameters.sched_priority);
	live_check(getpriority(PRIO_PROCESS, 0) == worker->nice, "thread %d: nice value %d, not %d",
		   worker->number, getpriority(PRIO_PROCESS, 0), worker->nice);
}

static void verify_attributes(const struct worker *worker)
{
	sigset_t expected = mask_of(worker), mask;
	char name[16], expected_name[16];
	stack_t stack;

	name_of(worker, expected_name, sizeof(expected_name));
	prctl(PR_GET_NAME, name);
	live_check(strcmp(name, expected_name) == 0, "thread %d is named %s", worker->number, name);
	pthread_sigmask(SIG_BLOCK, NULL, &mask);
	for (int signo = 1; signo <= SIGRTMAX; signo++)
		live_check(sigismember(&mask, signo) == sigismember(&expected, signo),
			   "thread %d: mask of signal %d", worker->number, signo);
	sigaltstack(NULL, &stack);
	live_check(stack.ss_sp == worker->signal_stack && stack.ss_size == 64 << 10 && stack.ss_flags == 0,
		   "thread %d: signal stack at %p, size %zu", worker->number, stack.ss_sp, stack.ss_size);
	live_check(robust_list() == worker->robust_list, "thread %d: robust list at %p", worker->number,
		   robust_list());
	verify_scheduling(worker);
	if (each)
		verify_place(worker);
}

static void verify(const struct worker *worker)
{
	live_check(gettid() == worker->tid, "thread %d has id %d, not %d", worker->number, gettid(),
		   worker->tid);
	live_check(pthread_equal(pthread_self(), worker->self), "thread %d: pthread_self() has changed",
		   worker->number);
	live_compare(local, sizeof(local), worker->number, "thread-local memory");
	if (!plain)
		verify_attributes(worker);
}

/* Ends with its robust mutex locked, which the kernel must find through the list and mark. */
static void *work(void *argument)
{
	struct worker *worker = argument;

	worker->tid = gettid();
	worker->self = pthread_self();
	live_fill(local, sizeof(local), worker->number);
	if (!plain)
		set_up(worker);
	prepared++;
	while (!live_stopping()) {
		verify(worker);
		worker->rounds++;
		live_sleep(plain ? 0.02 : 0.002);
	}
	verify(worker);
	return worker;
}

static void verify_end(struct worker *worker, pthread_t thread)
{
	void *result;

	pthread_join(thread, &result);
	live_check(result == worker, "thread %d: wrong result", worker->number);
	if (plain)
		return;
	int error = pthread_mutex_lock(&worker->robust);
	live_check(error == EOWNERDEAD, "thread %d: its robust mutex answers %s", worker->number,
		   strerror(error));
}

int main(int argc, char **argv)
{
	pthread_t threads[MOST];

	live_begin(argc, argv);
	count = atoi(argv[2]);
	live_check(count <= MOST, "at most %d threads", MOST);
	plain = argc > 3 && strcmp(argv[3], "plain") == 0;
	each = argc > 3 && !plain;
	for (int i = 0; i < count; i++) {
		workers[i].number = i;
		live_check(pthread_create(&threads[i], NULL, work, &workers[i]) == 0, "pthread_create: %m");
	}
	while (prepared < count)
		live_sleep(0.001);
	live_ready();
	live_wait_stop();
	for (int i = 0; i < count; i++) {
		verify_end(&workers[i], threads[i]);
		live_check(workers[i].rounds > 1, "thread %d did not work", i);
	}
	return live_finish();
}
