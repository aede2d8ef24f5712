/*
 * semaphores.c - System V semaphores (semop(2)) exist outside of the process. The kernel undoes some of its operations
 * (SEM_UNDO) when it ends.
 *
 * usage: semaphores DIRECTORY held|given|thread|own_list|high|many|child|returned|idle|foreign
 *
 * In the first seven there is something to undo. returned: no longer; idle: nothing, but the threads share an empty
 * undo list; foreign: a process outside of the tree has something to undo.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/sem.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

#define MANY 200

static int set;
static atomic_int begun;
static unsigned short values[MANY], expected[MANY];

static void change(int semaphore, int by)
{
	struct sembuf operation = { (unsigned short)semaphore, (short)by, SEM_UNDO };

	live_check(semop(set, &operation, 1) == 0, "semop: %m");
}

static void *wait_for_ever(void *unused)
{
	begun++;
	for (;;)
		pause();
	return unused;
}

static void *hold_in_thread(void *unused)
{
	change(0, -1);
	return wait_for_ever(unused);
}

static void *hold_alone(void *unused)
{
	live_check(unshare(CLONE_SYSVSEM) == 0, "unshare: %m");
	return hold_in_thread(unused);
}

static void run(void *(*function)(void *))
{
	pthread_t thread;

	live_check(pthread_create(&thread, NULL, function, NULL) == 0, "no thread");
	while (!begun)
		live_sleep(0.001);
}

static void begin_held(void)
{
	change(0, -1);
}

static void begin_given(void)
{
	change(1, 3);
}

static void begin_thread(void)
{
	run(hold_in_thread);
}

static void begin_own_list(void)
{
	run(hold_alone);
}

static void begin_high(void)
{
	live_check(semctl(set, 2, SETVAL, 32767) == 0, "semctl: %m");
	change(2, -1);
}

static void begin_many(void)
{
	change(150, -1);
}

static pid_t child;

static void hold_in_child(void)
{
	change(0, -1);
	live_wait_stop();
}

static void begin_child(void)
{
	child = live_fork(hold_in_child);
	while (semctl(set, 0, GETVAL) != 4)
		live_sleep(0.001);
}

static void begin_returned(void)
{
	run(wait_for_ever);
	change(0, -1);
	change(0, 1);
}

static void begin_idle(void)
{
	run(wait_for_ever);
	live_check(semctl(set, 2, SETVAL, 32767) == 0, "semctl: %m");
}

/* Its parent ends, so it does not belong to the tree. */
static void begin_foreign(void)
{
	run(wait_for_ever);
	for (int i = 0; i < 3; i++) /* values close to the maximum */
		semctl(set, 2 + i, SETVAL, (int[]){ 32767, 16384, 16383 }[i]);
	child = fork();
	if (!child) {
		child = fork();
		if (child)
			_exit(0);
		setsid();
		change(0, -1);
		while (semctl(set, 0, GETVAL) >= 0)
			live_sleep(0.02);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	child = 0;
	while (semctl(set, 0, GETVAL) != 4)
		live_sleep(0.001);
	/* A set that the other process has changed last is refused. */
	struct sembuf nothing[] = { { 0, 1, 0 }, { 0, -1, 0 } };
	live_check(semop(set, nothing, 2) == 0, "semop: %m");
}

static const struct {
	const char *name;
	void (*begin)(void);
} kinds[] = {
	{ "held", begin_held },		{ "given", begin_given },	{ "thread", begin_thread },
	{ "own_list", begin_own_list }, { "high", begin_high },		{ "many", begin_many },
	{ "child", begin_child },	{ "returned", begin_returned }, { "idle", begin_idle },
	{ "foreign", begin_foreign },
};

/*
 * Checks which process has changed each semaphore last: a dump must not change any. It must not even try a set that was
 * never changed, because the kernel would set that set's time of last change (sem_otime) when the task ends.
 */
static void check_history(void)
{
	static int pids[MANY];
	static bool is_known, was_changed;
	struct semid_ds facts;

	semctl(set, 0, IPC_STAT, &facts);
	live_check(!is_known || was_changed || !facts.sem_otime, "the set was changed");
	was_changed = facts.sem_otime;
	for (int i = 0; i < MANY; i++) {
		int pid = semctl(set, i, GETPID);

		live_check(!is_known || pid == pids[i], "semaphore %d was changed by process %d", i, pid);
		pids[i] = pid;
	}
	is_known = true;
}

static void verify(void)
{
	check_history();
	live_check(semctl(set, 0, GETALL, values) == 0, "semctl: %m");
	for (int i = 0; i < MANY; i++)
		live_check(values[i] == expected[i], "semaphore %d is %u, not %u", i, values[i], expected[i]);
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	__auto_type kind = live_choose(kinds, argv[2]);
	set = semget(IPC_PRIVATE, MANY, 0600);
	live_check(set >= 0, "semget: %m");
	for (int i = 0; i < MANY; i++)
		semctl(set, i, SETVAL, 5);
	kind->begin();
	semctl(set, 0, GETALL, expected);
	check_history();
	live_ready();
	while (!live_stopping()) {
		verify();
		live_sleep(0.01);
	}
	verify();
	semctl(set, 0, IPC_RMID);
	if (child)
		live_join(child);
	return live_finish();
}
