/*
 * descriptor_need.c - counts the descriptors that a restore needs at once: when a tree is dumped, and again before it
 * is restored.
 *
 * criu has every open file of the tree once; each newborn has all of these, too, and then its own table. So the tree's
 * own limit is not enough, and a dump that ends its processes must notice in time. A file that is only mapped is opened
 * only to be mapped.
 */
#include <errno.h>
#include <fcntl.h>
#include "base/descriptors.h"
#include "base/index.h"
#include "base/memory.h"
#include "files/kind.h"
#include "memory/shared.h"

#define PASSING \
	10 /* open temporarily: images, files of /proc, the executable, files that move, what the root waits for */
#define KEPT 3 /* in a newborn, beside its table: the executable, the log, and a file that moves */

static void note_use(const struct snapshot *snapshot, uint32_t id)
{
	struct file *file = id ? snapshot_find_file(snapshot, id) : NULL;

	if (file)
		file->is_only_mapped = false;
}

void files_note_use(struct snapshot *snapshot)
{
	const struct task *task;

	for (size_t i = 0; i < snapshot->file_count; i++) {
		struct file *file = snapshot->files[i], *path = file->kind ? file_path(snapshot, file) : NULL;

		if (path)
			path->is_only_path = true;
		file->is_only_mapped = file->kind == &file_kind_regular && !file_is_open(file) &&
				       !file->nameless;
	}
	for_each_task (task, snapshot) {
		if (!task->space->mm || !task->directories->fs)
			continue;
		note_use(snapshot, task->space->mm->exe_file_id);
		note_use(snapshot, task->directories->fs->cwd_id);
		note_use(snapshot, task->directories->fs->root_id);
	}
}

/* The number that criu has open when all files are. */
static size_t count_open(const struct snapshot *snapshot)
{
	size_t namespaces = snapshot->namespace_count ? snapshot->namespace_count + NAMESPACE_TYPES : 0;
	size_t count = shared_memories_of(snapshot)->count + namespaces;

	for (size_t i = 0; i < file_kind_count; i++)
		if (file_kinds[i]->keeps)
			count += file_kinds[i]->keeps(snapshot);
	for (size_t i = 0; i < snapshot->file_count; i++) {
		const struct file *file = snapshot->files[i];

		if (!file->kind || file->is_only_path || file->is_only_mapped)
			continue;
		count += 1 + file->needs_writable_mapping;
	}
	return count + files_late_need(snapshot);
}

static size_t count_table(const struct task *task)
{
	size_t count = task->table->count;

	return count ? max(count + KEPT + task->table->object.user_count - 1,
			   (size_t)task->table->items[count - 1].fd + 1) :
		       0;
}

size_t files_descriptor_need(const struct snapshot *snapshot, size_t ours)
{
	return count_open(snapshot) + ours + PASSING;
}

char *files_lack_descriptors(struct snapshot *snapshot, size_t ours)
{
	size_t needed, allowed;
	const struct task *task;

	files_note_use(snapshot);
	needed = files_descriptor_need(snapshot, ours);
	allowed = descriptors_allow(needed);
	if (needed > allowed)
		return format_text(
			"a restore needs %zu file descriptors: %zu for open files of the processes, and %zu for "
			"itself; but criu may have only %zu",
			needed, needed - ours - PASSING, ours + PASSING, allowed);
	for_each_leader (task, snapshot, OBJECT_DESCRIPTORS) {
		needed = count_table(task);
		allowed = descriptors_allow(needed);
		if (needed > allowed)
			return format_text(
				"process %d (%s) has %zu open files, the highest descriptor is %d: to restore it, criu needs "
				"%zu descriptors, but may have only %zu",
				task_shown_id(task), task->name, task->table->count,
				task->table->items[task->table->count - 1].fd, needed, allowed);
	}
	return NULL;
}
