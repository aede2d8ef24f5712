/*
 * limits.c - resource limits (getrlimit(2)).
 *
 * On restore they are set after memory and files, which they would limit. The limit of pending signals is set when all
 * threads have theirs: a thread may have more pending signals than its limit would allow now.
 *
 * They are read from /proc/PID/limits: prlimit() on a task of another user needs CAP_SYS_RESOURCE, which root does not
 * have in containers and on many machines.
 */
#include <errno.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include "base/error.h"
#include "image/message.h"
#include "kernel/proc.h"
#include "task/part.h"

static int limits_look(struct snapshot *snapshot unused, struct task *task, size_t thread,
		       const struct thread_facts *facts unused)
{
	TaskCoreEntry *core = task->cores[thread]->tc;
	struct rlimit limits[RLIM_NLIMITS];

	if (thread)
		return 0;
	if (proc_read_limits(task->proc, limits))
		return -EINVAL;
	core->rlimits = message_new(TaskRlimitsEntry, task_rlimits_entry);
	message_array(core->rlimits, rlimits, RLIM_NLIMITS);
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		RlimitEntry *entry = core->rlimits->rlimits[i] = message_new(RlimitEntry, rlimit_entry);

		entry->cur = limits[i].rlim_cur;
		entry->max = limits[i].rlim_max;
	}
	return 0;
}

/* Can criu set the task's limits? Every process can lower a hard limit, but raising it needs CAP_SYS_RESOURCE. */
static int limits_check(const struct snapshot *snapshot unused, const struct task *task, size_t thread)
{
	const TaskRlimitsEntry *entries = thread ? NULL : task->cores[0]->tc->rlimits;

	for (size_t i = 0; entries && i < entries->n_rlimits && i < RLIM_NLIMITS; i++) {
		const RlimitEntry *entry = entries->rlimits[i];
		struct rlimit ours;

		if (entry->cur > entry->max)
			return fail(EINVAL, "the core image has a soft limit above its hard limit: %s",
				    proc_limit_name(i));
		if (getrlimit(i, &ours) < 0 || entry->max <= ours.rlim_max)
			continue;
		ours.rlim_max = entry->max; /* try it: the kernel decides whether it is allowed */
		if (setrlimit(i, &ours) < 0) {
			fail_advice("run criu with CAP_SYS_RESOURCE, or under a higher limit");
			return fail(errno, "the hard limit '%s' (ulimit) cannot be raised to %llu",
				    proc_limit_name(i), (unsigned long long)entry->max);
		}
	}
	return 0;
}

static void set_limit(int resource, struct rlimit limit, struct call_list *calls)
{
	add_call(calls, "set a resource limit", SYS_prlimit64, 0, resource,
		 calls_bytes(calls, &limit, sizeof(limit)), 0);
}

static void limits_make(const struct snapshot *snapshot unused, const struct task *task, size_t thread,
			struct call_list *calls)
{
	const TaskRlimitsEntry *entries = thread ? NULL : task->cores[0]->tc->rlimits;

	for (size_t i = 0; entries && i < entries->n_rlimits && i < RLIM_NLIMITS; i++) {
		struct rlimit limit = { entries->rlimits[i]->cur, entries->rlimits[i]->max };

		if (i == RLIMIT_SIGPENDING && getrlimit(RLIMIT_SIGPENDING, &limit) == 0)
			limit.rlim_cur = limit.rlim_max; /* as high as allowed, until finish() */
		set_limit(i, limit, calls);
	}
}

static void limits_finish(const struct snapshot *snapshot unused, const struct task *task, size_t thread,
			  struct call_list *calls)
{
	const TaskRlimitsEntry *entries = thread ? NULL : task->cores[0]->tc->rlimits;

	if (entries && entries->n_rlimits > RLIMIT_SIGPENDING) {
		const RlimitEntry *entry = entries->rlimits[RLIMIT_SIGPENDING];

		set_limit(RLIMIT_SIGPENDING, (struct rlimit){ entry->cur, entry->max }, calls);
	}
}

const struct task_part part_limits = {
	.name = "limits",
	.look = limits_look,
	.check = limits_check,
	.make = limits_make,
	.finish = limits_finish,
};
