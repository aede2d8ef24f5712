/*
 * watchdog.c - lets the tasks being restored die with criu, even if the root is no child of criu (--restore-sibling):
 * then a parent death signal would be tied to another process.
 *
 * A small process, the watchdog, holds a pidfd of criu and one of the root. When criu has died, it kills the root; the
 * other tasks die with their parents, as usual. While the root waits for criu (root.c), it looks at criu itself, so the
 * watchdog begins at the end of that wait.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "restore/restore.h"

/* No signal but SIGKILL reaches it: spawn_own() blocks them. A terminal would send one to it and criu. */
static does_not_return void watch(int criu, int root)
{
	struct pollfd end = { .fd = criu, .events = POLLIN };

	prctl(PR_SET_NAME, "criu-watchdog");
	while (poll(&end, 1, -1) < 0 && errno == EINTR)
		;
	syscall(SYS_pidfd_send_signal, root, SIGKILL, NULL, 0);
	_exit(0);
}

int watchdog_begin(struct restore *restore)
{
	if (!restore->request->is_sibling)
		return 0;
	restore->watchdog = spawn_own(restore, 0);
	if (restore->watchdog == 0)
		watch(restore->wait.criu, restore->root);
	return restore->watchdog < 0 ? fail(errno, "cannot create the watchdog process") : 0;
}

void watchdog_end(struct restore *restore)
{
	if (restore->watchdog <= 0)
		return;
	kill(restore->watchdog, SIGKILL);
	waitpid(restore->watchdog, NULL, 0);
	restore->watchdog = 0;
}
