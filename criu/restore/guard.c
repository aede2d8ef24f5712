/*
 * guard.c - the death of criu is the death of what it is restoring, also where the root is no child of ours (--restore-sibling): a
 * parent death signal would then come from somebody else's death.
 *
 * A small process, the guard, holds a pidfd of the root and waits at the end of a pipe that only criu keeps open. If that closes,
 * criu has died, and the guard kills the root; the others die with their parents, as ever. The root does nothing before it has heard
 * that the guard is there: hearing that the pipe to it has closed instead, it ends itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "restore/restore.h"

static does_not_return void watch(int life, int root)
{
	char nothing;

	prctl(PR_SET_NAME, "criu-guard");
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	while (read(life, &nothing, 1) < 0 && errno == EINTR)
		;
	syscall(SYS_pidfd_send_signal, root, SIGKILL, NULL, 0);
	_exit(0);
}

int guard_prepare(struct guard *guard)
{
	if (pipe2(guard->ready, O_CLOEXEC) < 0)
		return fail(errno, "cannot make a pipe");
	return 0;
}

void guard_await(struct guard *guard)
{
	char ready;

	close(guard->ready[1]);
	if (read(guard->ready[0], &ready, 1) != 1)
		_exit(1);
	close(guard->ready[0]);
}

int guard_begin(struct guard *guard, int root)
{
	autoclose int ready = guard->ready[1], heard unused = guard->ready[0];
	int life[2];

	if (pipe2(life, O_CLOEXEC) < 0)
		return fail(errno, "cannot make a pipe");
	guard->pid = fork();
	if (guard->pid == 0) {
		close(life[1]);
		watch(life[0], root);
	}
	close(life[0]);
	guard->life = life[1];
	if (guard->pid < 0 || write(ready, "", 1) != 1)
		return fail(errno, "cannot make a guard");
	return 0;
}

void guard_end(struct guard *guard)
{
	if (guard->pid <= 0)
		return;
	kill(guard->pid, SIGKILL);
	waitpid(guard->pid, NULL, 0);
	close(guard->life);
	guard->pid = 0;
}
