/*
 * ask.c - inserts the parasite into the tasks and asks what only they can tell: signal actions, timers, alternate
 * stacks, …
 *
 * The questions to a thread are one list, and many threads answer theirs at the same time. The leader, which also
 * answers for the process, is asked alone, because its list is long. Threads are also asked one at a time if the owner
 * of a timer is found by whose CPU time advances.
 */
#include <errno.h>
#include "base/error.h"
#include "calls.h"
#include "compel.h"
#include "dump/dump.h"
#include "task/part.h"

static int ask_alone(const struct snapshot *snapshot, struct task *task, size_t thread)
{
	struct questions questions;
	int result;
	size_t room;

	task_parts_ask(snapshot, task, thread, victim_scratch(task->victim, &room), &questions);
	result = questions.calls.size > room ? fail(0, "the questions do not fit into the parasite") :
					       calls_make(&questions.calls, task->victim, thread);
	if (!result)
		result = task_parts_hear(snapshot, task, thread, &questions);
	questions_free(&questions);
	return result;
}

static int ask_threads(const struct snapshot *snapshot, struct task *task, size_t first, size_t count)
{
	struct thread_calls calls[PARASITE_LISTS];
	struct questions questions[PARASITE_LISTS];
	int result;

	for (size_t i = 0; i < count; i++) {
		const struct call_list *list = &questions[i].calls;

		task_parts_ask(snapshot, task, first + i, victim_desk(task->victim, i), &questions[i]);
		calls[i] = (struct thread_calls){ .thread = first + i,
						  .abi = list->abi,
						  .calls = list->calls,
						  .count = list->count,
						  .bytes = list->bytes,
						  .size = list->size };
	}
	result = victim_call_threads(task->victim, calls, count);
	for (size_t i = 0; i < count; i++) {
		if (!result)
			result = task_parts_hear(snapshot, task, first + i, &questions[i]);
		questions_free(&questions[i]);
	}
	return result;
}

static int ask_task(const struct snapshot *snapshot, struct task *task)
{
	bool is_one_by_one = posix_timers_look_for_owners(task);
	int result = victim_infect(task->victim) ?: ask_alone(snapshot, task, 0);

	for (size_t i = 1; !result && is_one_by_one && i < task->thread_count; i++)
		result = ask_alone(snapshot, task, i);
	for (size_t i = 1; !result && !is_one_by_one && i < task->thread_count; i += PARASITE_LISTS)
		result = ask_threads(snapshot, task, i, min(task->thread_count - i, (size_t)PARASITE_LISTS));
	return result;
}

int dump_ask(void *context)
{
	struct dump *dump = context;
	struct task *task;

	for_each_task (task, &dump->snapshot) {
		int result = task->state == TASK_DEAD ? 0 : ask_task(&dump->snapshot, task);

		if (result)
			return fail_in(result, "process %d (%s)", task->pid, task->name);
	}
	return 0;
}

/* Removes the parasite from all tasks. Best effort: a failure is logged and does not stop the others. */
void dump_leave(void *context)
{
	struct dump *dump = context;
	struct task *task;

	for_each_task (task, &dump->snapshot)
		if (task->victim && task->victim->infection)
			ignore(victim_cure(task->victim));
}
