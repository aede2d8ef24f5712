/*
 * objects.c - making, sharing and freeing what several processes may have in common.
 */
#include <linux/kcmp.h>
#include <linux/sched.h>
#include <stdlib.h>
#include "base/memory.h"
#include "image/image.h"
#include "model/snapshot.h"

#define type(name, clone_flag, kcmp_type, field)                                    \
	{                                                                           \
		name, clone_flag, kcmp_type, offsetof(TaskKobjIdsEntry, field##_id) \
	}
const struct object_type object_types[OBJECT_KINDS] = {
	[OBJECT_MEMORY] = type("memory", CLONE_VM, KCMP_VM, vm),
	[OBJECT_DESCRIPTORS] = type("table of open files", CLONE_FILES, KCMP_FILES, files),
	[OBJECT_DIRECTORIES] = type("root, directory and umask", CLONE_FS, KCMP_FS, fs),
	[OBJECT_ACTIONS] = type("signal actions", CLONE_SIGHAND, KCMP_SIGHAND, sighand),
};
#undef type

/* Where a task keeps its object of a kind. */
static struct object **place_of(struct task *task, enum object_kind kind)
{
	switch (kind) {
	case OBJECT_MEMORY:
		return (struct object **)&task->space;
	case OBJECT_DESCRIPTORS:
		return (struct object **)&task->table;
	case OBJECT_DIRECTORIES:
		return (struct object **)&task->directories;
	default:
		return (struct object **)&task->actions;
	}
}

void task_add_objects(struct task *task)
{
	task->space = allocate(sizeof(*task->space));
	task->table = allocate(sizeof(*task->table));
	task->directories = allocate(sizeof(*task->directories));
	task->actions = allocate(sizeof(*task->actions));
	for (enum object_kind kind = 0; kind < OBJECT_KINDS; kind++)
		**place_of(task, kind) = (struct object){ .leader = task, .user_count = 1 };
}

static void drop_object(struct task *task, enum object_kind kind)
{
	struct object *object = *place_of(task, kind);

	*place_of(task, kind) = NULL;
	if (--object->user_count)
		return;
	if (kind == OBJECT_MEMORY) {
		image_free(((struct address_space *)object)->mm);
		vmas_free(&((struct address_space *)object)->vmas);
	}
	if (kind == OBJECT_DESCRIPTORS)
		free(((struct descriptor_table *)object)->items);
	if (kind == OBJECT_DIRECTORIES)
		image_free(((struct directories *)object)->fs);
	free(object);
}

void task_drop_objects(struct task *task)
{
	for (enum object_kind kind = 0; kind < OBJECT_KINDS; kind++)
		drop_object(task, kind);
}

struct object *task_object(const struct task *task, enum object_kind kind)
{
	return *place_of((struct task *)task, kind);
}

void task_share_object(struct task *task, enum object_kind kind, const struct task *leader)
{
	struct object *object = task_object(leader, kind);

	drop_object(task, kind);
	*place_of(task, kind) = object;
	object->user_count++;
}

bool task_leads(const struct task *task, enum object_kind kind)
{
	return task_object(task, kind)->leader == task;
}

bool tasks_share(const struct task *a, const struct task *b, enum object_kind kind)
{
	return task_object(a, kind) == task_object(b, kind);
}

uint32_t *ids_object(TaskKobjIdsEntry *ids, enum object_kind kind)
{
	return (uint32_t *)((char *)ids + object_types[kind].id);
}
