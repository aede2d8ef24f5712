/*
 * watchdog.c - lets the tasks being restored die with criu, even if the root is no child of criu (--restore-sibling):
 * then a parent death signal would be tied to another process.
 *
 * A small process, the watchdog, holds a pidfd of the root and waits at the end of a pipe that only criu keeps open.
 * When the pipe closes, criu has died, and the watchdog kills the root; the other tasks die with their parents, as
 * usual. The root does nothing until it is told that the watchdog exists; if its pipe closes instead, it ends itself.
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

	prctl(PR_SET_NAME, "criu-watchdog");
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	while (read(life, &nothing, 1) < 0 && errno == EINTR)
		;
	syscall(SYS_pidfd_send_signal, root, SIGKILL, NULL, 0);
	_exit(0);
}

int watchdog_prepare(struct watchdog *watchdog)
{
	if (pipe2(watchdog->ready, O_CLOEXEC) < 0)
		return fail(errno, "cannot create a pipe");
	return 0;
}

void watchdog_await(struct watchdog *watchdog)
{
	char ready;

	close(watchdog->ready[1]);
	if (read(watchdog->ready[0], &ready, 1) != 1)
		_exit(1);
	close(watchdog->ready[0]);
}

int watchdog_begin(struct watchdog *watchdog, int root)
{
	autoclose int ready = watchdog->ready[1], heard unused = watchdog->ready[0];
	int life[2];

	if (pipe2(life, O_CLOEXEC) < 0)
		return fail(errno, "cannot create a pipe");
	watchdog->pid = fork();
	if (watchdog->pid == 0) {
		close(life[1]);
		watch(life[0], root);
	}
	close(life[0]);
	watchdog->life = life[1];
	if (watchdog->pid < 0 || write(ready, "", 1) != 1)
		return fail(errno, "cannot create the watchdog process");
	return 0;
}

void watchdog_end(struct watchdog *watchdog)
{
	if (watchdog->pid <= 0)
		return;
	kill(watchdog->pid, SIGKILL);
	waitpid(watchdog->pid, NULL, 0);
	close(watchdog->life);
	watchdog->pid = 0;
}
