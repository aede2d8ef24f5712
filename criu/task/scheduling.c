/*
 * scheduling.c - scheduling of a thread: policy, priority, nice value (sched(7)), CPUs, timer slack, I/O priority.
 *
 * A newborn inherits criu's own values, so all of them are always set. A thread that may run on all CPUs of its cpuset
 * will run on all CPUs of its new cpuset, too. If a thread is restricted to CPUs that do not exist here, the log tells.
 */
#include <errno.h>
#include <linux/ioprio.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include "base/error.h"
#include "base/log.h"
#include "image/message.h"
#include "kernel/cpus.h"
#include "task/part.h"

struct asked {
	call_handle slack;
};

static bool is_realtime(unsigned policy)
{
	return policy == SCHED_FIFO || policy == SCHED_RR;
}

/* ---- CPUs ---- */

static int read_affinity(pid_t tid, ThreadCoreEntry *core)
{
	struct cpus cpus;
	int result = cpus_get_affinity(tid, &cpus);

	if (result)
		return fail(-result, "cannot read the CPUs of thread %d", tid);
	core->has_cpu_affinity = true;
	core->cpu_affinity.len = cpus_length(&cpus);
	core->cpu_affinity.data = copy_bytes(cpus.bits, core->cpu_affinity.len);
	return 0;
}

void scheduling_drop_full_affinity(ThreadCoreEntry *core, const struct cpus *all)
{
	ProtobufCBinaryData *affinity = &core->cpu_affinity;

	if (!affinity->len || affinity->len != cpus_length(all) ||
	    memcmp(affinity->data, all->bits, affinity->len) != 0)
		return;
	free(affinity->data);
	*affinity = (ProtobufCBinaryData){ 0 };
}

static void cpus_of_image(const ThreadCoreEntry *core, struct cpus *cpus)
{
	memset(cpus, 0, sizeof(*cpus));
	memcpy(cpus, core->cpu_affinity.data, min(core->cpu_affinity.len, sizeof(*cpus)));
}

static int check_cpus(const struct task *task, size_t thread)
{
	if (task->cores[thread]->thread_core->cpu_affinity.len > sizeof(struct cpus))
		return fail(EINVAL, "the core image has more CPUs than any machine");
	return 0;
}

void scheduling_warn_of_cpus(const struct task *task, size_t thread, const struct cpus *here)
{
	const ThreadCoreEntry *core = task->cores[thread]->thread_core;
	bool has_some = false, lacks_some = false;
	struct cpus wanted;

	cpus_of_image(core, &wanted);
	for (size_t i = 0; i < sizeof(wanted.bits); i++) {
		has_some |= wanted.bits[i] & here->bits[i];
		lacks_some |= wanted.bits[i] & ~here->bits[i];
	}
	if (lacks_some)
		log_warning(
			"thread %d of process %d was restricted to CPUs that do not all exist here: it %s",
			thread_shown_id(&task->threads[thread]), task_shown_id(task),
			has_some ? "gets fewer" : "may run on all");
}

/* None of them may exist here or be in the cpuset: then it runs on the whole cpuset. */
static void make_cpus(const ThreadCoreEntry *core, struct call_list *calls)
{
	struct cpus cpus;

	if (!core->has_cpu_affinity)
		return;
	cpus_fill(&cpus);
	add_call(calls, "let it run on all CPUs", SYS_sched_setaffinity, 0, sizeof(cpus),
		 calls_bytes(calls, &cpus, sizeof(cpus)));
	if (!core->cpu_affinity.len)
		return;
	add_call(calls, "keep it to its CPUs", SYS_sched_setaffinity, 0, core->cpu_affinity.len,
		 calls_bytes(calls, core->cpu_affinity.data, core->cpu_affinity.len));
	calls_accept(calls, EINVAL);
}

int scheduling_set_affinity(const struct task *task, size_t thread)
{
	const ThreadCoreEntry *core = task->cores[thread]->thread_core;
	struct cpus cpus;
	int result;

	if (!core->has_cpu_affinity || !core->cpu_affinity.len)
		return 0;
	cpus_of_image(core, &cpus);
	result = cpus_set_affinity(task->threads[thread].here, &cpus);
	return result && result != -EINVAL ? fail(-result, "cannot bind thread %d to its CPUs",
						  thread_shown_id(&task->threads[thread])) :
					     0;
}

