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
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "restore/lives.h"
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

/* Ends when the root has ended, which criu notices. It shares criu's descriptors: the root is going to. */
static does_not_return void be_parent(struct restore *restore)
{
	pid_t criu = restore->criu, root;

	life_begin(restore->middle_life);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != criu)
		_exit(1);
	restore->criu = getpid(); /* the root dies with this process */
	root = spawn_task(restore, restore->snapshot.root);
	if (root < 0)
		newborn_give_up(restore);
	board_arrive(restore->board);
	while (waitpid(root, NULL, __WALL) < 0 && errno == EINTR)
		;
	_exit(0);
}

int parent_spawn(struct restore *restore)
{
	restore->middle = spawn_own(restore, CLONE_FILES);
	if (restore->middle < 0)
		return fail(errno, "cannot create a process");
	if (!restore->middle)
		be_parent(restore);
	life_note_birth(restore->middle_life);
	restore->has_spawned = true;
	return board_wait_for(restore, 1);
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
