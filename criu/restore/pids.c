/*
 * pids.c - the ids of the tree: checks that its pids are free, and plans the order in which sessions and process groups
 * are created.
 */
#include <errno.h>
#include <signal.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/time.h"
#include "kernel/proc.h"
#include "restore/restore.h"

#define ZOMBIE_PATIENCE 3000000000UL /* nanoseconds; a busy pid 1 takes up to 1.7 s to collect its zombies */

/* ---- pids ---- */

static int check_pid(pid_t pid)
{
	uint64_t deadline = monotonic_time() + ZOMBIE_PATIENCE;

	for (bool is_waiting = false;; is_waiting = true) {
		autoclose int proc = proc_open(pid);
		struct proc_status status;
		struct proc_stat stat;
		struct attempt attempt;
		int result;

		if (proc < 0)
			return proc == -ENOENT ? 0 : fail(-proc, "cannot check whether pid %d is free", pid);
		attempt_begin(&attempt);
		result = proc_read_stat(proc, &stat) ?: proc_read_status(proc, &status);
		if (result == -ESRCH || result == -ENOENT) {
			attempt_forget(&attempt); /* the process has just ended */
			return 0;
		}
		attempt_count(&attempt);
		if (result)
			return fail_in(result, "pid %d", pid);
		proc_status_free(&status);
		/* Collected in between: the kernel shows 0 for a process that no longer has a pid. */
		if (!status.group_leader)
			return 0;
		if (status.group_leader != pid)
			return fail(0, "pid %d is in use by a thread of process %d (%s)", pid,
				    status.group_leader, stat.comm);
		if (stat.state != 'Z' && stat.state != 'X')
			return fail(0, "pid %d is in use by a running process (%s)", pid, stat.comm);
		if (monotonic_time() > deadline)
			return fail(0,
				    "pid %d is in use by a zombie (%s) that its parent %d does not collect",
				    pid, stat.comm, stat.parent);
		if (!is_waiting)
			log_info("pid %d is a zombie: waiting for process %d to collect it", pid,
				 stat.parent);
		usleep(1000);
	}
}

/* A process that has just ended, or will be restored, is no failure: nothing is recorded. */
static bool read_stat(pid_t pid, struct proc_stat *stat)
{
	autoclose int proc = proc_open(pid);
	autofree char *text = NULL;

	return proc >= 0 && read_text_at(proc, "stat", &text) >= 0 && !proc_parse_stat(text, stat);
}

/*
 * Finds a process that keeps a number in use by its session or its process group, living processes before zombies;
 * false: none.
 */
static bool find_member(pid_t number, struct proc_stat *member)
{
	autofree pid_t *pids = NULL;
	size_t count = 0;
	bool is_found = false;

	if (proc_read_pids(&pids, &count))
		return false;
	for (size_t i = 0; i < count && (!is_found || member->state == 'Z'); i++) {
		struct proc_stat stat;

		if (!read_stat(pids[i], &stat) || (stat.session != number && stat.group != number))
			continue;
		*member = stat;
		is_found = true;
	}
	return is_found;
}

int fail_for_taken_id(const char *what, pid_t id)
{
	struct proc_stat member;

	if (!find_member(id, &member))
		return fail(0, "cannot create %s %d: its id is in use", what, id);
	fail_advice(
		"end that process, which was not dumped; or restore in another pid namespace, or on another machine");
	return fail(0, "cannot create %s %d: its id is in use, because process %d (%s) is in its %s", what,
		    id, member.pid, member.comm, member.session == id ? "session" : "process group");
}

/* Does the group have members? (The kernel keeps a number for a session, too, but no call asks for that.) */
static bool has_group(pid_t group)
{
	return group != 1 && (kill(-group, 0) == 0 || errno != ESRCH); /* -1 would mean all processes */
}

/* The kernel keeps a number in use while its group has members, including a zombie, whose parent may be slow. */
static int check_group(pid_t group)
{
	uint64_t deadline = monotonic_time() + ZOMBIE_PATIENCE;
	struct proc_stat member;

	while (has_group(group)) {
		if (!find_member(group, &member))
			return 0; /* gone meanwhile */
		if (member.state != 'Z' || monotonic_time() > deadline)
			return fail_for_taken_id("process", group);
		usleep(10000);
	}
	return 0;
}

/*
 * All are born in criu's own pid namespace, so criu reaches each by the id that it asks clone3() for, which gives that
 * one or fails.
 */
