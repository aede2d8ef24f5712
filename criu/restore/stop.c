/*
 * stop.c - tasks that were stopped are stopped again, by the same signal, before anybody runs; and their parents, who have heard of it
 * long ago, do not hear of it twice: SIGCHLD is taken out of the parent's queue again, and if it had waited for the child, it has
 * done so again. Children are finished before their parents for that.
 */
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "restore/restore.h"
#include "task/part.h"

static const char *name_of(int signal)
{
	return signal == SIGTSTP ? "SIGTSTP" :
	       signal == SIGTTIN ? "SIGTTIN" :
	       signal == SIGTTOU ? "SIGTTOU" :
				   "SIGSTOP";
}

int stop_again(struct task *task)
{
	const TaskCoreEntry *core = task->cores[0]->tc;
	int signal = core->has_stop_signo ? (int)core->stop_signo : SIGSTOP, result;

	if (task->state != TASK_STOPPED)
		return 0;
	result = signal_has_default_action(task, signal) ? victim_stop(task->victim, signal) : STOP_IGNORED;
	if (result == STOP_IGNORED) {
		log_warning(
			"process %d (%s) was stopped by %s, which stops nobody in an orphaned process group: now it is by SIGSTOP",
			task->pid, task->name, name_of(signal));
		result = victim_stop(task->victim, SIGSTOP);
	}
	if (result == STOP_COUNTERMANDED)
		log_info("process %d (%s) is not stopped again: it got SIGCONT meanwhile", task->pid,
			 task->name);
	return min(result, 0);
}

static bool waits_for_child_signal(const SignalQueueEntry *queue)
{
	for (size_t i = 0; queue && i < queue->n_signals; i++)
		if (*(const int *)queue->signals[i]->siginfo.data == SIGCHLD)
			return true;
	return false;
}

/* Then another one is not even queued, and which of them is taken could not be told. */
static bool has_child_signal(const struct task *task)
{
	bool found = waits_for_child_signal(task->cores[0]->tc->signals_s);

	for (size_t i = 0; !found && i < task->thread_count; i++)
		found = waits_for_child_signal(task->cores[i]->thread_core->signals_p);
	return found;
}

static bool has_stopped_child(const struct task *task)
{
	const struct task *child;

	list_for_each (child, &task->children, sibling)
		if (child->state == TASK_STOPPED)
			return true;
	return false;
}

void stop_hush(const struct task *task, struct call_list *calls)
{
	const uint64_t child_signal = 1ULL << (SIGCHLD - 1);
	const struct timespec now = { 0 };
	const struct task *child;

	if (!has_stopped_child(task))
		return;
	if (!has_child_signal(task)) {
		call(calls, "take the signal of a child that stopped", SYS_rt_sigtimedwait,
		     calls_bytes(calls, &child_signal, sizeof(child_signal)), 0,
		     calls_bytes(calls, &now, sizeof(now)), sizeof(child_signal));
		calls_accept(calls, EAGAIN);
	}
	list_for_each (child, &task->children, sibling)
		if (child->state == TASK_STOPPED && child->cores[0]->tc->stop_reported)
			call(calls, "hear of a child that stopped", SYS_waitid, P_PID, child->pid, 0,
			     WSTOPPED | WNOHANG | __WALL);
}
