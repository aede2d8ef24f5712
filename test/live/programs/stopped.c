/*
 * stopped.c - a stopped child is still stopped after the restore, by the same signal, and goes on after SIGCONT. Its
 * parent is not notified of the restore.
 *
 * usage: stopped DIRECTORY [SIGNAL [HOW]]
 *
 * HOW: blocked    it blocks SIGNAL, and waits in sigsuspend() for it and for another signal
 *      threads    only one of its threads does not block SIGNAL
 *      waiting    another signal, for which it has a handler, arrived meanwhile
 *      reported   its parent has waited for the stop (WUNTRACED)
 *      orphaned   its group is orphaned now, so only SIGSTOP could stop it
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

static struct {
	atomic_ulong counter, heard;
	atomic_int child;
	atomic_bool stands;
} * shared;
static atomic_int told; /* SIGCHLD */
static int stop_signal = SIGSTOP;
static const char *how = "";

static bool is(const char *which)
{
	return strcmp(how, which) == 0;
}

static void block(int action)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, stop_signal);
	if (is("blocked"))
		sigaddset(&set, SIGUSR1); /* it must arrive only in sigsuspend() */
	pthread_sigmask(action, &set, NULL);
}

static void *count_in_thread(void *argument)
{
	if (argument)
		block(SIG_UNBLOCK);
	while (!live_stopping()) {
		++shared->counter;
		live_sleep(0.001);
	}
	return NULL;
}

static void note_signal(int signo)
{
	shared->heard++;
}

static void count(void)
{
	pthread_t threads[3];
	sigset_t none;

	live_check(setpgid(0, 0) == 0, "setpgid: %m");
	signal(SIGUSR1, note_signal);
	if (is("blocked") || is("threads"))
		block(SIG_BLOCK);
	for (long i = 0; is("threads") && i < 3; i++)
		pthread_create(&threads[i], NULL, count_in_thread, (void *)(long)(i == 1));
	shared->stands = true;
	sigemptyset(&none);
	if (is("blocked"))
		sigsuspend(&none); /* SIGUSR1 ends it */
	count_in_thread(NULL);
	for (int i = 0; is("threads") && i < 3; i++)
		pthread_join(threads[i], NULL);
}

static void await(atomic_bool *flag)
{
	while (!*flag)
		live_sleep(0.001);
}

/* The signal that has stopped the child, as waitid() reports it; 0 if it reports nothing. */
static int reported(pid_t child, int options)
{
	siginfo_t info = { 0 };

	live_check(waitid(P_PID, child, &info, WSTOPPED | WNOWAIT | options) == 0, "waitid: %m");
	live_check(!info.si_pid || info.si_code == CLD_STOPPED, "the child is not stopped, but %d",
		   info.si_code);
	return info.si_status;
}

static pid_t stop_child(void)
{
	pid_t child = live_fork(count);
	int status;

	shared->child = child;
	await(&shared->stands);
	live_wait_asleep(child);
	kill(child, stop_signal);
	live_check(reported(child, 0) == stop_signal, "the child did not stop");
	if (is("waiting"))
		kill(child, SIGUSR1);
	if (is("reported"))
		live_check(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status), "waitpid: %m");
	return child;
}

static void check(pid_t child, unsigned long counted)
{
	int expected = is("reported") ? 0 : stop_signal, found = reported(child, WNOHANG);

	if (is("orphaned") && found == SIGSTOP)
		expected = SIGSTOP;
	live_check(shared->counter == counted, "the stopped child counted from %lu to %lu", counted,
		   shared->counter);
	live_check(found == expected, "the child is stopped by signal %d, and not %d", found, expected);
	live_check(told == 1, "the parent was notified %d times", told);
	live_check(!shared->heard, "the child handled a signal while it was stopped");
}

static void let_child_go(pid_t child, unsigned long counted)
{
	kill(child, SIGCONT);
	if (is("blocked"))
		kill(child, SIGUSR1);
	live_await(shared->counter >= counted + 5, "the child did not go on after SIGCONT");
	live_check(shared->heard == (is("waiting") || is("blocked")), "the child handled %lu signals",
		   shared->heard);
	live_join(child);
}

static void hear_of_child(int signo)
{
	told++;
}

/* The parent of the stopped child. */
static void watch_child(void)
{
	struct sigaction hear = { .sa_handler = hear_of_child, .sa_flags = SA_RESTART };
	unsigned long counted;
	pid_t child;

	sigaction(SIGCHLD, &hear, NULL);
	child = stop_child();
	counted = shared->counter;
	if (is("orphaned"))
		live_check(setsid() > 0, "setsid: %m");
	live_ready();
	while (!live_stopping()) {
		check(child, counted);
		live_sleep(0.005);
	}
	check(child, counted);
	let_child_go(child, counted);
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	if (argc > 2)
		stop_signal = atoi(argv[2]);
	if (argc > 3)
		how = argv[3];
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (is("orphaned")) { /* the leader of a group cannot begin a session */
		pid_t parent = live_fork(watch_child);

		live_wait_stop();
		live_join(parent);
	} else {
		watch_child();
	}
	return live_finish();
}
