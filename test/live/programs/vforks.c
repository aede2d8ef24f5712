/*
 * vforks.c - waits in vfork() for a child that runs no other program. The child (its pid is in the note `child`) ends
 * after SIGUSR1; then the note `returned` is there, and the process is like any other.
 *
 * usage: vforks DIRECTORY
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

static volatile sig_atomic_t may_end;
static volatile int rounds;

static void on_user(int signo)
{
	(void)signo;
	may_end = 1;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_user };
	static char text[16];
	pid_t child;
	int status = 0;

	live_begin(argc, argv);
	sigaction(SIGUSR1, &action, NULL);
	child = vfork();
	if (!child) {
		snprintf(text, sizeof(text), "%d\n", getpid());
		live_note("child", text);
		live_ready();
		for (; !may_end; rounds++)
			usleep(1000);
		_exit(7);
	}
	live_check(child > 0, "vfork: %m");
	live_check(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7,
		   "the child ended with %#x", status);
	live_check(rounds > 0, "the child did not run in this memory");
	live_note("returned", "\n");
	live_wait_stop();
	return live_finish();
}
