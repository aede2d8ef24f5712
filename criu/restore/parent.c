/*
 * parent.c - another parent for the root than criu, if the end of criu would have effects.
 *
 * A thread may want a signal when its parent dies (PR_SET_PDEATHSIG), and for the kernel the end of `criu restore -d`
 * is such a death. So a root with such a thread is created by a separate process, the middle one, which ends while the
 * root is stopped and wants no signal yet. The process that adopts the root then is the parent that it would have had
 * anyway, and the end of criu has no effect any more.
 *
 *	criu ── middle ── root      until the last step; if criu dies, middle dies, and with it the root
 *	adopter ── root             then; if criu dies, PTRACE_O_EXITKILL
 *
 * criu adopts orphans during a restore (a child subreaper), so it stops doing that first. If the restore fails after
 * this, the adopter is told of the root's end, as of any other.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "restore/restore.h"

bool parent_is_needed(const struct restore *restore)
{
	const struct request *request = restore->request;
	const struct task *root = restore->snapshot.root;

	if (!request->is_detached || request->is_sibling || request->command || root->state == TASK_DEAD)
		return false;
	for (size_t i = 0; i < root->thread_count; i++)
		if (root->cores[i]->thread_core->pdeath_sig)
			return true;
	return false;
}

/* Ends when the root has ended, which criu notices. */
static does_not_return void be_parent(struct restore *restore, int born)
{
	pid_t criu = restore->criu, root;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != criu)
		_exit(1);
	restore->criu = getpid(); /* the root dies with this process */
	root = spawn_task(restore, restore->snapshot.root);
	if (root < 0 || write(born, "", 1) != 1)
		_exit(1);
	close(born);
	while (waitpid(root, NULL, __WALL) < 0 && errno == EINTR)
		;
	_exit(0);
}

pid_t parent_spawn(struct restore *restore)
{
	autoclose int hears = -1;
	int born[2];
	ssize_t heard;
	char byte;

	if (pipe2(born, O_CLOEXEC) < 0)
		return fail(errno, "cannot create a pipe");
	hears = born[0];
	restore->middle = fork();
	if (restore->middle == 0)
		be_parent(restore, born[1]);
	close(born[1]);
	if (restore->middle < 0)
		return fail(errno, "cannot create a process");
	restore->has_spawned = true;
	do
		heard = read(hears, &byte, 1);
	while (heard < 0 && errno == EINTR);
	if (heard == 1)
		return restore->snapshot.root->here;
	return has_failed() ?
		       -failure_errno() :
		       fail(0, "the process that was to create process %d died", restore->snapshot.root->pid);
}

void parent_end(struct restore *restore)
{
	if (restore->middle <= 0)
		return;
	kill(restore->middle, SIGKILL);
	while (waitpid(restore->middle, NULL, __WALL) < 0 && errno == EINTR)
		;
	restore->middle = 0;
}

void parent_leave(struct restore *restore)
{
	prctl(PR_SET_CHILD_SUBREAPER, 0);
	parent_end(restore);
}
