/*
 * sharing.c - a child shares memory, open files or directories with its parent, as between vfork() and exec(). The note
 * `child` has its pid.
 *
 * usage: sharing DIRECTORY memory|files|directories
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

static const struct {
	const char *name;
	int flag;
} shared[] = {
	{ "memory", CLONE_VM },
	{ "files", CLONE_FILES },
	{ "directories", CLONE_FS },
};

static int wait_for_ever(void *unused)
{
	for (;;)
		pause();
	return unused != NULL;
}

int main(int argc, char **argv)
{
	static char stack[64 << 10], text[16];
	size_t which = 0;
	pid_t child;

	live_begin(argc, argv);
	while (strcmp(shared[which].name, argv[2]))
		which++;
	child = clone(wait_for_ever, stack + sizeof(stack), shared[which].flag | SIGCHLD, NULL);
	live_check(child > 0, "clone: %m");
	snprintf(text, sizeof(text), "%d\n", child);
	live_note("child", text);
	live_ready();
	live_wait_stop();
	live_check(waitpid(child, NULL, WNOHANG) == 0, "the child has ended");
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return live_finish();
}
