/*
 * pipe.c - pipes, with what is in them.
 *
 * Several open file descriptions lead to one pipe; it is known by its inode, and its content stands once in pipes-data.img.
 * Content is copied with tee(2), which takes nothing out. If nobody in the tree holds the other end, the restored pipe has no
 * other end: the log says so.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"
#include "image/message.h"
#include "pipe-data.pb-c.h"

struct one_pipe {
	uint32_t id;
	char *content; /* restore */
	size_t size;
	unsigned capacity;
	int ends[2]; /* restore: of pipe2(); -1 until it is made */
};

struct pipes {
	struct one_pipe *items;
	size_t count;
};

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

/* A descriptor of ours from which the pipe can be read, without being one of the ends that the task knows. */
static int open_reader(const struct seen_file *seen)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", seen->task->pid, seen->fd);
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 ? fail(errno, "cannot open %s of process %d for reading", seen->link, seen->task->pid) : fd;
}

/* All of the pipe's content: tee() fills a pipe of our own of the same capacity. */
static int copy_content(int reader, unsigned capacity, char **content, size_t *size)
{
	autoclose int copy_out = -1, copy_in = -1;
	int ends[2];
	ssize_t got;

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return fail(errno, "cannot make a pipe");
	copy_out = ends[0];
	copy_in = ends[1];
	if (fcntl(copy_in, F_SETPIPE_SZ, capacity) < 0)
		return fail(errno, "cannot make a pipe of %u bytes", capacity);
	got = tee(reader, copy_in, capacity, SPLICE_F_NONBLOCK);
	if (got < 0 && errno != EAGAIN)
		return fail(errno, "cannot copy the content of a pipe");
	*size = max(got, (ssize_t)0);
	*content = allocate(*size);
	return read_all(copy_out, *content, *size);
}

static int save_content(struct image *image, const struct seen_file *seen, uint32_t id)
{
	PipeDataEntry entry = PIPE_DATA_ENTRY__INIT;
	autofree char *content = NULL;
	autoclose int reader = open_reader(seen);
	int capacity, result;
	size_t size = 0;

	if (reader < 0)
		return reader;
	capacity = fcntl(reader, F_GETPIPE_SZ);
	if (capacity < 0)
		return fail(errno, "cannot read the capacity of %s", seen->link);
	result = copy_content(reader, capacity, &content, &size);
	if (result)
		return result;
	entry.pipe_id = id;
	entry.bytes = size;
	message_set(&entry, size, capacity);
	return image_write(image, &entry.base) ?: image_write_bytes(image, content, size);
}

/* Which ends of the pipe does the tree hold? Bit 0: one to read, bit 1: one to write. */
static unsigned ends_held(const struct snapshot *snapshot, uint32_t id)
{
	unsigned held = 0;

	for (size_t i = 0; i < snapshot->file_count; i++) {
		const PipeEntry *entry = snapshot->files[i]->entry->pipe;

		if (entry && entry->pipe_id == id)
			held |= (entry->flags & O_ACCMODE) == O_RDONLY ? 1 : (entry->flags & O_ACCMODE) == O_WRONLY ? 2 : 3;
	}
	return held;
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
			log_warning("nobody in the tree holds the other end of %s, file %d of process %d (%s): it will have none "
				    "after restore",
				    file->seen->link, file->seen->fd, file->seen->task->pid, file->seen->task->name);
		if (!image)
			result = image_create(snapshot->images, &image, IMAGE_PIPES_DATA, 0);
		if (!result)
			result = save_content(image, file->seen, entry->pipe_id);
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

static struct one_pipe *find_pipe(struct snapshot *snapshot, uint32_t id)
{
	struct one_pipe *added;

	if (!snapshot->pipes)
		snapshot->pipes = allocate(sizeof(*snapshot->pipes));
	for (size_t i = 0; i < snapshot->pipes->count; i++)
		if (snapshot->pipes->items[i].id == id)
			return &snapshot->pipes->items[i];
	added = grow(&snapshot->pipes->items, &snapshot->pipes->count);
	added->id = id;
	added->ends[0] = added->ends[1] = -1;
	return added;
}

static int load_content(struct snapshot *snapshot, struct image *image, const PipeDataEntry *entry)
{
	struct one_pipe *pipe = find_pipe(snapshot, entry->pipe_id);

	if (pipe->content)
		return fail(EINVAL, "%s holds the content of pipe %u twice", image_name(image), entry->pipe_id);
	if (entry->bytes > image_size(image) - image_position(image))
		return fail(EINVAL, "%s is shorter than it says: pipe %u", image_name(image), entry->pipe_id);
	pipe->capacity = entry->size;
	pipe->size = entry->bytes;
	pipe->content = allocate(pipe->size);
	return image_read_bytes(image, pipe->content, pipe->size);
}

static int load_contents(struct snapshot *snapshot)
{
	struct image *image;
	PipeDataEntry *entry;
	int result = image_open(snapshot->images, &image, IMAGE_PIPES_DATA, 0);

	if (result)
		return result == -ENOENT ? 0 : result;
	while ((result = image_read_as(image, pipe_data_entry, &entry)) > 0) {
		result = load_content(snapshot, image, entry);
		image_free(entry);
		if (result)
			break;
	}
	image_close(image);
	return result;
}

static int make_pipe(struct one_pipe *pipe)
{
	int result;

	if (pipe2(pipe->ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return fail(errno, "cannot make a pipe");
	if (pipe->capacity && fcntl(pipe->ends[1], F_SETPIPE_SZ, pipe->capacity) < 0)
		return fail(errno, "cannot make a pipe of %u bytes", pipe->capacity);
	result = write_all(pipe->ends[1], pipe->content, pipe->size);
	return result ? fail(-result, "cannot put back the %zu bytes that were in a pipe", pipe->size) : 0;
}

static int open_pipe(struct snapshot *snapshot, struct file *file)
{
	const PipeEntry *entry = file->entry->pipe;
	struct one_pipe *pipe = find_pipe(snapshot, entry->pipe_id);
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
	for (size_t i = 0; snapshot->pipes && i < snapshot->pipes->count; i++) {
		struct one_pipe *pipe = &snapshot->pipes->items[i];

		for (int end = 0; end < 2; end++)
			if (pipe->ends[end] >= 0)
				close(pipe->ends[end]);
		free(pipe->content);
	}
	if (snapshot->pipes)
		free(snapshot->pipes->items);
	free(snapshot->pipes);
	snapshot->pipes = NULL;
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
