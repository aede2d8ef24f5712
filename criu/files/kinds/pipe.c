/*
 * pipe.c - pipes, with their content.
 *
 * Several open file descriptions can belong to one pipe, which is identified by its inode. pipes-data.img has its
 * content once (pipe_content.h). If no process of the tree holds the other end, the restored pipe has no other end; the
 * log tells.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"
#include "files/kinds/pipe_content.h"
#include "model/inode.h"

static bool pipe_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	return !strncmp(seen->link, "pipe:[", 6);
}

static int pipe_describe(struct snapshot *snapshot unused, struct file *file)
{
	PipeEntry *entry = file->entry->pipe;

	entry->pipe_id = file->seen->stat.st_ino;
	entry->flags &= ~O_LARGEFILE;
	return 0;
}

static int pipe_save_contents(struct snapshot *snapshot)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_pipe);
	struct pipes_in_use pipes = { 0 };
	int result;

	for (size_t i = 0; i < files->count; i++)
		pipes_in_use_add(&pipes, files->items[i]->entry->pipe->pipe_id, files->items[i]);
	for (size_t i = 0; i < pipes.count; i++) {
		const struct seen_file *seen = pipes.items[i].file->seen;

		if (pipes.items[i].ends != 3)
			log_warning(
				"no process of the tree holds the other end of %s, descriptor %d of process %d (%s): it will "
				"have none after the restore, unless it is given another pipe (--inherit-fd fd[N]:%s)",
				seen->link, seen->fd, seen->holder.here, seen->holder.name, seen->link);
	}
	result = pipes_in_use_save(&pipes, snapshot->images, IMAGE_PIPES_DATA);
	pipes_in_use_free(&pipes);
	return result;
}

/* ---- restore ---- */

static struct held_pipes *pipes_of(const struct snapshot *snapshot)
{
	return file_kind_state(snapshot, &file_kind_pipe);
}

static int pipe_load_contents(struct snapshot *snapshot)
{
	return held_pipes_load(snapshot->images, IMAGE_PIPES_DATA, pipes_of(snapshot));
}

static int pipe_check(struct snapshot *snapshot unused, struct file *file unused)
{
	return 0; /* any pipe can be created; its content was checked when it was read */
}

static bool pipe_external_key(const struct snapshot *snapshot unused, const struct file *file,
			      struct external_key *key)
{
	*key = (struct external_key){ EXTERNAL_PIPE, { file->entry->pipe->pipe_id }, NULL };
	return true;
}

static int pipe_check_external(struct snapshot *snapshot unused, struct file *file, const struct stat *found)
{
	return S_ISFIFO(found->st_mode) ? 0 : file_is_wrong_external(file, "a pipe");
}

/* Either end leads to the pipe, as /proc/PID/fd/N does. */
static int open_external_pipe(struct snapshot *snapshot, struct file *file)
{
	struct held_pipe *pipe = held_pipe_find(pipes_of(snapshot), file->entry->pipe->pipe_id);
	struct stat found;

	if (fstat(file->external->fd, &found) < 0)
		return fail(errno, "--inherit-fd %s: cannot stat the descriptor", file->external->text);
	pipe->is_replaced = (uint32_t)found.st_ino != pipe->id;
	return file_open_external_again(file, (file->entry->pipe->flags & O_ACCMODE) | O_NONBLOCK);
}

