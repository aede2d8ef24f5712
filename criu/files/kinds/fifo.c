/*
 * fifo.c - named pipes, with their content.
 *
 * Path, flags and owner are in a regular file beside it. Restore opens the path again, so another process that has the
 * pipe open is its other end as before. fifo-data.img has the content of each pipe once (pipe_content.h). It is put
 * back, unless a process outside of the tree has kept the pipe open, and with it the content.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/ghost.h"
#include "files/kind.h"
#include "files/kinds/pipe_content.h"
#include "image/message.h"

static bool fifo_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	return seen->link[0] == '/' && S_ISFIFO(seen->stat.st_mode) && seen->fd >= 0 &&
	       !(seen->info.flags & O_PATH);
}

/* A reader that opened the pipe before any writer gets no hang-up (POLLHUP) until there was a writer. */
static int ask_for_hang_up(const struct seen_file *seen, FifoEntry *entry)
{
	autoclose int fd = files_borrow(seen);
	struct pollfd asked = { .fd = fd };

	if (fd < 0)
		return fd;
	if (poll(&asked, 1, 0) < 0)
		return fail(errno, "cannot poll %s", seen->link);
	if ((seen->info.flags & O_ACCMODE) == O_RDONLY && !(asked.revents & POLLHUP))
		message_set(entry, awaits_writer, true);
	return 0;
}

static int fifo_describe(struct snapshot *snapshot, struct file *file)
{
	FifoEntry *entry = file->entry->fifo;

	entry->pipe_id = file->seen->stat.st_ino;
	entry->has_regf_id = true;
	return files_add_path_of(snapshot, file, &entry->regf_id) ?: ask_for_hang_up(file->seen, entry);
}

static int fifo_save_contents(struct snapshot *snapshot)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_fifo);
	struct pipes_in_use pipes = { 0 };
	int result;

	for (size_t i = 0; i < files->count; i++)
		pipes_in_use_add(&pipes, files->items[i]->entry->fifo->pipe_id, files->items[i]);
	result = pipes_in_use_save(&pipes, snapshot->images, IMAGE_FIFO_DATA);
	pipes_in_use_free(&pipes);
	return result;
}

/* ---- restore ---- */

static uint32_t fifo_path(const struct file *file)
{
	return file->entry->fifo->regf_id;
}

static int fifo_check(struct snapshot *snapshot, struct file *file)
{
	struct file *where = file_path(snapshot, file);
	struct stat found;

	if (!where)
		return fail(EINVAL, "files.img: file %u is a named pipe without a path", file->id);
	if (where->nameless && where->nameless->ghost && !S_ISFIFO(where->nameless->ghost->mode))
		return fail(EINVAL, "ghost-file-%x.img is no named pipe", where->nameless->id);
	if (!where->nameless && stat(where->entry->reg->name, &found) == 0 && !S_ISFIFO(found.st_mode))
		return fail(EINVAL, "%s is no longer a named pipe", where->entry->reg->name);
	return where->kind->check(snapshot, where);
}

static struct held_pipes *fifos_of(const struct snapshot *snapshot)
{
	return file_kind_state(snapshot, &file_kind_fifo);
}

static int fifo_load_contents(struct snapshot *snapshot)
{
	return held_pipes_load(snapshot->images, IMAGE_FIFO_DATA, fifos_of(snapshot));
}

/* Opens criu's own end until release(): then opening the other end never waits, and the content is kept. */
static int fifo_hold(struct held_pipe *pipe, int end, const char *name)
{
	if (pipe->ends[end] < 0)
		pipe->ends[end] = open(name, (end ? O_WRONLY : O_RDONLY) | O_NONBLOCK | O_CLOEXEC);
	return pipe->ends[end] < 0 ? fail(errno, "cannot open the named pipe %s", name) : 0;
}