static int plan_reach(const struct snapshot *snapshot)
{
	struct task *task;

	for_each_task (task, snapshot) {
		if (task->threads[0].nested_count)
			return fail(
				0,
				"process %d (%s) was in a pid namespace below that of the root of the tree, "
				"which is not supported yet",
				task->pid, task->name);
		for (size_t i = 0; i < task->thread_count; i++)
			task->threads[i].here = task->threads[i].tid;
		task->here = task->pid;
	}
	return 0;
}

/* Ids of nested namespaces are free, because nobody is in these yet. Here others have taken some. */
static int check_pids(const struct snapshot *snapshot)
{
	const struct task *task;
	int result = 0;

	for_each_task (task, snapshot)
		for (size_t i = 0; !result && i < task->thread_count; i++)
			result = check_pid(task->threads[i].tid);
	for_each_task (task, snapshot)
		for (size_t i = 0; !result && i < task->thread_count; i++)
			result = check_group(task->threads[i].tid);
	return result;
}

/* ---- sessions and groups ---- */

/*
 * Plans the session that a task has to be created in, for itself and for the children that it creates before its own
 * setsid().
 */
static int plan_session(struct task *task)
{
	struct newborn *newborn = task->newborn;
	struct task *child;

	if (task->session != task->pid)
		newborn->initial_session = task->session;
	list_for_each (child, &task->created, creation) {
		pid_t wanted = child->newborn->initial_session;

		if (!wanted || wanted == task->session)
			continue;
		if (newborn->initial_session && newborn->initial_session != wanted)
			return fail(
				EINVAL,
				"process %d is in session %d, but process %d, which must create it, cannot have been in that session",
				child->pid, wanted, task->pid);
		newborn->initial_session = wanted;
	}
	return 0;
}

static int plan_sessions(struct restore *restore)
{
	struct snapshot *snapshot = &restore->snapshot;
	pid_t outer;

	/* Children follow their parents in the list, so backwards is bottom up. */
	for (struct list *link = snapshot->tasks.previous; link != &snapshot->tasks; link = link->previous) {
		int result = plan_session(list_entry(link, struct task, link));

		if (result)
			return result;
	}
	outer = snapshot->root->newborn->initial_session;
	if (outer && !restore->request->policy.shell_job) {
		fail_advice("--shell-job (-j), to restore it in the session of this shell");
		return fail(0, "process %d belonged to session %d, which is not part of the images",
			    snapshot->root->pid, outer);
	}
	return 0;
}

static int plan_stand_in(struct task *task)
{
	if (task->group <= 0)
		return fail(EINVAL, "pstree.img: process %d is in an invalid group: %d", task->pid,
			    task->group);
	if (check_pid(task->group) || check_group(task->group))
		return -EEXIST;
	task->newborn->stand_in = task->group;
	return 0;
}

/* A group whose leader is gone needs a process to create it: one of its members creates a stand-in with that pid. */
static int plan_groups(struct restore *restore)
{
	struct snapshot *snapshot = &restore->snapshot;
	const struct task *root = snapshot->root;
	struct index planned = { 0 };
	struct task *task;
	int result = 0;

	for_each_task (task, snapshot) {
		if (snapshot_find_task(snapshot, task->group))
			continue;
		/* The group of the shell: with --shell-job, criu's own takes its place. */
		if (task->group == root->group && task->session == root->session &&
		    root->session != root->pid)
			continue;
		if (index_find(&planned, task->group))
			continue;
		result = plan_stand_in(task);
		if (result)
			break;
		index_set(&planned, task->group, task);
	}
	index_free(&planned);
	return result;
}

/* ---- ids that criu leaves to the tree ---- */

static void note_ids(struct restore *restore)
{
	struct task *task;

	for_each_task (task, &restore->snapshot) {
		for (size_t i = 0; i < task->thread_count; i++)
			index_set(&restore->ids, task->threads[i].here, task);
		if (task->newborn->stand_in)
			index_set(&restore->ids, task->newborn->stand_in, task);
	}
}

bool restore_needs_id(const struct restore *restore, pid_t id)
{
	return index_find(&restore->ids, id);
}

int restore_check_pids(struct restore *restore)
{
	int result = plan_reach(&restore->snapshot) ?: plan_sessions(restore);

	result = result ?: check_pids(&restore->snapshot) ?: plan_groups(restore);
	if (!result)
		note_ids(restore);
	return result;
}
