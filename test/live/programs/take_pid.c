/*
 * take_pid.c - creates a process with a given pid (clone3() with set_tid), so that a restore finds the pid taken.
 *
 * usage: take_pid DIRECTORY PID live|zombie: a zombie is reaped after 1.5 s.
 */
#define _GNU_SOURCE
#include <linux/sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

static pid_t fork_as(pid_t pid)
{
	struct clone_args arguments = { .exit_signal = SIGCHLD,
					.set_tid = (uintptr_t)&pid,
					.set_tid_size = 1 };

	return syscall(SYS_clone3, &arguments, sizeof(arguments));
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	bool zombie = strcmp(argv[3], "zombie") == 0;
	pid_t pid = fork_as(atoi(argv[2]));

	live_check(pid >= 0, "clone3: %m");
	if (pid == 0) {
		if (zombie)
			_exit(0);
		signal(SIGTERM, SIG_DFL);
		for (;;)
			pause();
	}
	if (zombie)
		waitid(P_PID, pid, &(siginfo_t){ 0 }, WEXITED | WNOWAIT);
	live_note("taken", "");
	if (zombie) {
		live_sleep(1.5);
		waitpid(pid, NULL, 0);
	}
	live_wait_stop();
	if (!zombie) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return 0;
}
