/*
 * foreign_zombie.c - a zombie of another user: a child that has run a program with the set-user-ID bit, DIRECTORY/ends.
 * Its parent may be dumped by its own user, who may not look at the zombie.
 */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

int main(int argc, char **argv)
{
	siginfo_t info = { 0 };
	char program[4096];
	pid_t child;

	live_begin(argc, argv);
	live_path(program, sizeof(program), "ends");
	child = fork();
	live_check(child >= 0, "fork: %m");
	if (!child) {
		execl(program, program, NULL);
		_exit(1);
	}
	live_check(waitid(P_PID, child, &info, WEXITED | WNOWAIT) == 0 && info.si_status == 0,
		   "the program did not run");
	live_ready();
	live_wait_stop();
	live_check(waitid(P_PID, child, &info, WEXITED | WNOHANG) == 0 && info.si_pid == child &&
			   info.si_code == CLD_EXITED && info.si_status == 0,
		   "the zombie is another: %d, code %d, status %d", info.si_pid, info.si_code,
		   info.si_status);
	return live_finish();
}
