/*
 * pipe.c - pipes, with what is in them.
 *
 * Several open file descriptions lead to one pipe; it is known by its inode, and its content stands once in pipes-data.img
 * (pipe_content.h). If nobody in the tree holds the other end, the restored pipe has no
 * other end: the log says so.
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
#include "files/pipe_content.h"
#include "image/message.h"

static bool recognizes(const struct seen_file *seen)
{
	return !strncmp(seen->link, "pipe:[", 6);
}

static int describe(struct snapshot *snapshot unused, struct file *file, FownEntry *owner)
{
	PipeEntry *entry = message_new(PipeEntry, pipe_entry);

	file->entry->pipe = entry;
	entry->id = file->id;
	entry->pipe_id = file->seen->stat.st_ino;
	entry->flags = file->seen->info.flags & ~(O_CLOEXEC | O_LARGEFILE);
	entry->fown = owner;
	return 0;
}

/* Which ends of the pipe does the tree hold? Bit 0: one to read, bit 1: one to write. */
static unsigned ends_held(const struct snapshot *snapshot, uint32_t id)
{
	unsigned held = 0;

	for (size_t i = 0; i < snapshot->file_count; i++) {
		const PipeEntry *entry = snapshot->files[i]->entry->pipe;

		if (entry && entry->pipe_id == id)
			held |= (entry->flags & O_ACCMODE) == O_RDONLY ? 1 :
				(entry->flags & O_ACCMODE) == O_WRONLY ? 2 :
									 3;
	}
	return held;
}

static bool is_of_packets(const struct snapshot *snapshot, uint32_t id)
{
	for (size_t i = 0; i < snapshot->file_count; i++) {
		const PipeEntry *entry = snapshot->files[i]->entry->pipe;

		if (entry && entry->pipe_id == id && entry->flags & O_DIRECT)
			return true;
	}
	return false;
}

static bool is_first_of_pipe(const struct snapshot *snapshot, size_t index)
{
	for (size_t i = 0; i < index; i++)
		if (snapshot->files[i]->entry->pipe &&
		    snapshot->files[i]->entry->pipe->pipe_id == snapshot->files[index]->entry->pipe->pipe_id)
			return false;
	return true;
}

static int save_contents(struct snapshot *snapshot)
{
	struct image *image = NULL;
	int result = 0;

	for (size_t i = 0; !result && i < snapshot->file_count; i++) {
		const struct file *file = snapshot->files[i];
		const PipeEntry *entry = file->entry->pipe;

		if (!entry || !is_first_of_pipe(snapshot, i))
			continue;
		if (ends_held(snapshot, entry->pipe_id) != 3)
			log_warning(
				"nobody in the tree holds the other end of %s, file %d of process %d (%s): it will have none "
				"after restore",
				file->seen->link, file->seen->fd, file->seen->task->pid,
				file->seen->task->name);
		if (!image)
			result = image_create(snapshot->images, &image, IMAGE_PIPES_DATA, 0);
		if (!result)
			result = pipe_content_save(image, file->seen, entry->pipe_id,
						   is_of_packets(snapshot, entry->pipe_id));
	}
	return image_close(image) ?: result;
}

/* ---- restore ---- */

static int check(struct snapshot *snapshot unused, struct file *file)
{
	if (!file->entry->pipe)
		return fail(EINVAL, "file %u in files.img is a pipe but has no description", file->id);
	return 0;
}

static int load_contents(struct snapshot *snapshot)
{
	return held_pipes_load(snapshot->images, IMAGE_PIPES_DATA, &snapshot->pipes);
}

static int make_pipe(struct held_pipe *pipe)
{
	if (pipe2(pipe->ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return fail(errno, "cannot make a pipe");
	return held_pipe_set_capacity(pipe) ?: held_pipe_fill(pipe);
}

static int open_pipe(struct snapshot *snapshot, struct file *file)
{
	const PipeEntry *entry = file->entry->pipe;
	struct held_pipe *pipe = held_pipe_find(&snapshot->pipes, entry->pipe_id);
	int access = entry->flags & O_ACCMODE, result, fd;
	char path[32];

	if (pipe->ends[0] < 0) {
		result = make_pipe(pipe);
		if (result)
			return result;
	}
	/* The ends of pipe2() stay ours until files_close(); a description of its own is opened for each that the tree had. */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", pipe->ends[access == O_WRONLY]);
	fd = open(path, access | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return fail(errno, "cannot open a pipe");
	if (fcntl(fd, F_SETFL, entry->flags) < 0) {
		close(fd);
		return fail(errno, "cannot set the flags of a pipe (%#o)", entry->flags);
	}
	return fd;
}

static void close_ends(struct snapshot *snapshot)
{
	held_pipes_close(&snapshot->pipes);
}

static const FownEntry *owner(const struct file *file)
{
	return file->entry->pipe->fown;
}

const struct file_kind file_kind_pipe = {
	.name = "pipe",
	.type = FD_TYPES__PIPE,
	.recognizes = recognizes,
	.describe = describe,
	.save_more = save_contents,
	.check = check,
	.load_more = load_contents,
	.open = open_pipe,
	.close_more = close_ends,
	.owner = owner,
};