static int make_pipe(struct held_pipe *pipe)
{
	if (pipe2(pipe->ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return fail(errno, "cannot create a pipe");
	return held_pipe_set_capacity(pipe) ?: held_pipe_fill(pipe);
}

/*
 * criu's own end of the pipe becomes the first description that needs such an end: it is what pipe(2) creates, and no
 * more descriptors than the tree had. For any other description, the pipe is opened again.
 */
static int take_end(struct held_pipe *pipe, int access)
{
	int end = access == O_WRONLY, fd;
	char path[32];

	if (access != O_RDWR && !pipe->is_given[end]) {
		pipe->is_given[end] = true;
		return pipe->ends[end];
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", pipe->ends[end]);
	fd = open(path, access | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 ? fail(errno, "cannot open a pipe") : fd;
}

static int open_pipe(struct snapshot *snapshot, struct file *file)
{
	const PipeEntry *entry = file->entry->pipe;
	struct held_pipe *pipe = held_pipe_find(pipes_of(snapshot), entry->pipe_id);
	int result = pipe->ends[0] < 0 ? make_pipe(pipe) : 0;

	return result ?: take_end(pipe, entry->flags & O_ACCMODE);
}

/* For each pipe, notes the first process (in the order of the tree) that has a file of it. */
static void note_holders(struct snapshot *snapshot)
{
	const struct task *task;

	for_each_leader (task, snapshot, OBJECT_DESCRIPTORS)
		for (size_t i = 0; i < task->table->count; i++) {
			const struct file *file = task->table->items[i].file;
			struct held_pipe *pipe;

			if (file->kind != &file_kind_pipe || file->external)
				continue;
			pipe = held_pipe_find(pipes_of(snapshot), file->entry->pipe->pipe_id);
			if (!pipe->holder)
				pipe->holder = task;
		}
}

/*
 * Images of criu 4.2.1 do not have the owner: the pipe then belongs to the user of the process that has it, as a new
 * pipe would, so that the process can open it through /proc/self/fd.
 */
static int set_inode(const struct held_pipe *pipe)
{
	const CredsEntry *creds = pipe->holder ? pipe->holder->cores[0]->thread_core->creds : NULL;
	const PipeDataEntry *record = pipe->record;
	bool is_told = record && record->has_uid;
	uint32_t uid = is_told ? record->uid : creds->fsuid, gid = is_told ? record->gid : creds->fsgid;
	int fd = pipe->ends[0];

	if (inode_set_owner(fd, uid, gid) < 0) {
		if (errno != EPERM)
			return fail(errno, "cannot give a pipe to user %u", uid);
		log_warning("a pipe of user %u, group %u, which process %d (%s) has, now belongs to user %u",
			    uid, gid, pipe->holder ? pipe->holder->pid : 0,
			    pipe->holder ? pipe->holder->name : "none: it is in flight", geteuid());
	}
	if ((is_told && inode_set_mode(fd, record->mode) < 0) ||
	    (record && inode_set_times(fd, record->times) < 0))
		return fail(errno, "cannot set mode and times of a pipe");
	return 0;
}

/* Last, because a pipe is opened again for each description, and its mode may deny that even to its owner. */
static int set_inodes(struct snapshot *snapshot)
{
	const struct held_pipes *pipes = pipes_of(snapshot);
	int result = 0;

	note_holders(snapshot);
	for (size_t i = 0; !result && i < pipes->count; i++) {
		const struct held_pipe *pipe = &pipes->items[i];

		if (pipe->is_replaced && pipe->size)
			log_warning(
				"the %zu bytes that were in pipe:[%u] are not put into the pipe that --inherit-fd gives",
				pipe->size, pipe->id);
		/* It may be only in flight, or not be made at all (--inherit-fd). */
		if (pipe->ends[0] >= 0 && (pipe->holder || (pipe->record && pipe->record->has_uid)))
			result = set_inode(pipe);
	}
	return result;
}

static void pipe_close_ends(struct snapshot *snapshot)
{
	held_pipes_close(pipes_of(snapshot));
}

/* Both ends of each pipe; an end that the tree has open itself needs no additional descriptor: take_end(). */
static size_t pipe_keeps(const struct snapshot *snapshot)
{
	struct index given = {
		0
	}; /* by the pipe's id: bit 0 the pipe exists, 1 its reading end, 2 its writing end */
	const struct file_list *files = files_of_kind(snapshot, &file_kind_pipe);
	size_t count = 0;

	for (size_t i = 0; i < files->count; i++) {
		const PipeEntry *entry = files->items[i]->entry->pipe;
		uintptr_t known = (uintptr_t)index_find(&given, entry->pipe_id), now = known | 1;

		if (files->items[i]->external)
			continue;
		now |= (entry->flags & O_ACCMODE) == O_RDONLY ? 2 :
		       (entry->flags & O_ACCMODE) == O_WRONLY ? 4 :
								0;
		index_set(&given, entry->pipe_id, (void *)now);
		count += 2 * !known;
		count -= __builtin_popcountl((now ^ known) & 6);
	}
	index_free(&given);
	return count;
}

const struct file_kind file_kind_pipe = {
	.name = "pipe",
	.type = FD_TYPES__PIPE,
	.message = offsetof(FileEntry, pipe),
	.state_size = sizeof(struct held_pipes),
	.recognizes = pipe_recognizes,
	.describe = pipe_describe,
	.save = pipe_save_contents,
	.load = pipe_load_contents,
	.external_key = pipe_external_key,
	.check_external = pipe_check_external,
	.open_external = open_external_pipe,
	.check = pipe_check,
	.open = open_pipe,
	.join = set_inodes,
	.close = pipe_close_ends,
	.keeps = pipe_keeps,
};
