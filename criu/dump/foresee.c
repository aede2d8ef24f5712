/*
 * foresee.c - checks whether a criu with the same privileges could restore this tree here. A dump that would end its
 * processes checks this first, and is refused if not. If the processes live on, it is a warning: the images may be
 * meant for another machine.
 *
 * The checks are those that a restore makes before it creates anything (restore/check.c), as far as they depend on this
 * machine and on criu's privileges: the numbers of descriptors and mappings, before anything is changed; then the
 * check() of each part of each task.
 */
#include <errno.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "dump/dump.h"
#include "files/kind.h"
#include "memory/mapping_limit.h"
#include "memory/stack.h"
#include "task/part.h"

static bool ends_processes(const struct dump *dump)
{
	return !dump->request->policy.leave_running && !dump->request->policy.leave_stopped;
}

static void tell_forecast(const struct dump *dump, const char *sentence)
{
	if (ends_processes(dump))
		refuse("%s", sentence);
	else
		log_warning("%s", sentence);
}

/* The number of directories that a restore keeps open, and their locks. */
static size_t count_directories(const struct dump *dump)
{
	return dump->memory.increment.chain ? 2 * page_chain_length(dump->memory.increment.chain) : 0;
}

void dump_foresee_limits(struct dump *dump)
{
	autofree char *lack = files_lack_descriptors(&dump->snapshot,
						     dump->own_descriptors + count_directories(dump));
	struct mapping_limit limit;
	const struct task *task;

	if (lack) {
		tell_forecast(dump, lack);
		if (ends_processes(dump))
			fail_advice(
				"a higher hard limit of open files for criu (ulimit -Hn), CAP_SYS_RESOURCE, or --leave-running");
	}
	mapping_limit_read(&limit);
	for_each_leader (task, &dump->snapshot, OBJECT_MEMORY) {
		autofree char *too_many = mapping_limit_exceeded(&limit, task);

		if (!too_many)
			continue;
		tell_forecast(dump, too_many);
		if (ends_processes(dump))
			fail_advice("sysctl vm.max_map_count=%zu", mapping_limit_needed(&limit, task));
	}
}

static int check_parts(const struct dump *dump, const struct task *task)
{
	int result = 0;

	for (size_t i = 0; !result && i < task->thread_count; i++)
		result = task_parts_check(&dump->snapshot, task, i);
	return result;
}

static int check_tasks(struct dump *dump)
{
	const struct task *task;

	for_each_task (task, &dump->snapshot) {
		int result = task->state == TASK_DEAD ? 0 : check_parts(dump, task);

		if (result)
			return fail_in(result, "process %d (%s) could not be restored here", task->here,
				       task->name);
	}
	return 0;
}

int dump_foresee(void *context)
{
	struct dump *dump = context;
	struct attempt attempt;
	int result;

	if (ends_processes(dump)) {
		result = check_tasks(dump);
		if (result)
			fail_advice("--leave-running, if it is to be restored elsewhere");
		return result;
	}
	attempt_begin(&attempt);
	if (check_tasks(dump))
		log_warning("%s", failure_text());
	attempt_forget(&attempt);
	return 0;
}
