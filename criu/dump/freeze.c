/*
 * freeze.c - finds the tree below a process and stops it; lets it go again, one way or another.
 *
 * Finding and stopping are one operation, because a running tree grows. A process is stopped before its children are
 * listed, and a stopped process cannot fork. But orphans that a subreaper in the tree inherits may still appear. So the
 * whole list is read until a pass finds nothing new. The deadline limits a tree that forks faster than it is stopped.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "arch/arch.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"
#include "compel.h"
#include "criu-plugin.h"
#include "dump/dump.h"
#include "files/kind.h"
#include "kernel/proc.h"
#include "plugins/plugins.h"

#define KERNEL_THREAD 0x00200000 /* PF_KTHREAD */
#define EXIT_PATIENCE 0.5	 /* seconds, for all threads of a process to end */

/*
 * Is `pid` criu itself or an ancestor that waits for it? Freezing that would freeze criu. 1, 0, or -errno, recorded;
 * the search ends only at an ancestor that is not visible.
 */
static int is_our_ancestor(pid_t pid)
{
	for (pid_t at = getpid(); at > 0;) {
		struct proc_stat stat;
		autoclose int proc = -1;
		int result;

		if (at == pid)
			return true;
		proc = proc_open(at);
		if (proc < 0)
			return proc == -ENOENT ? false : fail(-proc, "cannot read process %d", at);
		result = proc_read_stat(proc, &stat);
		if (result)
			return fail_in(result, "process %d", at);
		at = stat.parent;
	}
	return false;
}

/*
 * A process whose leader has ended looks like a zombie while other threads live on. If the whole process is ending, the
 * others are gone in a moment.
 */
static int check_zombie(int proc, pid_t pid, const char *name)
{
	uint64_t deadline = trace_deadline(EXIT_PATIENCE);

	for (;;) {
		struct proc_status status;
		int result = proc_read_status(proc, &status);

		if (result)
			return result;
		proc_status_free(&status);
		if (status.threads <= 1)
			return 0;
		if (monotonic_time() > deadline)
			return fail(
				0,
				"process %d (%s): its first thread has ended and %u others continue, which is not supported yet",
				pid, name, status.threads - 1);
		usleep(1000);
	}
}

static int read_root(int proc, pid_t pid, struct proc_stat *stat, struct proc_status *status)
{
	struct attempt attempt;
	int result;

	attempt_begin(&attempt);
	result = proc < 0 ? proc : proc_read_stat(proc, stat) ?: proc_read_status(proc, status);
	if (result == -ENOENT || result == -ESRCH) {
		attempt_forget(&attempt);
		return fail(0, "there is no process %d", pid);
	}
	attempt_count(&attempt);
	if (!result)
		return 0;
	return proc < 0 ? fail(-proc, "cannot read process %d", pid) : fail_in(result, "process %d", pid);
}

static int check_root(pid_t pid)
{
	autoclose int proc = proc_open(pid);
	struct proc_status status;
	struct proc_stat stat;
	int result = read_root(proc, pid, &stat, &status);

	if (result)
		return result;
	proc_status_free(&status);
	if (status.group_leader != pid)
		return fail(0, "%d is a thread of process %d, not a process", pid, status.group_leader);
	if (stat.flags & KERNEL_THREAD)
		return fail(0, "process %d (%s) is a thread of the kernel", pid, stat.comm);
	if (stat.state == 'Z' || stat.state == 'X')
		return check_zombie(proc, pid, stat.comm) ?:
			       fail(0, "process %d (%s) has ended already: it is a zombie", pid, stat.comm);
	if (pid == getpid())
		return fail(0, "process %d is criu itself", pid);
	result = is_our_ancestor(pid);
	if (result > 0)
		return fail(0, "process %d (%s) is an ancestor of criu: freezing it would freeze criu itself",
			    pid, stat.comm);
	return result;
}

/* Checks that the process exists, and collects what is slow and can be known while it still runs. */
int dump_look_ahead(void *context)
{
	struct dump *dump = context;
	int result = check_root(dump->request->root);

	if (result)
		return result;
	arch_prepare();
	victim_look_ahead(dump->request->root);
	return 0;
}

