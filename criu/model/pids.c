/*
 * pids.c - see pids.h.
 */
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "kernel/proc.h"
#include "model/pids.h"
#include "model/snapshot.h"

#define HIGHEST_PID (4 * 1024 * 1024) /* PID_MAX_LIMIT of Linux on 64 bits, for which no header has it */

static pid_t id_at(const struct thread *thread, size_t level)
{
	if (level > thread->nested_count)
		return 0;
	return level ? thread->nested[level - 1] : thread->tid;
}

pid_t thread_own_id(const struct thread *thread)
{
	return id_at(thread, thread->nested_count);
}

pid_t thread_id_seen_by(const struct thread *thread, const struct task *observer)
{
	return id_at(thread, observer->threads[0].nested_count);
}

static void set_nested(struct thread *thread, const void *ids, size_t count)
{
	free(thread->nested);
	thread->nested = count ? copy_bytes(ids, count * sizeof(*thread->nested)) : NULL;
	thread->nested_count = count;
}

int thread_set_names(struct thread *thread, const struct pid_levels *told, size_t outside)
{
	if (told->count <= outside || told->count - outside > PID_LEVELS_MOST)
		return -1;
	thread->tid = told->ids[outside];
	set_nested(thread, &told->ids[outside + 1], told->count - outside - 1);
	return 0;
}

size_t thread_wanted_ids(const struct thread *thread, pid_t ids[PID_LEVELS_MOST])
{
	size_t levels = thread->nested_count + 1;

	for (size_t i = 0; i < levels; i++)
		ids[i] = id_at(thread, levels - 1 - i);
	return levels;
}

void task_make_threads(struct task *task, size_t count)
{
	task->thread_count = count;
	task->threads = allocate_array(count, sizeof(*task->threads));
	task->threads[0].here = task->here;
	task->threads[0].tid = task->pid;
}

void task_forget_threads(struct task *task)
{
	while (task->thread_count > 1)
		free(task->threads[--task->thread_count].nested);
}

void task_free_threads(struct task *task)
{
	for (size_t i = 0; i < task->thread_count; i++)
		free(task->threads[i].nested);
	free(task->threads);
}

bool task_has_thread(const struct task *task, pid_t own_id)
{
	for (size_t i = 0; i < task->thread_count; i++)
		if (thread_own_id(&task->threads[i]) == own_id)
			return true;
	return false;
}

const struct thread *task_find_thread_here(const struct task *task, pid_t here)
{
	for (size_t i = 0; i < task->thread_count; i++)
		if (task->threads[i].here == here)
			return &task->threads[i];
	return NULL;
}

size_t task_nested_ids(const struct task *task, uint32_t **ids)
{
	size_t each = task->threads[0].nested_count, total = each * task->thread_count;

	*ids = total ? allocate_array(total, sizeof(**ids)) : NULL;
	for (size_t i = 0; each && i < task->thread_count; i++)
		memcpy(*ids + i * each, task->threads[i].nested, each * sizeof(**ids));
	return total;
}

const char *task_take_nested_ids(struct task *task, const uint32_t *ids, size_t count)
{
	size_t each = count / task->thread_count;

	if (count % task->thread_count)
		return "its threads have not equally many ids in nested pid namespaces";
	if (each >= PID_LEVELS_MOST)
		return "it has more ids than pid namespaces can be nested";
	if (task->parent && each < task->parent->threads[0].nested_count)
		return "it is in fewer nested pid namespaces than its parent";
	for (size_t i = 0; i < count; i++)
		if (!ids[i] || ids[i] > HIGHEST_PID)
			return "it has an impossible id in a nested pid namespace";
	for (size_t i = 0; i < task->thread_count; i++)
		set_nested(&task->threads[i], ids + i * each, each);
	return NULL;
}
