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
#include "files/kind.h"
#include "image/message.h"
#include "task/part.h"

static int directories_look(struct snapshot *snapshot, struct task *task, size_t thread,
			    const struct thread_facts *facts)
{
	FsEntry *fs;

	if (thread)
		return 0;
	fs = task->fs = message_new(FsEntry, fs_entry);
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
	if (stat(file->entry->reg->name, &found) < 0 || !S_ISDIR(found.st_mode))
		return fail(ENOTDIR, "fs-%d.img: %s, %s", task->pid, what, file->entry->reg->name);
	return 0;
}

static int directories_check(const struct snapshot *snapshot, const struct task *task, size_t thread)
{
	if (thread)
		return 0;
	return check_directory(snapshot, task, task->fs->root_id, "its root") ?:
		       check_directory(snapshot, task, task->fs->cwd_id, "its working directory");
}

static int directories_prepare(const struct snapshot *snapshot, const struct task *task)
{
	const struct file *root = snapshot_find_file(snapshot, task->fs->root_id);
	const struct file *cwd = snapshot_find_file(snapshot, task->fs->cwd_id);

	if (!root || !cwd || root->fd < 0 || cwd->fd < 0)
		return fail(EINVAL, "its root and working directory are missing in the images");
	if (strcmp(root->entry->reg->name, "/") && (fchdir(root->fd) < 0 || chroot(".") < 0))
		return fail(errno, "cannot change the root to %s", root->entry->reg->name);
	if (fchdir(cwd->fd) < 0)
		return fail(errno, "cannot change the directory to %s", cwd->entry->reg->name);
	if (task->fs->has_umask)
		umask(task->fs->umask);
	return 0;
}

const struct task_part part_directories = {
	.name = "directories",
	.look = directories_look,
	.check = directories_check,
	.prepare = directories_prepare,
};
