/*
 * dying.c - the kernel writes to a task's memory when the task ends: marks on robust mutexes, a zero at
 * clear_child_tid. Here that memory is a file that lives on. When a dump ends the task, nothing of this may be
 * written.
 *
 * usage: dying DIRECTORY mutex|inheriting|unlocking|clear_tid|child_clear_tid [FILE]
 *
 * FILE, or `shared` in DIRECTORY, is mapped by all tasks. Its bytes must stay what they were.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "live.h"

#define SIZE	4096
#define THREADS 4

struct shared {
	pthread_mutex_t by_thread, by_child; /* held, and waited for */
	atomic_int words[THREADS + 1];
};

static struct shared *shared;
static char expected[SIZE], path[4096];
static atomic_bool lets_go, has_got[2];
static atomic_int begun;

static void map_file(const char *name)
{
	int fd;

	if (name)
		strcpy(path, name);
	else
		live_path(path, sizeof(path), "shared");
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	live_check(fd >= 0 && ftruncate(fd, SIZE) == 0, "%s: %m", path);
	shared = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	live_check(shared != MAP_FAILED, "mmap: %m");
	close(fd);
}

static void compare(void)
{
	live_check(!memcmp(shared, expected, sizeof(*shared)),
		   "the file has changed: futexes %x, %x; words %x, %x, %x, %x",
		   shared->by_thread.__data.__lock, shared->by_child.__data.__lock, shared->words[0],
		   shared->words[1], shared->words[2], shared->words[3]);
}

static void run(void *(*function)(void *), void *argument)
{
	pthread_t thread;

	live_check(pthread_create(&thread, NULL, function, argument) == 0, "no thread");
}

static void wait_until(atomic_int *number, int wanted)
{
	while (*number < wanted)
		live_sleep(0.001);
}

/* ---- mutexes that are held, and waited for ---- */

static void make_mutex(pthread_mutex_t *mutex, int protocol)
{
	pthread_mutexattr_t attributes;

	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutexattr_setprotocol(&attributes, protocol);
	live_check(pthread_mutex_init(mutex, &attributes) == 0, "no mutex");
}

static void *hold(void *mutex)
{
	live_check(pthread_mutex_lock(mutex) == 0, "cannot lock");
	begun++;
	while (!lets_go)
		live_sleep(0.01);
	live_check(pthread_mutex_unlock(mutex) == 0, "cannot unlock");
	return NULL;
}

static void *await(void *mutex)
{
	int result = pthread_mutex_lock(mutex);

	live_check(result != EOWNERDEAD, "the owner of a mutex is dead");
	live_check(!result, "waiting for the mutex failed with error %d", result);
	live_check(lets_go, "got a mutex that another thread holds");
	has_got[mutex == &shared->by_child] = true;
	return NULL;
}

static void hold_in_child(void)
{
	live_check(pthread_mutex_lock(&shared->by_child) == 0, "cannot lock");
	shared->words[THREADS] = 1;
	live_wait_stop();
	live_check(pthread_mutex_unlock(&shared->by_child) == 0, "cannot unlock");
}

static pid_t child;

/* In the C libraries of Linux a mutex begins with the word of its futex, which tells whether a thread waits. */
static void wait_for_waiter(pthread_mutex_t *mutex)
{
	while (!(*(atomic_uint *)mutex & FUTEX_WAITERS))
		live_sleep(0.001);
}

static void begin_mutexes(int protocol)
{
	make_mutex(&shared->by_thread, protocol);
	make_mutex(&shared->by_child, protocol);
	child = live_fork(hold_in_child);
	wait_until(&shared->words[THREADS], 1);
	run(hold, &shared->by_thread);
	wait_until(&begun, 1);
	run(await, &shared->by_thread);
	run(await, &shared->by_child);
	wait_for_waiter(&shared->by_thread);
	wait_for_waiter(&shared->by_child);
}

static void begin_mutex(void)
{
	begin_mutexes(PTHREAD_PRIO_NONE);
}

static void begin_inheriting(void)
{
	begin_mutexes(PTHREAD_PRIO_INHERIT);
}

