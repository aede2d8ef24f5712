/*
 * exit_signal.c - children made by clone(2) that send another signal than SIGCHLD, or none, when they end. One of them
 * is a zombie.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

static volatile int told;

static void tell(int signo)
{
	told++;
}

static pid_t make_child(int signo)
{
	pid_t child = syscall(SYS_clone, signo, NULL, NULL, NULL, 0);

	live_check(child >= 0, "clone: %m");
	if (!child)
		for (;;)
			pause();
	return child;
}

/* waitpid() returns such children only with __WCLONE. */
static void collect(pid_t child, const char *which)
{
	int status;

	live_check(waitpid(child, &status, WNOHANG) < 0 && errno == ECHILD, "%s: an ordinary child", which);
	live_check(waitpid(child, &status, __WCLONE) == child && WTERMSIG(status) == SIGKILL,
		   "%s: status %#x, %m", which, status);
}

int main(int argc, char **argv)
{
	pid_t user, silent, zombie;
	siginfo_t info;

	live_begin(argc, argv);
	signal(SIGUSR1, tell);
	user = make_child(SIGUSR1);
	silent = make_child(0);
	zombie = make_child(SIGUSR1);
	kill(zombie, SIGKILL);
	live_check(waitid(P_PID, zombie, &info, WEXITED | WNOWAIT | __WCLONE) == 0 && told == 1,
		   "waitid: %m, told %d times", told);
	live_ready();
	live_wait_stop();
	live_check(told == 1, "told %d times", told);
	kill(user, SIGKILL);
	collect(user, "SIGUSR1");
	live_check(told == 2, "told %d times", told);
	kill(silent, SIGKILL);
	collect(silent, "none");
	live_check(told == 2, "told %d times", told);
	collect(zombie, "zombie");
	return live_finish();
}
