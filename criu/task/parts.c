/*
 * parts.c - the parts of a task, in the order in which restore runs them.
 *
 * This is the order of prepare(), make() and finish(). All parts are prepared, in the newborn and with criu's
 * privileges, before the first call of make() is made. The dump uses the same table: a part whose hear() needs what
 * others have heard lists them in `hears_after`, and must stand below them (a unit test checks).
 */
#include <stdlib.h>
#include "base/memory.h"
#include "task/part.h"

const struct task_part *const task_parts[] = {
	&part_memory_layout, /* first: names of areas and the executable, with all privileges */
	&part_memory_keys,   /* dump only: restore/protection.c sets them before there are threads */
	&part_memory_locks,  /* all memory exists; needs CAP_IPC_LOCK or a limit */
	&part_process, /* personality, subreaper, …: no privileges. prepare() writes files of /proc, by their paths */
	&part_directories, /* only prepare(), with CAP_SYS_CHROOT; from here on, paths may resolve below another root */
	&part_identity,	       /* name, thread ids, rseq: memory exists */
	&part_scheduling,      /* needs CAP_SYS_NICE */
	&part_machine,	       /* also needs privileges */
	&part_signals,	       /* actions before anything can be pending. prepare() blocks all signals */
	&part_posix_timers,    /* creates them, with all privileges */
	&part_ring_buffers,    /* memory and descriptors exist; before a limit that may be too low now */
	&part_limits,	       /* after memory, which they would limit; only raising needs a privilege */
	&part_credentials,     /* drops privileges: nothing above would work after this */
	&part_pending_signals, /* a thread may send itself any signal; actions and masks are set */
	/*
	 * Dump: a timer that expires while the tree is stopped is in a signal queue, or is known to the timer. So
	 * hear() of both runs after that of the queues.
	 */
	&part_timers, /* last: timers run from here on. prepare() expires the dead ones (timers.c) */
	&part_posix_timers_set,
	&part_rings, /* requests wait with the credentials of the thread, and timeouts run */
};

const size_t task_part_count = array_size(task_parts);

void task_parts_ask(const struct snapshot *snapshot, const struct task *task, size_t thread, uint64_t base,
		    struct questions *questions)
{
	calls_init(&questions->calls, base);
	questions->asked = allocate_array(task_part_count, sizeof(*questions->asked));
	for (size_t i = 0; i < task_part_count; i++)
		if (task_parts[i]->ask && part_concerns(task_parts[i], task, thread))
			questions->asked[i] = task_parts[i]->ask(snapshot, task, thread, &questions->calls);
}

int task_parts_hear(const struct snapshot *snapshot, struct task *task, size_t thread,
		    const struct questions *questions)
{
	int result = 0;

	for (size_t i = 0; !result && i < task_part_count; i++)
		if (task_parts[i]->hear && part_concerns(task_parts[i], task, thread))
			result = task_parts[i]->hear(snapshot, task, thread, &questions->calls,
						     questions->asked[i]);
	return result;
}

void questions_free(struct questions *questions)
{
	for (size_t i = 0; i < task_part_count; i++)
		free(questions->asked[i]);
	free(questions->asked);
	calls_free(&questions->calls);
}

int task_parts_prepare(const struct snapshot *snapshot, const struct task *task)
{
	int result = 0;

	for (size_t i = 0; !result && i < task_part_count; i++)
		if (task_parts[i]->prepare && part_concerns(task_parts[i], task, 0))
			result = task_parts[i]->prepare(snapshot, task);
	return result;
}

int task_parts_check(const struct snapshot *snapshot, const struct task *task, size_t thread)
{
	int result = 0;

	for (size_t i = 0; !result && i < task_part_count; i++)
		if (task_parts[i]->check && part_concerns(task_parts[i], task, thread))
			result = task_parts[i]->check(snapshot, task, thread);
	return result;
}
