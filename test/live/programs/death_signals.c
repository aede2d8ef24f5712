/*
 * death_signals.c - signals for the death of the parent (PR_SET_PDEATHSIG): they arrive when it dies, and not before.
 *
 * usage: death_signals DIRECTORY leader|threads|user|child|kill
 *
 * leader: the root wants a signal; threads: its second and third threads want different ones; user: the root wants one
 * and has become another user before; child: its child wants one; kill: the root wants SIGKILL. The harness creates the
 * file `orphaned` in DIRECTORY before it kills the parent.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

static atomic_int heard;

static void hear(int signo)
{
	heard |= 1 << signo;
}

static void want(int signo)
{
	live_check(prctl(PR_SET_PDEATHSIG, signo) == 0, "PR_SET_PDEATHSIG: %m");
}

static void check_wanted(int wanted)
{
	int signo = 0;

	prctl(PR_GET_PDEATHSIG, &signo);
	live_check(signo == wanted, "thread %d wants signal %d when its parent dies, not %d", gettid(), signo,
		   wanted);
}

static void *want_in_thread(void *number)
{
	int wanted = (int)(long)number;

	want(wanted);
	for (;;) {
		check_wanted(wanted);
		live_sleep(0.01);
	}
	return NULL;
}

static void begin_threads(void)
{
	pthread_t thread;

	for (long i = 0; i < 2; i++)
		live_check(pthread_create(&thread, NULL, want_in_thread,
					  (void *)(long)(i ? SIGUSR2 : SIGUSR1)) == 0,
			   "no thread");
	live_sleep(0.05);
}

static void begin_leader(void)
{
	want(SIGUSR1);
}

static void begin_kill(void)
{
	want(SIGKILL);
}

static void begin_user(void)
{
	live_check(chmod(live_directory, 0777) == 0, "chmod: %m");
	live_check(setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0,
		   "setresuid: %m");
	want(SIGUSR1);
}

/* ---- a child, whose parent is in the tree ---- */

static pid_t child;
static int told[2];

static void wait_as_child(void)
{
	want(SIGUSR1);
	while (!heard) {
		check_wanted(SIGUSR1);
		live_check(getppid() != 1, "the parent is dead, but no signal arrived");
		live_sleep(0.01);
	}
	live_check(write(told[1], "", 1) == 1, "write: %m");
}

static void be_parent(void)
{
	live_fork(wait_as_child);
	for (;;)
		pause();
}

static void begin_child(void)
{
	live_check(pipe(told) == 0, "pipe: %m");
	child = live_fork(be_parent);
	live_sleep(0.05);
}

static void end_child(void)
{
	char byte;

	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	kill(child, SIGKILL);
	live_check(waitpid(child, NULL, 0) == child, "waitpid: %m");
	live_check(read(told[0], &byte, 1) == 1, "no signal reached the child");
	live_check(wait(NULL) > 0, "wait: %m");
}

static void end_nothing(void)
{
}

static const struct {
	const char *name;
	int wanted, by_leader; /* signals, as bits; that of the leader */
	void (*begin)(void), (*end)(void);
} kinds[] = {
	{ "leader", 1 << SIGUSR1, SIGUSR1, begin_leader, end_nothing },
	{ "threads", 1 << SIGUSR1 | 1 << SIGUSR2, 0, begin_threads, end_nothing },
	{ "user", 1 << SIGUSR1, SIGUSR1, begin_user, end_nothing },
	{ "child", 0, 0, begin_child, end_child },
	{ "kill", 0, SIGKILL, begin_kill, end_nothing },
};

static bool is_orphaned(void)
{
	char path[4096];

	live_path(path, sizeof(path), "orphaned");
	return access(path, F_OK) == 0;
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	__auto_type kind = live_choose(kinds, argv[2]);
	signal(SIGUSR1, hear);
	signal(SIGUSR2, hear);
	kind->begin();
	live_ready();
	while (!live_stopping()) {
		check_wanted(kind->by_leader);
		live_check(!heard || is_orphaned(), "signals %x arrived although the parent lives", heard);
		live_sleep(0.01);
	}
	live_check(!is_orphaned() || heard == kind->wanted, "the parent is dead: signals %x arrived, not %x",
		   heard, kind->wanted);
	kind->end();
	return live_finish();
}
