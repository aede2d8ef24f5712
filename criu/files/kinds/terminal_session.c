/*
 * terminal_session.c - dump: the sessions that terminals control. See terminal.h.
 *
 * /proc/PID/stat of a task tells the terminal of its session, by device number, and the foreground group. It is read
 * once for each task, when the first terminal is found.
 */
#include <errno.h>
#include <stdlib.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kinds/terminal.h"

static int read_stats(const struct snapshot *snapshot, struct terminals *terminals)
{
	const struct task *task;

	if (terminals->stats)
		return 0;
	terminals->stats = allocate_array(snapshot->task_count, sizeof(*terminals->stats));
	for_each_task (task, snapshot) {
		struct proc_stat *stat = &terminals->stats[terminals->stat_count];
		int result;

		if (task->state == TASK_DEAD)
			continue;
		result = proc_read_stat(task->proc, stat);
		if (result)
			return result;
		terminals->stat_count++;
		if (stat->terminal && !index_find(&terminals->controlled, stat->terminal))
			index_set(&terminals->controlled, stat->terminal, stat);
	}
	return 0;
}

int terminal_find_session(struct snapshot *snapshot, const struct seen_file *seen, dev_t device,
			  TtyInfoEntry *info)
{
	struct terminals *terminals = terminals_of(snapshot);
	int result = read_stats(snapshot, terminals);
	const struct proc_stat *stat = result ? NULL : index_find(&terminals->controlled, device);

	if (result)
		return result;
	if (!stat)
		return 0;
	if (info->type == TTY_TYPE__CTTY && snapshot_name_of(snapshot, stat->session) != seen->holder.session)
		return 0;
	info->sid = snapshot_name_of(snapshot, stat->session);
	info->pgrp = stat->foreground > 0 ? snapshot_name_of(snapshot, stat->foreground) : 0;
	return 0;
}

/* ---- terminals that no task has open ---- */

static bool is_known(const struct terminals *terminals, const struct index *devices,
		     const struct proc_stat *stat)
{
	return terminals->count && index_find(devices, stat->terminal);
}

/* No task has it open, so the restored session has none. */
static void lose_terminal(const struct proc_stat *stat)
{
	if (major(stat->terminal) == PTS_MAJOR) {
		log_warning(
			"process %d (%s): no process of the tree has the terminal of its session open (/dev/pts/%u): "
			"it will no longer control the restored session",
			stat->pid, stat->comm, minor(stat->terminal));
		return;
	}
	refuse("process %d (%s): the terminal of its session (device %u:%u), which no process of the tree has open, would "
	       "be hung up for all others",
	       stat->pid, stat->comm, major(stat->terminal), minor(stat->terminal));
	fail_advice("first let the process give up its terminal (TIOCNOTTY)");
}

/*
 * When the leader of a session dies, the kernel hangs up its terminal, unless that is a pty (6.18,
 * disassociate_ctty()).
 */
int terminal_check_control(struct snapshot *snapshot)
{
	struct terminals *terminals = terminals_of(snapshot);
	struct index devices = { 0 };
	int result = read_stats(snapshot, terminals);

	for (size_t i = 0; i < terminals->count; i++)
		if (terminals->seen[i]->device)
			index_set(&devices, terminals->seen[i]->device, terminals->items[i]);
	for (size_t i = 0; !result && i < terminals->stat_count; i++) {
		const struct proc_stat *stat = &terminals->stats[i];

		if (stat->terminal && stat->session == stat->pid && !is_known(terminals, &devices, stat))
			lose_terminal(stat);
	}
	index_free(&devices);
	return result;
}
