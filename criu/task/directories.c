/*
 * directories.c - the root, the working directory and the umask of a process. They belong together in the kernel, too
 * (CLONE_FS).
 *
 * Both directories are files of the snapshot, known by their paths. criu has them open when a newborn enters them, so
 * no path is resolved below a root that has changed.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "files/ghost.h"
#include "files/kind.h"
#include "image/message.h"
#include "task/part.h"

static int directories_look(struct snapshot *snapshot, struct task *task, size_t thread unused,
			    const struct thread_facts *facts)
{
	FsEntry *fs;

	fs = task->directories->fs = message_new(FsEntry, fs_entry);
	message_set(fs, umask, facts->status.umask);
	return files_add_path(snapshot, task, "cwd", 0, &fs->cwd_id) ?:
		       files_add_path(snapshot, task, "root", 0, &fs->root_id);
}

static int check_directory(const struct snapshot *snapshot, const struct task *task, uint32_t id,
			   const char *what)
{
	const struct file *file = snapshot_find_file(snapshot, id);
	struct stat found;

	if (!file || file->kind != &file_kind_regular || file->is_only_path)
		return fail(EINVAL, "files.img: %s (file %u) is missing", what, id);
	if (file->nameless)
		found.st_mode = file->nameless->ghost ? file->nameless->ghost->mode : 0;
	else if (file_lateness(snapshot, file) ==
		 FILE_NEEDS_PROCESS) /* in /proc, about a process of the tree */
		found.st_mode = file->entry->reg->mode;
	else if (stat(file->entry->reg->name, &found) < 0)
		found.st_mode = 0;
	if (!S_ISDIR(found.st_mode))
		return fail(ENOTDIR, "fs-%d.img: %s, %s", task->pid, what, file->entry->reg->name);
	return 0;
}

static int directories_check(const struct snapshot *snapshot, const struct task *task, size_t thread unused)
{
	return check_directory(snapshot, task, task->directories->fs->root_id, "its root") ?:
		       check_directory(snapshot, task, task->directories->fs->cwd_id,
				       "its working directory");
}

static int directories_prepare(const struct snapshot *snapshot, const struct task *task)
{
	const struct file *root = snapshot_find_file(snapshot, task->directories->fs->root_id);
	const struct file *cwd = snapshot_find_file(snapshot, task->directories->fs->cwd_id);

	if (!root || !cwd || root->fd < 0 || cwd->fd < 0)
		return fail(EINVAL, "its root and working directory are missing in the images");
	if (strcmp(root->entry->reg->name, "/") && (fchdir(root->fd) < 0 || chroot(".") < 0))
		return fail(errno, "cannot change the root to %s", root->entry->reg->name);
	if (fchdir(cwd->fd) < 0)
		return fail(errno, "cannot change the directory to %s", cwd->entry->reg->name);
	if (task->directories->fs->has_umask)
		umask(task->directories->fs->umask);
	return 0;
}

const struct task_part part_directories = {
	.name = "directories",
	.is_of_object = true,
	.object = OBJECT_DIRECTORIES,
	.look = directories_look,
	.check = directories_check,
	.prepare = directories_prepare,
};
