/*
 * scheduling.c - policy, priority and nice value of a thread (sched(7)).
 */
#include <errno.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include "base/error.h"
#include "image/message.h"
#include "task/part.h"

static bool is_realtime(unsigned policy)
{
	return policy == SCHED_FIFO || policy == SCHED_RR;
}

static int look(struct task *task, size_t thread, const struct thread_facts *facts unused)
{
	ThreadCoreEntry *core = task->cores[thread]->thread_core;
	pid_t tid = task->threads[thread];
	int policy = sched_getscheduler(tid);
	struct sched_param parameters;

	if (policy < 0 || sched_getparam(tid, &parameters) < 0)
		return fail(errno, "cannot read how thread %d is scheduled", tid);
	if ((policy & ~SCHED_RESET_ON_FORK) > SCHED_IDLE)
		return refuse("process %d (%s): thread %d has scheduling policy %d, which is not supported",
			      task->pid, task->name, tid, policy);
	message_set(core, sched_policy, policy);
	if (is_realtime(policy & ~SCHED_RESET_ON_FORK))
		message_set(core, sched_prio, parameters.sched_priority);
	errno = 0;
	message_set(core, sched_nice, getpriority(PRIO_PROCESS, tid));
	return errno ? fail(errno, "cannot read the nice value of thread %d", tid) : 0;
}

static void make(const struct task *task, size_t thread, struct call_list *calls)
{
	const ThreadCoreEntry *core = task->cores[thread]->thread_core;
	struct sched_param parameters = { .sched_priority = core->sched_prio };

	/* A newborn has the policy and nice value of criu itself, so both are always set. */
	if (core->has_sched_policy)
		call(calls, "set the scheduling policy", SYS_sched_setscheduler, 0, core->sched_policy,
		     calls_bytes(calls, &parameters, sizeof(parameters)));
	if (core->has_sched_nice)
		call(calls, "set the nice value", SYS_setpriority, PRIO_PROCESS, 0,
		     (uint64_t)core->sched_nice);
}

const struct task_part part_scheduling = { .name = "scheduling", .look = look, .make = make };