static void end_mutexes(void)
{
	lets_go = true;
	live_join(child);
	live_await(has_got[0] && has_got[1], "the waiting thread did not get the mutex");
}

/* ---- a robust list made by hand, in the state right before a mutex is added or removed ---- */

static struct {
	struct robust_list_head head;
	struct robust_list entry;
} lists[THREADS];

/* The kernel looks at the futex of the pending operation, wherever that is, and at those in the list. */
static void *be_unlocking(void *argument)
{
	int number = (int)(long)argument;
	struct robust_list_head *head = &lists[number].head;

	head->list.next = &head->list;
	head->list_op_pending = &lists[number].entry;
	head->futex_offset = (char *)&shared->words[number] - (char *)&lists[number].entry;
	shared->words[number] = gettid();
	live_check(syscall(SYS_set_robust_list, head, sizeof(*head)) == 0, "set_robust_list: %m");
	begun++;
	for (;;)
		pause();
}

static void begin_unlocking(void)
{
	for (long i = 0; i < THREADS; i++)
		run(be_unlocking, (void *)i);
	wait_until(&begun, THREADS);
}

/* After a dump a thread gets its list back before it does anything else, but other threads may run before it does. */
static bool has_list(int number)
{
	struct robust_list_head *head = NULL;
	size_t length;

	for (int tries = 0; tries < 500 && head != &lists[number].head; tries++) {
		if (tries)
			live_sleep(0.002);
		live_check(syscall(SYS_get_robust_list, shared->words[number], &head, &length) == 0,
			   "get_robust_list: %m");
	}
	return head == &lists[number].head;
}

static void check_lists(void)
{
	for (int i = 0; i < THREADS; i++)
		live_check(has_list(i), "thread %d has lost its list", shared->words[i]);
}

/* ---- clear_child_tid ---- */

static void check_address(const atomic_int *word)
{
	atomic_int *address;

	live_check(prctl(PR_GET_TID_ADDRESS, &address) == 0 && address == word,
		   "clear_child_tid is %p, not %p", (void *)address, (void *)word);
}

static void *have_cleared(void *argument)
{
	atomic_int *word = &shared->words[(long)argument];

	*word = gettid();
	syscall(SYS_set_tid_address, word);
	begun++;
	for (;;) {
		check_address(word);
		live_sleep(0.01);
	}
	return NULL;
}

static void begin_clear_tid(void)
{
	for (long i = 0; i < THREADS; i++)
		run(have_cleared, (void *)i);
	wait_until(&begun, THREADS);
}

static void *wait_for_ever(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static void be_cleared(void)
{
	run(wait_for_ever, NULL); /* the kernel clears the word only if another task still has the memory */
	shared->words[1] = 1;
	while (!live_stopping()) {
		check_address(&shared->words[0]);
		live_sleep(0.01);
	}
}

/* A process that has the address from its creation on, as glibc's fork() does it, but with the word in the file. */
static void begin_child_clear_tid(void)
{
	child = syscall(SYS_clone, CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD, NULL, NULL,
			&shared->words[0], NULL);
	live_check(child >= 0, "clone: %m");
	if (!child) {
		be_cleared();
		_exit(0);
	}
	wait_until(&shared->words[1], 1);
}

static void end_child_clear_tid(void)
{
	live_join(child);
}

static void end_nothing(void)
{
}

static const struct {
	const char *name;
	void (*begin)(void), (*verify)(void), (*end)(void);
} kinds[] = {
	{ "mutex", begin_mutex, end_nothing, end_mutexes },
	{ "inheriting", begin_inheriting, end_nothing, end_mutexes },
	{ "unlocking", begin_unlocking, check_lists, end_nothing },
	{ "clear_tid", begin_clear_tid, end_nothing, end_nothing },
	{ "child_clear_tid", begin_child_clear_tid, end_nothing, end_child_clear_tid },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	__auto_type kind = live_choose(kinds, argv[2]);
	map_file(argc > 3 ? argv[3] : NULL);
	kind->begin();
	memcpy(expected, shared, SIZE);
	live_ready();
	while (!live_stopping()) {
		compare();
		kind->verify();
		live_sleep(0.01);
	}
	compare();
	kind->end();
	unlink(path);
	return live_finish();
}
