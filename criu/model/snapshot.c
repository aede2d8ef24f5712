/*
 * snapshot.c - creates, finds and frees the objects of a snapshot.
 */
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/memory.h"
#include "image/image.h"
#include "model/snapshot.h"

void snapshot_init(struct snapshot *snapshot)
{
	*snapshot = (struct snapshot){ 0 };
	list_init(&snapshot->tasks);
	for (enum namespace_type type = 0; type < NAMESPACE_TYPES; type++)
		snapshot->own_namespaces[type] = -1;
	snapshot->states = allocate(sizeof(*snapshot->states));
}

struct state {
	const struct state_type *type;
	_Alignas(max_align_t) char bytes[];
};

void *snapshot_state(const struct snapshot *snapshot, const struct state_type *type)
{
	struct state *state = index_find(snapshot->states, (uintptr_t)type);

	if (state)
		return state->bytes;
	state = allocate(sizeof(*state) + type->size);
	state->type = type;
	index_set(snapshot->states, (uintptr_t)type, state);
	return state->bytes;
}

static void free_states(struct snapshot *snapshot)
{
	for (size_t i = 0; i < snapshot->states->capacity; i++) {
		struct state *state = snapshot->states->slots[i].value;

		if (state && state->type->clear)
			state->type->clear(state->bytes);
		free(state);
	}
	index_free(snapshot->states);
	free(snapshot->states);
}

static void task_free(struct task *task)
{
	for (size_t i = 0; task->cores && i < task->thread_count; i++)
		image_free(task->cores[i]);
	free(task->cores);
	task_free_threads(task);
	image_free(task->ids);
	task_drop_objects(task);
	if (task->proc >= 0)
		close(task->proc);
	if (task->pidfd >= 0)
		close(task->pidfd);
	free(task);
}

static struct task *add_task(struct snapshot *snapshot, struct task *parent)
{
	struct task *task = allocate(sizeof(*task));

	task->parent = parent;
	task->state = TASK_ALIVE;
	task->proc = task->pidfd = -1;
	task_add_objects(task);
	list_init(&task->children);
	list_init(&task->sibling);
	list_add(&task->link, &snapshot->tasks);
	if (parent)
		list_add(&task->sibling, &parent->children);
	else
		snapshot->root = task;
	snapshot->task_count++;
	return task;
}

void snapshot_name_task(struct snapshot *snapshot, struct task *task, pid_t pid)
{
	task->pid = pid;
	index_set(&snapshot->tasks_by_pid, pid, task);
}

struct task *snapshot_add_task(struct snapshot *snapshot, struct task *parent, pid_t pid)
{
	struct task *task = add_task(snapshot, parent);

	snapshot_name_task(snapshot, task, pid);
	return task;
}

struct task *snapshot_add_task_here(struct snapshot *snapshot, struct task *parent, pid_t here)
{
	struct task *task = add_task(snapshot, parent);

	task->here = here;
	index_set(&snapshot->tasks_here, here, task);
	return task;
}

void snapshot_forget_task(struct snapshot *snapshot, struct task *task)
{
	list_remove(&task->link);
	list_remove(&task->sibling);
	snapshot->task_count--;
	index_remove(&snapshot->tasks_here, task->here);
	task_free(task);
}

struct task *snapshot_find_task(const struct snapshot *snapshot, pid_t pid)
{
	return index_find(&snapshot->tasks_by_pid, pid);
}

struct task *snapshot_find_task_here(const struct snapshot *snapshot, pid_t here)
{
	return index_find(&snapshot->tasks_here, here);
}

struct task *snapshot_find_thread(const struct snapshot *snapshot, pid_t tid)
{
	struct task *task = snapshot_find_task(snapshot, tid);

	if (task)
		return task;
	for_each_task (task, snapshot)
		for (size_t i = 0; i < task->thread_count; i++)
			if (task->threads[i].tid == tid)
				return task;
	return NULL;
}

struct task *snapshot_find_thread_here(const struct snapshot *snapshot, pid_t here)
{
	struct task *task = snapshot_find_task_here(snapshot, here);

	if (task)
		return task;
	for_each_task (task, snapshot)
		if (task_find_thread_here(task, here))
			return task;
	return NULL;
}

pid_t snapshot_name_of(const struct snapshot *snapshot, pid_t here)
{
	const struct task *task;

	if (!snapshot->levels_outside)
		return here; /* the root is in criu's own pid namespace */
	task = snapshot_find_thread_here(snapshot, here);
	return task ? task_find_thread_here(task, here)->tid : 0;
}

static int compare_number(const void *key, const void *member)
{
	return *(const int *)key - ((const struct descriptor *)member)->fd;
}

struct descriptor *task_find_descriptor(const struct task *task, int fd)
{
	if (!task->table->count)
		return NULL;
	return bsearch(&fd, task->table->items, task->table->count, sizeof(*task->table->items),
		       compare_number);
}

int task_number_of(const struct task *task, const struct file *file)
{
	for (size_t i = 0; i < task->table->count; i++)
		if (task->table->items[i].file == file)
			return task->table->items[i].fd;
	return -1;
}

static int compare_descriptors(const void *left, const void *right)
{
	return ((const struct descriptor *)left)->fd - ((const struct descriptor *)right)->fd;
}

void task_sort_descriptors(struct task *task)
{
	if (task->table->count)
		qsort(task->table->items, task->table->count, sizeof(*task->table->items),
		      compare_descriptors);
}

struct file *snapshot_add_file(struct snapshot *snapshot, uint32_t id)
{
	struct file *file = allocate(sizeof(*file));

	*grow(&snapshot->files, &snapshot->file_count) = file;
	file->id = id;
	file->fd = file->mapping_fd = -1;
	return file;
}

static int compare_id(const void *key, const void *member)
{
	uint32_t id = *(const uint32_t *)key, other = (*(struct file *const *)member)->id;

	return id < other ? -1 : id > other;
}

struct file *snapshot_find_file(const struct snapshot *snapshot, uint32_t id)
{
	struct file **found = NULL;

	if (snapshot->file_count)
		found = bsearch(&id, snapshot->files, snapshot->file_count, sizeof(*snapshot->files),
				compare_id);
	return found ? *found : NULL;
}

static void note_holder(struct task *task, const struct descriptor *descriptor)
{
	if (descriptor->file->holder)
		return;
	descriptor->file->holder = task;
	descriptor->file->holder_fd = descriptor->fd;
}

void snapshot_note_holders(struct snapshot *snapshot)
{
	struct task *task;

	for_each_leader (task, snapshot, OBJECT_DESCRIPTORS)
		for (size_t i = 0; i < task->table->count; i++)
			note_holder(task, &task->table->items[i]);
}

void snapshot_free(struct snapshot *snapshot)
{
	struct task *task, *following;

	list_for_each_safe (task, following, &snapshot->tasks, link)
		task_free(task);
	for (size_t i = 0; i < snapshot->namespace_count; i++) {
		if (snapshot->namespaces[i]->entry)
			protobuf_c_message_free_unpacked(snapshot->namespaces[i]->entry, NULL);
		free(snapshot->namespaces[i]);
	}
	free(snapshot->namespaces);
	for (size_t i = 0; i < snapshot->file_count; i++) {
		image_free(snapshot->files[i]->entry);
		free(snapshot->files[i]);
	}
	index_free(&snapshot->tasks_by_pid);
	index_free(&snapshot->tasks_here);
	free(snapshot->files);
	free_states(snapshot);
}
