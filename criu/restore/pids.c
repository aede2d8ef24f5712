/*
 * pids.c - the numbers of the tree: are its pids free, and in which order do sessions and process groups come about?
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

#define ZOMBIE_PATIENCE \
	3000000000UL /* nanoseconds; a busy pid 1 takes up to 1.7 s to collect what is its to collect */

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
			return proc == -ENOENT ? 0 : fail(-proc, "cannot see whether pid %d is free", pid);
		attempt_begin(&attempt);
		result = proc_read_stat(proc, &stat) ?: proc_read_status(proc, &status);
		if (result == -ESRCH || result == -ENOENT) {
			attempt_forget(&attempt); /* it has just ended */
			return 0;
		}
		attempt_count(&attempt);
		if (result)
			return fail_in(result, "pid %d", pid);
		proc_status_free(&status);
		/* Collected between the two: the kernel tells 0 of a process that has no pid any more. */
		if (!status.group_leader)
			return 0;
		if (status.group_leader != pid)
			return fail(0, "pid %d is taken by a thread of process %d (%s)", pid,
				    status.group_leader, stat.comm);
		if (stat.state != 'Z' && stat.state != 'X')
			return fail(0, "pid %d is taken by a running process (%s)", pid, stat.comm);
		if (monotonic_time() > deadline)
			return fail(0, "pid %d is taken by a zombie (%s) that its parent %d does not collect",
				    pid, stat.comm, stat.parent);
		if (!is_waiting)
			log_info("pid %d is a zombie: waiting for process %d to collect it", pid,
				 stat.parent);
		usleep(1000);
	}
}

/* A process that has just ended, or is about to be one of ours, is no failure: nothing is recorded. */
static bool read_stat(pid_t pid, struct proc_stat *stat)
{
	autoclose int proc = proc_open(pid);
	autofree char *text = NULL;

	return proc >= 0 && read_text_at(proc, "stat", &text) >= 0 && !proc_parse_stat(text, stat);
}

/* Who keeps a number taken, by its session or its process group; false: nobody. Living processes before zombies. */
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
		return fail(0, "cannot make %s %d: its id is taken", what, id);
	fail_advice(
		"end that process, which was not dumped with it; or restore in another pid namespace, or on another machine");
	return fail(0, "cannot make %s %d: its id is taken, because process %d (%s) is in its %s", what, id,
		    member.pid, member.comm, member.session == id ? "session" : "process group");
}

/* Is somebody in the group of that number? (The kernel keeps a number for a session, too, but there is no call to ask for that.) */
static bool has_group(pid_t group)
{
	return group != 1 && (kill(-group, 0) == 0 || errno != ESRCH); /* -1 would be everybody */
}

/* The kernel keeps a number as long as somebody is in its group: a zombie, too, whose parent may be slow. */
static int check_group(pid_t group)
{
	uint64_t deadline = monotonic_time() + ZOMBIE_PATIENCE;
	struct proc_stat member;

	while (has_group(group)) {
		if (!find_member(group, &member))
			return 0; /* gone in between */
		if (member.state != 'Z' || monotonic_time() > deadline)
			return fail_for_taken_id("process", group);
		usleep(10000);
	}
	return 0;
}

static int check_pids(const struct snapshot *snapshot)
{
	const struct task *task;
	int result = 0;

	for_each_task (task, snapshot)
		for (size_t i = 0; !result && i < task->thread_count; i++)
			result = check_pid(task->threads[i]);
	for_each_task (task, snapshot)
		for (size_t i = 0; !result && i < task->thread_count; i++)
			result = check_group(task->threads[i]);
	return result;
}

/* ---- sessions and groups ---- */

/* Which session does a task have to be born into, for itself and for those it brings forth before its own setsid()? */
static int plan_session(struct task *task)
{
	struct newborn *newborn = task->newborn;
	struct task *child;

	if (task->session != task->pid)
		newborn->initial_session = task->session;
	list_for_each (child, &task->children, sibling) {
		pid_t wanted = child->newborn->initial_session;

		if (!wanted || wanted == task->session)
			continue;
		if (newborn->initial_session && newborn->initial_session != wanted)
			return fail(EINVAL,
				    "process %d has session %d, which its parent %d can never have had",
				    child->pid, wanted, task->pid);
		newborn->initial_session = wanted;
	}
	return 0;
}

static int plan_sessions(struct restore *restore)
{
	struct snapshot *snapshot = &restore->snapshot;
	pid_t outer;

	/* Children stand behind their parents in the list, so backwards is bottom up. */
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
		return fail(EINVAL, "pstree.img holds process %d in an impossible group: %d", task->pid,
			    task->group);
	if (check_pid(task->group) || check_group(task->group))
		return -EEXIST;
	task->newborn->stand_in = task->group;
	return 0;
}

/* A group whose leader is gone needs somebody to begin it: one of its members brings forth a stand-in with that pid. */
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
		/* The group of the shell: with --shell-job, ours takes its place. */
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

int restore_check_pids(struct restore *restore)
{
	return plan_sessions(restore) ?: check_pids(&restore->snapshot) ?: plan_groups(restore);
}
