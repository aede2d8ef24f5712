/*
 * ask.c - goes into the tasks and asks what only they can tell: signal actions, timers, alternate stacks, …
 *
 * Questions to the thread that the parasite is in are one list; other threads answer one by one, by ptrace.
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

static int ask_thread(struct task *task, size_t thread)
{
	struct call_list list;
	int result;
	size_t room;

	calls_init(&list, victim_scratch(task->victim, &room));
	for (size_t i = 0; i < task_part_count; i++)
		if (task_parts[i]->ask)
			task_parts[i]->ask(task, thread, &list);
	result = list.size > room ? fail(0, "the questions do not fit the parasite") :
				    run_list(task, thread, &list);
	for (size_t i = 0; !result && i < task_part_count; i++)
		if (task_parts[i]->hear)
			result = task_parts[i]->hear(task, thread, &list);
	calls_free(&list);
	return result;
}

int dump_ask(void *context)
{
	struct dump *dump = context;
	struct task *task;

	for_each_task (task, &dump->snapshot) {
		int result = 0;

		if (task->state == TASK_DEAD)
			continue;
		result = victim_infect(task->victim);
		for (size_t i = 0; !result && i < task->thread_count; i++)
			result = ask_thread(task, i);
		if (result)
			return fail_in(result, "process %d (%s)", task->pid, task->name);
	}
	return 0;
}

/* Takes everything of ours out of the tasks again. */
void dump_leave(void *context)
{
	struct dump *dump = context;
	struct task *task;

	for_each_task (task, &dump->snapshot)
		if (task->victim && task->victim->infection)
			victim_cure(task->victim);
}
