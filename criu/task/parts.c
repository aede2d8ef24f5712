/*
 * parts.c - the aspects of a task, in the order in which restore makes them again.
 *
 * That is the order of prepare(), make() and finish(). All parts are prepared, in the newborn and with criu's privileges, before the first
 * call of make() is made. The dump goes through the same table: a part whose hear() needs what others have heard says so in
 * `hears_after`, and must stand below them (a unit test looks).
 */
#include <stdlib.h>
#include "base/memory.h"
#include "task/part.h"

const struct task_part *const task_parts[] = {
	&part_memory_layout, /* first: names of areas and the executable, with all privileges */
	&part_memory_keys,   /* dump only: restore/protection.c has to do it before there are threads */
	&part_memory_locks,  /* all its memory is there; needs CAP_IPC_LOCK or a limit */
	&part_process, /* personality, subreaper, …: needs nothing. Prepares: files of /proc, by their paths */
	&part_directories, /* prepares only, with CAP_SYS_CHROOT; from here on paths may begin at another root */
	&part_identity,	   /* name, thread ids, rseq: memory is there */
	&part_scheduling,      /* needs CAP_SYS_NICE */
	&part_machine,	       /* needs privileges, too */
	&part_signals,	       /* actions before anything can be pending. Prepares: blocks all signals */
	&part_posix_timers,    /* made here, with all privileges */
	&part_limits,	       /* after memory, which they would limit; needs no privilege but to raise */
	&part_credentials,     /* drops privileges: nothing above would work after it */
	&part_pending_signals, /* a thread may send itself anything; actions and masks stand */
	/* Dump: what goes off while the tree stands still is in a queue, or the timer has it. Both hear after the queues. */
	&part_timers, /* last: they tick from here on. Prepares: one runs out, and its signal has to be blocked */
	&part_posix_timers_set,
};

const size_t task_part_count = array_size(task_parts);

void task_parts_ask(const struct snapshot *snapshot, const struct task *task, size_t thread, uint64_t base,
		    struct questions *questions)
{
	calls_init(&questions->calls, base);
	questions->asked = allocate_array(task_part_count, sizeof(*questions->asked));
	for (size_t i = 0; i < task_part_count; i++)
		if (task_parts[i]->ask)
			questions->asked[i] = task_parts[i]->ask(snapshot, task, thread, &questions->calls);
}

int task_parts_hear(const struct snapshot *snapshot, struct task *task, size_t thread,
		    const struct questions *questions)
{
	int result = 0;

	for (size_t i = 0; !result && i < task_part_count; i++)
		if (task_parts[i]->hear)
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
		if (task_parts[i]->prepare)
			result = task_parts[i]->prepare(snapshot, task);
	return result;
}

int task_parts_check(const struct snapshot *snapshot, const struct task *task, size_t thread)
{
	int result = 0;

	for (size_t i = 0; !result && i < task_part_count; i++)
		if (task_parts[i]->check)
			result = task_parts[i]->check(snapshot, task, thread);
	return result;
}
