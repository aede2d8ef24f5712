/*
 * ask.c - inserts the parasite into the tasks and asks what only they can tell: signal actions, timers, alternate
 * stacks, …
 *
 * The questions to a thread are one list, and many threads answer theirs at the same time: first the leaders of many
 * processes, which also answer for their process; then the other threads of each process. Threads are asked one at a
 * time if the owner of a timer is found by whose CPU time advances.
 */
#include <errno.h>
#include "base/error.h"
#include "base/memory.h"
#include "calls.h"
#include "compel.h"
#include "dump/dump.h"
#include "task/part.h"

static int check_space(const struct victim *victim, const struct call_list *list)
{
	size_t space;

	victim_scratch(victim, &space);
	return list->size > space ?
		       fail(0, "examining the process takes more system calls than criu can make at once") :
		       0;
}

/* The list of a thread, as compel takes it. */
static struct thread_calls calls_of(const struct questions *questions, size_t thread)
{
	const struct call_list *list = &questions->calls;

	return (struct thread_calls){ .thread = thread,
				      .abi = list->abi,
				      .calls = list->calls,
				      .count = list->count,
				      .bytes = list->bytes,
				      .size = list->size };
}

static int ask_alone(const struct snapshot *snapshot, struct task *task, size_t thread)
{
	struct process_calls calls = { .victim = task->victim };
	struct questions questions;
	int result;

	task_parts_ask(snapshot, task, thread, victim_scratch(task->victim, NULL), &questions);
	calls.list = calls_of(&questions, thread);
	result = check_space(task->victim, &questions.calls) ?: victims_call(&calls, 1, NULL);
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
		task_parts_ask(snapshot, task, first + i, victim_desk(task->victim, i), &questions[i]);
		calls[i] = calls_of(&questions[i], first + i);
	}
	result = victim_call_threads(task->victim, calls, count);
	for (size_t i = 0; i < count; i++) {
		if (!result)
			result = task_parts_hear(snapshot, task, first + i, &questions[i]);
		questions_free(&questions[i]);
	}
	return result;
}

static int ask_other_threads(const struct snapshot *snapshot, struct task *task)
{
	bool is_one_by_one = posix_timers_look_for_owners(task);
	int result = 0;

	for (size_t i = 1; !result && is_one_by_one && i < task->thread_count; i++)
		result = ask_alone(snapshot, task, i);
	for (size_t i = 1; !result && !is_one_by_one && i < task->thread_count; i += PARASITE_LISTS)
		result = ask_threads(snapshot, task, i, min(task->thread_count - i, (size_t)PARASITE_LISTS));
	return result;
}

/* ---- many processes at the same time ---- */

struct group {
	const struct snapshot *snapshot;
	size_t count;
	struct task *tasks[VICTIM_GROUP];
	struct victim *victims[VICTIM_GROUP];
	struct questions questions[VICTIM_GROUP];
	struct process_calls calls[VICTIM_GROUP];
};

/* Asks the leader of each. *failed is the index of the task that a failure belongs to. */
static int ask_first_threads(struct group *group, size_t *failed)
{
	int result = 0;

	for (size_t i = 0; i < group->count; i++) {
		struct task *task = group->tasks[i];
		struct questions *questions = &group->questions[i];

		task_parts_ask(group->snapshot, task, 0, victim_scratch(task->victim, NULL), questions);
		group->calls[i] = (struct process_calls){ task->victim, calls_of(questions, 0) };
		if (!result && (result = check_space(task->victim, &questions->calls)))
			*failed = i;
	}
	return result ?: victims_call(group->calls, group->count, failed);
}

static int hear_answers(struct group *group, size_t *failed)
{
	int result = 0;

	for (size_t i = 0; i < group->count && !result; i++) {
		*failed = i;
		result = task_parts_hear(group->snapshot, group->tasks[i], 0, &group->questions[i]) ?:
				 ask_other_threads(group->snapshot, group->tasks[i]);
	}
	return result;
}

static int ask_group(struct group *group)
{
	size_t failed = 0;
	int result = victims_infect(group->victims, group->count, &failed);

	if (!result) {
		result = ask_first_threads(group, &failed) ?: hear_answers(group, &failed);
		for (size_t i = 0; i < group->count; i++)
			questions_free(&group->questions[i]);
	}
	if (result)
		fail_in(result, "process %d (%s)", group->tasks[failed]->here, group->tasks[failed]->name);
	group->count = 0;
	return result;
}

/*
 * A process that shares the memory of an earlier one is asked alone: in one group, both would choose the same free
 * place for the parasite.
 */
static int add_to_group(struct group *group, struct task *task, bool is_alone)
{
	group->victims[group->count] = task->victim;
	group->tasks[group->count++] = task;
	return is_alone || group->count == VICTIM_GROUP ? ask_group(group) : 0;
}

static int ask_all(struct dump *dump)
{
	autofree struct group *group = allocate(sizeof(*group));
	struct task *task;
	int result = 0;

	group->snapshot = &dump->snapshot;
	for_each_task (task, &dump->snapshot) {
		bool is_alone = !task_leads(task, OBJECT_MEMORY);

		if (task->state == TASK_DEAD)
			continue;
		if (is_alone)
			result = ask_group(group);
		if (!result)
			result = add_to_group(group, task, is_alone);
		if (result)
			return result;
	}
	return ask_group(group);
}

int dump_ask(void *context)
{
	struct dump *dump = context;
	int result = dump_end_apart(dump, ask_all(dump));

	return result || !refusals() ? result : -REFUSED;
}

/* Removes the parasite from all tasks. Best effort: a failure is logged and does not stop the others. */
void dump_leave(void *context)
{
	struct dump *dump = context;
	autofree struct victim **victims = allocate_array(dump->snapshot.task_count, sizeof(*victims));

	ignore(victims_cure(victims, dump_list_victims(dump, victims)));
}