/* ---- dump ---- */

static int scheduling_look(struct snapshot *snapshot unused, struct task *task, size_t thread,
			   const struct thread_facts *facts unused)
{
	ThreadCoreEntry *core = task->cores[thread]->thread_core;
	pid_t tid = task->threads[thread].here;
	int policy = sched_getscheduler(tid);
	struct sched_param parameters;
	long io_priority;

	if (policy < 0)
		return fail(errno, "cannot read how thread %d is scheduled", tid);
	if ((policy & ~SCHED_RESET_ON_FORK) > SCHED_IDLE)
		return refuse("process %d (%s): thread %d has scheduling policy %d, which is not supported",
			      task->here, task->name, tid, policy & ~SCHED_RESET_ON_FORK);
	message_set(core, sched_policy, policy);
	if (is_realtime(policy & ~SCHED_RESET_ON_FORK)) {
		if (sched_getparam(tid, &parameters) < 0)
			return fail(errno, "cannot read the priority of thread %d", tid);
		message_set(core, sched_prio, parameters.sched_priority);
	}
	errno = 0;
	message_set(core, sched_nice, getpriority(PRIO_PROCESS, tid));
	if (errno)
		return fail(errno, "cannot read the nice value of thread %d", tid);
	io_priority = syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, tid);
	if (io_priority >= 0) /* a kernel without block devices has no I/O priority */
		message_set(core, io_priority, io_priority);
	return read_affinity(tid, core);
}

static void *scheduling_ask(const struct snapshot *snapshot unused, const struct task *task unused,
			    size_t thread unused, struct call_list *calls)
{
	struct asked *asked = allocate(sizeof(*asked));

	asked->slack = add_call(calls, "ask for the timer slack", SYS_prctl, PR_GET_TIMERSLACK);
	return asked;
}

static int scheduling_hear(const struct snapshot *snapshot unused, struct task *task, size_t thread,
			   const struct call_list *calls, const void *state)
{
	const struct asked *asked = state;

	message_set(task->cores[thread]->thread_core, timer_slack, calls_result(calls, asked->slack));
	return 0;
}

/* ---- restore ---- */

static int scheduling_check(const struct snapshot *snapshot unused, const struct task *task, size_t thread)
{
	const ThreadCoreEntry *core = task->cores[thread]->thread_core;

	if (core->has_sched_policy && (core->sched_policy & ~SCHED_RESET_ON_FORK) > SCHED_IDLE)
		return fail(EINVAL, "thread %d had scheduling policy %u, which is not supported",
			    thread_shown_id(&task->threads[thread]),
			    core->sched_policy & ~SCHED_RESET_ON_FORK);
	return check_cpus(task, thread);
}

static void scheduling_make(const struct snapshot *snapshot unused, const struct task *task, size_t thread,
			    struct call_list *calls)
{
	const ThreadCoreEntry *core = task->cores[thread]->thread_core;
	struct sched_param parameters = { .sched_priority = core->sched_prio };

	make_cpus(core, calls);
	/* A real-time thread has none (Linux 6.13), and 0 would mean the value of its parent. */
	if (core->has_timer_slack && core->timer_slack)
		add_call(calls, "set the timer slack", SYS_prctl, PR_SET_TIMERSLACK, core->timer_slack);
	if (core->has_io_priority)
		add_call(calls, "set the I/O priority", SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0,
			 core->io_priority);
	if (core->has_sched_policy)
		add_call(calls, "set the scheduling policy", SYS_sched_setscheduler, 0, core->sched_policy,
			 calls_bytes(calls, &parameters, sizeof(parameters)));
	if (core->has_sched_nice)
		add_call(calls, "set the nice value", SYS_setpriority, PRIO_PROCESS, 0,
			 (uint64_t)core->sched_nice);
}

const struct task_part part_scheduling = {
	.name = "scheduling",
	.look = scheduling_look,
	.ask = scheduling_ask,
	.hear = scheduling_hear,
	.check = scheduling_check,
	.make = scheduling_make,
};
