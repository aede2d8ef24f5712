/* orphan_group.c - a process group whose only member is a zombie: its leader has been reaped. */
#define _GNU_SOURCE
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

static pid_t leader;

static void lead(void)
{
	live_check(setpgid(0, 0) == 0, "setpgid: %m");
	live_wait_stop();
}

static void join(void)
{
	live_check(setpgid(0, leader) == 0, "setpgid: %m");
	live_wait_stop();
	_exit(7);
}

/* Waits until `pid` is in the group, or until it is a zombie, which is left as it is. */
static void check_group(pid_t pid, const char *when)
{
	for (int i = 0; i < 1000 && getpgid(pid) != leader; i++)
		live_sleep(0.01);
	live_check(getpgid(pid) == leader, "%s %d is in group %d, not %d", when, pid, getpgid(pid), leader);
}

int main(int argc, char **argv)
{
	siginfo_t info;
	int status;
	pid_t zombie;

	live_begin(argc, argv);
	leader = live_fork(lead);
	check_group(leader, "at first");
	zombie = live_fork(join);
	check_group(zombie, "at first");
	live_join(leader);
	live_check(kill(zombie, SIGTERM) == 0 && waitid(P_PID, zombie, &info, WEXITED | WNOWAIT) == 0,
		   "waitid: %m");
	live_ready();
	live_wait_stop();
	check_group(zombie, "at the end");
	live_check(waitpid(zombie, &status, 0) == zombie && WIFEXITED(status) && WEXITSTATUS(status) == 7,
		   "status %#x", status);
	return live_finish();
}
