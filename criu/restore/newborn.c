/*
 * newborn.c - a task while it still runs criu's code: its creation, its children, its session and group, through all
 * stages to the last, which is leave.c.
 *
 * A failure is recorded (the record is shared), noted on the board, and ends the newborn; criu then ends the others. A
 * newborn that loses its parent dies by PR_SET_PDEATHSIG.
 */
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "files/kind.h"
#include "files/kinds/terminal.h"
#include "futex.h"
#include "namespaces/kind.h"
#include "restore/baton.h"
#include "restore/lives.h"
#include "restore/restore.h"

void newborn_give_up(struct restore *restore)
{
	__atomic_store_n(&restore->board->failed, 1, __ATOMIC_SEQ_CST);
	futex_wake(&restore->board->arrived);
	_exit(1);
}

/* ---- family ---- */

/* Creates those tasks of `created` that must be born before (or after) this task's own setsid(). */
static int bear_children(struct restore *restore, struct task *task, bool before_session)
{
	struct task *child;

	list_for_each (child, &task->created, creation) {
		pid_t wanted = child->newborn->initial_session;
		bool is_early = task->session == task->pid && wanted && wanted != task->pid;
		pid_t born = is_early == before_session ? spawn_task(restore, child) : 0;

		if (born < 0)
			return born;
	}
	return 0;
}

static int become_leader(struct restore *restore, const struct task *task)
{
	if (task->session == task->pid && setsid() < 0)
		return fail(errno, "cannot create a session");
	if (task->group == task->pid && task->session != task->pid && setpgid(0, 0) < 0)
		return fail(errno, "cannot create a process group");
	return terminal_take_control(&restore->snapshot, task);
}

/* Creates a stand-in for the leader of a group that has lost it; it ends when all members have joined. */
static int bear_stand_in(struct restore *restore, struct task *task)
{
	pid_t pid = task->newborn->stand_in;
	long born;

	if (!pid)
		return 0;
	born = clone_with_pids(
		&(struct clone_plan){ .pids = &pid, .levels = 1, .exit_signal = SIGCHLD, .cgroup = -1 });
	if (born < 0 && errno == EEXIST)
		return fail_for_taken_id("the former leader of a process group,", pid);
	if (born < 0)
		return fail(errno, "cannot create process %d, the former leader of a process group", pid);
	if (born) {
		life_note_birth(task->newborn->stand_in_life);
		return 0;
	}
	life_begin(task->newborn->stand_in_life);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != thread_own_id(&task->threads[0]))
		_exit(1);
	if (setpgid(0, 0) < 0) {
		fail(errno, "cannot recreate process group %d", pid);
		newborn_give_up(restore);
	}
	board_arrive(restore->board);
	board_wait_for_stage(restore->board, STAGE_BURY);
	life_end(task->newborn->stand_in_life);
	_exit(0);
}

static int join_group(struct restore *restore, const struct task *task)
{
	const struct task *root = restore->snapshot.root;

	if (task->group == task->pid)
		return 0;
	/* The group of the shell that started the tree: the root is now in the group of the criu that restores it. */
	if (task->group == root->group && root->group != root->pid &&
	    !snapshot_find_task(&restore->snapshot, task->group) && root->session != root->pid)
		return 0;
	if (setpgid(0, task->group) < 0)
		return fail(errno, "cannot join process group %d", task->group);
	return 0;
}

/* ---- the dead ---- */

static int collect_stand_in(const struct task *task)
{
	if (task->newborn->stand_in && waitpid(task->newborn->stand_in, NULL, __WALL) < 0)
		return fail(errno, "cannot wait for the end of process %d", task->newborn->stand_in);
	return 0;
}

static does_not_return void die_again(struct restore *restore, const struct task *task)
{
	int status = task->cores[0]->tc->exit_code;
	struct rlimit no_core = { 0 };

	prctl(PR_SET_NAME, task->name);
	if (join_group(restore, task))
		newborn_give_up(restore);
	board_arrive(restore->board);
	board_wait_for_stage(restore->board, STAGE_BURY);
	if (collect_stand_in(task))
		newborn_give_up(restore);
	life_end(task->newborn->life);
	if (WIFSIGNALED(status)) {
		sigset_t all;

		setrlimit(RLIMIT_CORE, &no_core);
		signal(WTERMSIG(status), SIG_DFL);
		sigemptyset(&all);
		sigprocmask(SIG_SETMASK, &all, NULL);
		kill(getpid(), WTERMSIG(status));
	}
	_exit(WEXITSTATUS(status));
}

static int become_alone(struct restore *restore, struct task *task)
{
	int result = task_leads(task, OBJECT_MEMORY) ? space_build(restore, task) : 0;

	return result					   ?:
		       bear_children(restore, task, true)  ?:
		       become_leader(restore, task)	   ?:
		       bear_children(restore, task, false) ?:
							     bear_stand_in(restore, task);
}

static int settle(struct restore *restore, struct task *task)
{
	int result = files_receive_late(&restore->snapshot, task) ?:
			     join_group(restore, task)		  ?:
								    uring_threads_make(restore, task);

	if (!result && task_leads(task, OBJECT_DESCRIPTORS))
		result = files_set_owners(&restore->snapshot, task);
	die_with_parent(restore, task);
	return result;
}

static void await_stage(struct restore *restore, const struct task *task, enum stage stage)
{
	baton_give(task);
	board_wait_for_stage(restore->board, stage);
	baton_take(task);
}

void newborn_main(struct restore *restore, struct task *task)
{
	if (!task->creator && root_await(restore))
		goto failed;
	/* A task that shares memory or descriptors with its creator has the creator's log. */
	if (restore->request->logs_per_process && task_leads(task, OBJECT_DESCRIPTORS) &&
	    task_leads(task, OBJECT_MEMORY) && log_per_process())
		newborn_give_up(restore);
	log_debug("process %d (%s) is born", task->pid, task->name);
	if (namespaces_join(&restore->snapshot, task))
		goto failed;
	if (cgroups_join(restore,
			 task)) /* first of all, so that its resource usage is counted in its cgroups */
		goto failed;
	if (task_leads(task, OBJECT_MEMORY))
		space_renew(task);
	if (task->state == TASK_DEAD) {
		if (bear_children(restore, task, true) || become_leader(restore, task) ||
		    bear_children(restore, task, false) || bear_stand_in(restore, task))
			newborn_give_up(restore);
		board_arrive(restore->board);
		await_stage(restore, task, STAGE_SETTLE);
		die_again(restore, task);
	}
	if (become_alone(restore, task))
		goto failed;
	board_arrive(restore->board);
	await_stage(restore, task, STAGE_SETTLE);
	if (settle(restore, task))
		goto failed;
	board_arrive(restore->board);
	await_stage(restore, task, STAGE_BURY);
	if (collect_stand_in(task))
		goto failed;
	board_arrive(restore->board);
	await_stage(restore, task, STAGE_LEAVE);
	newborn_leave(restore, task);
failed:
	fail_in(-1, "process %d (%s)", task->pid, task->name);
	newborn_give_up(restore);
}