static int read_identity(struct task *task)
{
	struct proc_stat stat;
	int result = proc_read_stat(task->proc, &stat);

	if (result)
		return result;
	task->group = stat.group; /* names.c corrects them in other pid namespaces */
	task->session = stat.session;
	task->start_time = stat.start_time;
	memcpy(task->name, stat.comm, sizeof(task->name) - 1);
	if (stat.state == 'Z' || stat.state == 'X') {
		result = check_zombie(task->proc, task->here, task->name);
		if (result)
			return result;
		task->state = TASK_DEAD;
		task_make_threads(task, 1);
	}
	return 0;
}

static void take_threads(struct task *task)
{
	const struct victim *victim = task->victim;

	task_make_threads(task, victim->thread_count);
	for (size_t i = 0; i < victim->thread_count; i++)
		task->threads[i].here = victim->threads[i].tid;
	if (victim->threads[0].was_stopped) {
		task->state = TASK_STOPPED;
		task->stop_signal = victim->threads[0].stop_signal;
	}
}

/* Plugins hear of each process before it is stopped: what they do with a device may need the process. */
static int pause_devices(const struct task *task)
{
	struct proc_stat stat;

	if (!plugins_have(CR_PLUGIN_HOOK__PAUSE_DEVICES) || attempted(proc_read_stat(task->proc, &stat)) ||
	    stat.state == 'Z' || stat.state == 'X')
		return 0;
	return plugins_tell_process(CR_PLUGIN_HOOK__PAUSE_DEVICES, task->here);
}

static int freeze_task(struct task *task, uint64_t deadline)
{
	struct attempt attempt;
	int result;

	task->proc = proc_open(task->here);
	if (task->proc < 0)
		return task->proc == -ENOENT ? -ESRCH :
					       fail(-task->proc, "cannot read process %d", task->here);
	task->pidfd = syscall(SYS_pidfd_open, task->here, 0);
	if (task->pidfd < 0)
		return errno == ESRCH ? -ESRCH : fail(errno, "cannot open process %d", task->here);
	result = pause_devices(task);
	if (result)
		return result;
	task->victim = allocate(sizeof(*task->victim));
	attempt_begin(&attempt);
	result = victim_freeze(task->victim, task->here, deadline);
	if (result == -ESRCH)
		attempt_forget(&attempt);
	else
		attempt_count(&attempt);
	if (result)
		free(steal_pointer(&task->victim));
	/* It may have ended just now: then it is a zombie, or gone. */
	if (result == -ESRCH)
		return read_identity(task) ?: task->state == TASK_DEAD ? 0 : -ESRCH;
	if (result)
		return result;
	take_threads(task);
	return read_identity(task);
}

/* A task that has ended before it was frozen is removed from the list, and *task is NULL. The root must not end. */
static int freeze_or_forget_task(struct dump *dump, struct task **task, uint64_t deadline)
{
	struct attempt attempt;
	int result;

	if (monotonic_time() > deadline) {
		fail_advice("a longer --timeout");
		return fail(0, "the tree under process %d grows faster than it can be frozen (%zu processes)",
			    dump->request->root, dump->snapshot.task_count);
	}
	attempt_begin(&attempt);
	result = freeze_task(*task, deadline);
	if (result != -ESRCH || !(*task)->parent) {
		attempt_count(&attempt);
		return result;
	}
	attempt_forget(&attempt);
	snapshot_forget_task(&dump->snapshot, steal_pointer(task));
	return 0;
}

/* Adds the children of a frozen task that are not known yet; returns their number. */
static int find_children(struct dump *dump, struct task *parent)
{
	autofree pid_t *children = NULL;
	size_t count = 0;
	int found = 0, result;

	if (parent->state == TASK_DEAD)
		return 0;
	result = proc_read_children(parent->proc, &children, &count);
	if (result)
		return result;
	for (size_t i = 0; i < count; i++) {
		if (snapshot_find_task_here(&dump->snapshot, children[i]))
			continue;
		snapshot_add_task_here(&dump->snapshot, parent, children[i]);
		found++;
	}
	return found;
}