/* Fills the pipe. This write must not be visible in the times of the file, which only its owner can set. */
static int fifo_fill(struct held_pipe *pipe, const char *name)
{
	struct timespec times[2];
	struct stat before;
	int result;

	if (fstat(pipe->ends[0], &before) < 0)
		return fail(errno, "cannot stat the named pipe %s", name);
	result = fifo_hold(pipe, 1, name) ?: held_pipe_fill(pipe);
	times[0] = before.st_atim;
	times[1] = before.st_mtim;
	if (!result && futimens(pipe->ends[0], times) < 0)
		log_info("%s: its times cannot be restored (%s): they are those of the restore", name,
			 strerror(errno));
	return result;
}

static int put_content_back(struct held_pipe *pipe, const char *name)
{
	int kept = 0, result = fifo_hold(pipe, 0, name);

	if (result)
		return result;
	if (ioctl(pipe->ends[0], FIONREAD, &kept) < 0)
		return fail(errno, "cannot read the size of the content of the named pipe %s", name);
	if (kept) {
		log_info("%s was kept open by a process outside of the tree: its %d bytes stay as they are",
			 name, kept);
		return 0;
	}
	result = held_pipe_set_capacity(pipe);
	if (result || !pipe->size)
		return result;
	return fifo_fill(pipe, name);
}

static int open_path(const char *name, int flags)
{
	int fd = open(name, flags | O_CLOEXEC);

	return fd < 0 ? fail(errno, "cannot open the named pipe %s with its original flags (%#o)", name,
			     flags) :
			fd;
}

static int open_fifo(struct snapshot *snapshot, struct file *file)
{
	const struct file *where = file_path(snapshot, file);
	struct held_pipe *pipe = held_pipe_find(fifos_of(snapshot), file->entry->fifo->pipe_id);
	int flags = flags_to_reopen(where->entry->reg->flags);
	char buffer[NAMELESS_PATH_SIZE];
	const char *path;
	int result = nameless_reach(snapshot, where, buffer, &path);

	if (result)
		return result;
	if (where->nameless)
		flags &= ~O_NOFOLLOW; /* the path is a link of /proc */
	if (flags & O_PATH)	      /* criu 4.2 counts it as an end of the pipe */
		return open_path(path, flags);
	if (pipe->ends[0] < 0)
		result = put_content_back(pipe, path);
	if (!result && file->entry->fifo->awaits_writer && pipe->ends[1] >= 0)
		close(steal_fd(&pipe->ends[1]));
	else if (!result && !file->entry->fifo->awaits_writer)
		result = fifo_hold(pipe, 1, path);
	if (result)
		return result;
	/* O_DIRECT (packets) is set by fcntl(), which the core does: open() does not accept it. */
	return open_path(path, (flags & ~O_DIRECT) | O_NONBLOCK);
}

static void fifo_close_ends(struct snapshot *snapshot)
{
	held_pipes_close(fifos_of(snapshot));
}

/* Both ends of each pipe. */
static size_t fifo_keeps(const struct snapshot *snapshot)
{
	struct index known = { 0 };
	const struct file_list *files = files_of_kind(snapshot, &file_kind_fifo);
	size_t count = 0;

	for (size_t i = 0; i < files->count; i++) {
		const FifoEntry *entry = files->items[i]->entry->fifo;

		if (index_find(&known, entry->pipe_id))
			continue;
		index_set(&known, entry->pipe_id, (void *)entry);
		count += 2;
	}
	index_free(&known);
	return count;
}

const struct file_kind file_kind_fifo = {
	.name = "named pipe",
	.type = FD_TYPES__FIFO,
	.message = offsetof(FileEntry, fifo),
	.state_size = sizeof(struct held_pipes),
	.recognizes = fifo_recognizes,
	.describe = fifo_describe,
	.save = fifo_save_contents,
	.path = fifo_path,
	.load = fifo_load_contents,
	.check = fifo_check,
	.open = open_fifo,
	.release = fifo_close_ends, /* an event for an inotify, which is released later */
	.close = fifo_close_ends,
	.keeps = fifo_keeps,
};
