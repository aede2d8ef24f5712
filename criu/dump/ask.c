/*
 * ask.c - goes into the tasks and asks what only they can tell: signal actions, timers, alternate stacks, …
 *
 * Questions to a thread are one list, and many threads answer theirs at the same time. The first thread, which answers for the process,
 * too, is asked alone: its list is long. So is every thread where a timer is looked for by whose time goes on.
 */
#include <errno.h>
#include "base/error.h"
#include "compel.h"
#include "dump/dump.h"
#include "kernel/calls.h"
#include "task/part.h"

static int run_list(struct task *task, size_t thread, struct call_list *list)
{
	struct victim *victim = task->victim;
	int result = list->size ? victim_write(victim, list->base, list->bytes, list->size) : 0;

	if (!result)
		result = victim_call_thread(victim, thread, list->calls, list->count);
	return result || !list->size ? result : victim_read(victim, list->base, list->bytes, list->size);
}

static void add_questions(const struct task *task, size_t thread, struct call_list *list)
{
	for (size_t i = 0; i < task_part_count; i++)
		if (task_parts[i]->ask)
			task_parts[i]->ask(task, thread, list);
}

static int hear_answers(struct task *task, size_t thread, const struct call_list *list)
{
	int result = 0;

	for (size_t i = 0; !result && i < task_part_count; i++)
		if (task_parts[i]->hear)
			result = task_parts[i]->hear(task, thread, list);
	return result;
}

static int ask_alone(struct task *task, size_t thread)
{
	struct call_list list;
	int result;
	size_t room;

	calls_init(&list, victim_scratch(task->victim, &room));
	add_questions(task, thread, &list);
	result = list.size > room ? fail(0, "the questions do not fit the parasite") :
				    run_list(task, thread, &list);
	if (!result)
		result = hear_answers(task, thread, &list);
	calls_free(&list);
	return result;
}

static int ask_threads(struct task *task, size_t first, size_t count)
{
	struct thread_calls calls[PARASITE_LISTS];
	struct call_list lists[PARASITE_LISTS];
	int result;

	for (size_t i = 0; i < count; i++) {
		calls_init(&lists[i], victim_desk(task->victim, i));
		add_questions(task, first + i, &lists[i]);
		calls[i] = (struct thread_calls){ .thread = first + i,
						  .calls = lists[i].calls,
						  .count = lists[i].count,
						  .bytes = lists[i].bytes,
						  .size = lists[i].size };
	}
	result = victim_call_threads(task->victim, calls, count);
	for (size_t i = 0; i < count; i++) {
		if (!result)
			result = hear_answers(task, first + i, &lists[i]);
		calls_free(&lists[i]);
	}
	return result;
}

static int ask_task(struct task *task)
{
	bool is_one_by_one = posix_timers_look_for_owners(task);
	int result = victim_infect(task->victim) ?: ask_alone(task, 0);

	for (size_t i = 1; !result && is_one_by_one && i < task->thread_count; i++)
		result = ask_alone(task, i);
	for (size_t i = 1; !result && !is_one_by_one && i < task->thread_count; i += PARASITE_LISTS)
		result = ask_threads(task, i, min(task->thread_count - i, (size_t)PARASITE_LISTS));
	return result;
}

int dump_ask(void *context)
{
	struct dump *dump = context;
	struct task *task;

	for_each_task (task, &dump->snapshot) {
		int result = task->state == TASK_DEAD ? 0 : ask_task(task);

		if (result)
			return fail_in(result, "process %d (%s)", task->pid, task->name);
	}
	return 0;
}

/* Takes everything of ours out of the tasks again: best effort, all of them get their turn, and each failure is in the log. */
void dump_leave(void *context)
{
	struct dump *dump = context;
	struct task *task;

	for_each_task (task, &dump->snapshot)
		if (task->victim && task->victim->infection)
			ignore(victim_cure(task->victim));
}