/* One pass over the list, which grows meanwhile. Returns the number of new tasks. */
static int freeze_pass(struct dump *dump, uint64_t deadline)
{
	struct task *task, *following;
	int found = 0, result;

	list_for_each_safe (task, following, &dump->snapshot.tasks, link) {
		result = interrupt_check();
		if (result)
			return result;
		if (!task->victim && task->state != TASK_DEAD) {
			result = freeze_or_forget_task(dump, &task, deadline);
			if (result)
				return result;
			if (!task)
				continue;
		}
		result = find_children(dump, task);
		if (result < 0)
			return result;
		found += result;
		following = list_entry(task->link.next, struct task, link);
	}
	return found;
}

int dump_freeze(void *context)
{
	struct dump *dump = context;
	uint64_t deadline = trace_deadline(dump->request->timeout);
	struct task *task;
	int result;

	dump_raise_priority(dump);
	dump->freeze_began = monotonic_time();
	snapshot_add_task_here(&dump->snapshot, NULL, dump->request->root);
	do
		result = freeze_pass(dump, deadline);
	while (result > 0);
	dump->freeze_ended = monotonic_time();
	if (result == -ESRCH)
		return fail(0, "process %d has ended", dump->request->root);
	for_each_task (task, &dump->snapshot)
		dump->snapshot.thread_count += task->thread_count;
	result = result ?: dump_name_tasks(&dump->snapshot);
	if (!result)
		log_info("froze %zu processes with %zu threads in %llu us", dump->snapshot.task_count,
			 dump->snapshot.thread_count,
			 (unsigned long long)(dump->freeze_ended - dump->freeze_began) / 1000);
	return result;
}

size_t dump_list_victims(const struct dump *dump, struct victim **victims)
{
	size_t count = 0;
	struct task *task;

	for_each_task (task, &dump->snapshot)
		if (task->victim)
			victims[count++] = task->victim;
	return count;
}

static void forget_victims(struct dump *dump)
{
	struct task *task;

	for_each_task (task, &dump->snapshot) {
		if (task->victim)
			victim_free(task->victim);
		free(steal_pointer(&task->victim));
	}
}

static int thaw_all(struct dump *dump, bool are_stopped)
{
	autofree struct victim **victims = allocate_array(dump->snapshot.task_count, sizeof(*victims));

	return victims_thaw(victims, dump_list_victims(dump, victims), are_stopped);
}

/* Undoes the freeze: all processes run, or are stopped, as before. */
void dump_thaw(void *context)
{
	struct dump *dump = context;

	if (!dump->released)
		ignore(thaw_all(dump, false));
	forget_victims(dump);
	dump->released = true;
	dump_restore_priority(dump);
}

static enum dump_end end_of(const struct dump *dump)
{
	const struct policy *policy = &dump->request->policy;

	if (dump->is_pre_dump || policy->leave_running)
		return DUMP_RUNS_ON;
	return policy->leave_stopped ? DUMP_STOPPED : DUMP_KILLED;
}

/* Files are let go while the processes are still frozen, or when they are dead and cannot notice. */
static int release(struct dump *dump)
{
	enum dump_end end = end_of(dump);
	int result;

	if (end != DUMP_KILLED)
		files_let_go(&dump->snapshot, end);
	result = end == DUMP_KILLED ? dump_kill(dump) : thaw_all(dump, end == DUMP_STOPPED);
	dump->thawed = monotonic_time();
	forget_victims(dump);
	if (end == DUMP_KILLED)
		files_let_go(&dump->snapshot, end);
	dump->released = true;
	dump_restore_priority(dump);
	return result;
}

bool dump_tree_runs_on(const struct dump *dump)
{
	return dump->request->policy.leave_running && !dump->request->moments.count;
}

/*
 * A tree that will continue need not wait until its images are on disk. But receivers of post-dump expect it frozen,
 * and a tree that will be left stopped would stay so if the dump still failed.
 */
int dump_release_early(void *context)
{
	struct dump *dump = context;

	if (dump_tree_runs_on(dump))
		return release(dump);
	dump_restore_priority(dump); /* the rest waits for the disk, and starts processes */
	return 0;
}

int dump_release(void *context)
{
	struct dump *dump = context;

	return dump->released ? 0 : release(dump);
}
