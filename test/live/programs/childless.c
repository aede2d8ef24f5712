/*
 * childless.c - a process notices nothing of processes that criu makes in it for a moment: no child, no signal, no time
 * or memory of children.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

#define MEMORY (32UL << 20)

static volatile int told;
static pid_t zombie;
static char *memory;

static void tell(int signo)
{
	told++;
}

static void fill(void)
{
	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	live_check(memory != MAP_FAILED, "mmap: %m");
	live_fill(memory, MEMORY, 1);
}

static void set_handler(void)
{
	signal(SIGCHLD, tell);
	fill();
}

static void ignore_signal(void)
{
	signal(SIGCHLD, SIG_IGN);
	fill();
}

/* A child is dead, and its signal is pending. */
static void keep_pending(void)
{
	sigset_t child_signal;

	set_handler();
	sigemptyset(&child_signal);
	sigaddset(&child_signal, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child_signal, NULL);
	zombie = fork();
	live_check(zombie >= 0, "fork: %m");
	if (!zombie)
		_exit(7);
	live_check(!waitid(P_PID, zombie, &(siginfo_t){ 0 }, WEXITED | WNOWAIT), "waitid: %m");
}

static void verify_memory(void)
{
	live_compare(memory, MEMORY, 1, "the memory");
}

/* A restored process is a new one: its children have used nothing, but it may have had some while it was made. */
static void verify_no_children(void)
{
	struct rusage usage;
	siginfo_t info;

	live_check(told == 0, "%d times SIGCHLD", told);
	live_check(waitid(P_ALL, 0, &info, WEXITED | WNOHANG | __WALL) < 0 && errno == ECHILD,
		   "it has a child");
	live_check(!getrusage(RUSAGE_CHILDREN, &usage), "getrusage: %m");
	live_check(live_times_away() || (!usage.ru_maxrss && !usage.ru_minflt && !usage.ru_utime.tv_usec &&
					 !usage.ru_stime.tv_usec),
		   "its children have used %ld KiB, %ld faults", usage.ru_maxrss, usage.ru_minflt);
	verify_memory();
}

static void verify_handler(void)
{
	struct sigaction action;

	verify_no_children();
	sigaction(SIGCHLD, NULL, &action);
	live_check(action.sa_handler == tell, "another handler");
}

static void verify_ignored(void)
{
	struct sigaction action;

	verify_no_children();
	sigaction(SIGCHLD, NULL, &action);
	live_check(action.sa_handler == SIG_IGN, "it is no longer ignored");
}

static void verify_pending(void)
{
	sigset_t signals;
	siginfo_t info;

	live_check(!sigpending(&signals) && sigismember(&signals, SIGCHLD), "SIGCHLD is no longer pending");
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	live_check(sigwaitinfo(&signals, &info) == SIGCHLD && info.si_pid == zombie && info.si_status == 7,
		   "SIGCHLD of process %d, status %d", info.si_pid, info.si_status);
	live_check(waitid(P_ALL, 0, &info, WEXITED | WNOHANG | __WALL) == 0 && info.si_pid == zombie,
		   "process %d has ended, not %d", info.si_pid, zombie);
	zombie = 0;
	live_check(waitid(P_ALL, 0, &info, WEXITED | WNOHANG | __WALL) < 0 && errno == ECHILD,
		   "it has another child");
	verify_memory();
}

static const struct live_part parts[] = {
	{ "handled", set_handler, verify_handler },
	{ "ignored", ignore_signal, verify_ignored },
	{ "default", fill, verify_no_children },
	{ "pending", keep_pending, verify_pending },
};

int main(int argc, char **argv)
{
	return live_run_one(argc, argv, parts);
}
