/*
 * stop.c - stops tasks again that were stopped, by the same signal, before any task runs. Their parents were told of
 * the stop before the dump and must not be told twice: SIGCHLD is taken out of the parent's queue again, and if the
 * parent had waited for the child, it does so again. Therefore children are finished before their parents.
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
	switch (signal) {
	case SIGTSTP:
		return "SIGTSTP";
	case SIGTTIN:
		return "SIGTTIN";
	case SIGTTOU:
		return "SIGTTOU";
	default:
		return "SIGSTOP";
	}
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
			"process %d (%s) was stopped by %s, which does not stop processes in an orphaned process group: SIGSTOP is used",
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

/* Is a SIGCHLD pending? Then another one would not be queued, and it would be unknown which one is taken. */
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
		add_call(calls, "take the signal of a stopped child", SYS_rt_sigtimedwait,
			 calls_bytes(calls, &child_signal, sizeof(child_signal)), 0,
			 calls_bytes(calls, &now, sizeof(now)), sizeof(child_signal));
		calls_accept(calls, EAGAIN);
	}
	list_for_each (child, &task->children, sibling)
		if (child->state == TASK_STOPPED && child->cores[0]->tc->stop_reported)
			add_call(calls, "wait for a stopped child", SYS_waitid, P_PID,
				 thread_id_seen_by(&child->threads[0], task), 0, WSTOPPED | WNOHANG | __WALL);
}
