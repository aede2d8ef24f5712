/*
 * births.c - chooses the creator of each task: its parent, or an older sibling.
 *
 * The creator must share with the task every object that the task has from others. For each such object the candidates
 * are the parent and the first of the siblings that use it. No others are needed: siblings that use one object can give
 * it to each other.
 */
#include <sched.h>
#include <signal.h>
#include "base/memory.h"
#include "model/births.h"

int births_exit_signal(const struct task *task)
{
	const TaskCoreEntry *core = task->cores[0]->tc;

	return core->has_exit_signal ? (int)core->exit_signal : SIGCHLD;
}

/* With CLONE_PARENT the kernel gives it the exit signal of its creator. */
static bool can_give_birth(const struct task *creator, const struct task *task)
{
	for (enum object_kind kind = 0; kind < OBJECT_KINDS; kind++)
		if (!task_leads(task, kind) && !tasks_share(creator, task, kind))
			return false;
	return creator == task->parent || births_exit_signal(creator) == births_exit_signal(task);
}

static uint64_t key_of(const struct object *object, const struct task *parent)
{
	return index_mix((uintptr_t)object, (uintptr_t)parent);
}

/* `first`: by object and parent, the first child of that parent that uses the object. */
static struct task *find_creator(const struct index *first, const struct task *task)
{
	if (can_give_birth(task->parent, task))
		return task->parent;
	for (enum object_kind kind = 0; kind < OBJECT_KINDS; kind++) {
		struct task *sibling = index_find(first, key_of(task_object(task, kind), task->parent));

		if (!task_leads(task, kind) && sibling && sibling->parent == task->parent &&
		    can_give_birth(sibling, task))
			return sibling;
	}
	return NULL;
}

void births_plan(struct snapshot *snapshot)
{
	struct index first = { 0 };
	struct task *task;

	for_each_task (task, snapshot) {
		list_init(&task->created);
		list_init(&task->creation);
		task->creator = task->parent ? find_creator(&first, task) : NULL;
		if (task->creator)
			list_add(&task->creation, &task->creator->created);
		for (enum object_kind kind = 0; kind < OBJECT_KINDS; kind++) {
			uint64_t key = key_of(task_object(task, kind), task->parent);

			if (task_object(task, kind)->user_count > 1 && !index_find(&first, key))
				index_set(&first, key, task);
		}
	}
	index_free(&first);
}

uint64_t births_flags(const struct task *task)
{
	uint64_t flags = task->creator == task->parent ? 0 : CLONE_PARENT;

	for (enum object_kind kind = 0; kind < OBJECT_KINDS; kind++)
		if (tasks_share(task, task->creator, kind))
			flags |= object_types[kind].clone_flag;
	return flags;
}

char *births_obstacle(const struct snapshot *snapshot, const struct task *task)
{
	if (task->creator || task == snapshot->root)
		return NULL;
	for (enum object_kind kind = 0; kind < OBJECT_KINDS; kind++) {
		const struct task *leader = task_object(task, kind)->leader;

		if (leader != task && !tasks_share(task, task->parent, kind))
			return format_text(
				"process %d (%s) shares its %s with process %d, which is neither its parent nor a sibling that could have created it",
				task_shown_id(task), task->name, object_types[kind].name,
				task_shown_id(leader));
	}
	return format_text(
		"process %d (%s) shares objects with several processes in a combination that no clone() can create",
		task_shown_id(task), task->name);
}
