/*
 * pipe_content.c - see pipe_content.h.
 *
 * Content is copied with tee(2), which removes nothing and keeps the mark of a packet (O_DIRECT, pipe(2)). A read from
 * the copy ends where a packet does, so the packets can be told apart. A single packet alone looks like a stream.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "files/kinds/pipe_content.h"
#include "image/message.h"
#include "model/inode.h"

/* ---- dump ---- */

/* Opens criu's own descriptor to read the pipe, without using an end that the task knows. */
static int open_reader(const struct seen_file *seen)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", seen->holder.here, seen->fd);
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 ? fail(errno, "cannot open %s of process %d for reading", seen->link,
			     seen->holder.here) :
			fd;
}

/* Reads the copy of the content, piece by piece. */
static int take_pieces(int copy, size_t size, char **content, PipeDataEntry *entry)
{
	size_t taken = 0;

	*content = allocate(size);
	while (taken < size) {
		ssize_t length = read(copy, *content + taken, size - taken);

		if (length <= 0)
			return fail(length ? errno : ENODATA, "cannot read the copy of a pipe");
		*grow(&entry->packets, &entry->n_packets) = length;
		taken += length;
	}
	return 0;
}

/* Copies the whole content: tee() into another pipe of the same capacity. */
static int copy_content(int reader, unsigned capacity, char **content, PipeDataEntry *entry)
{
	autoclose int copy_out = -1, copy_in = -1;
	int ends[2];
	ssize_t got;

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return fail(errno, "cannot create a pipe");
	copy_out = ends[0];
	copy_in = ends[1];
	if (fcntl(copy_in, F_SETPIPE_SZ, capacity) < 0)
		return fail(errno, "cannot set the capacity of a pipe to %u bytes", capacity);
	got = tee(reader, copy_in, capacity, SPLICE_F_NONBLOCK);
	if (got < 0 && errno != EAGAIN)
		return fail(errno, "cannot copy the content of a pipe");
	entry->bytes = max(got, (ssize_t)0);
	return take_pieces(copy_out, entry->bytes, content, entry);
}

void pipes_in_use_add(struct pipes_in_use *pipes, uint32_t id, const struct file *file)
{
	static const unsigned ends[] = { [O_RDONLY] = 1, [O_WRONLY] = 2, [O_RDWR] = 3, [O_ACCMODE] = 0 };
	size_t number = (uintptr_t)index_find(&pipes->by_id, id);
	struct pipe_in_use *pipe;

	if (!number) {
		*grow(&pipes->items, &pipes->count) = (struct pipe_in_use){ .id = id, .file = file };
		number = pipes->count;
		index_set(&pipes->by_id, id, (void *)number);
	}
	pipe = &pipes->items[number - 1];
	pipe->ends |= ends[file->seen->info.flags & O_ACCMODE];
	pipe->is_of_packets |= (file->seen->info.flags & O_DIRECT) != 0;
}

void pipes_in_use_free(struct pipes_in_use *pipes)
{
	index_free(&pipes->by_id);
	free(pipes->items);
}

/* The inode of a named pipe is in the file system. */
static void describe_inode(const struct stat *inode, PipeDataEntry *entry)
{
	message_set(entry, uid, inode->st_uid);
	message_set(entry, gid, inode->st_gid);
	message_set(entry, mode, inode->st_mode & 07777);
	entry->times = inode_times(inode);
}

/* A single piece is not saved as a packet, unless the pipe has O_DIRECT. */
static void forget_packet(PipeDataEntry *entry)
{
	free(entry->packets);
	entry->packets = NULL;
	entry->n_packets = 0;
}

static int pipe_content_describe(const struct pipe_in_use *pipe, bool is_named, PipeDataEntry *entry,
				 char **content)
{
	const struct seen_file *seen = pipe->file->seen;
	autoclose int reader = open_reader(seen);
	int capacity, result;

	if (reader < 0)
		return reader;
	capacity = fcntl(reader, F_GETPIPE_SZ);
	if (capacity < 0)
		return fail(errno, "cannot read the capacity of %s", seen->link);
	entry->pipe_id = pipe->id;
	message_set(entry, size, capacity);
	if (!is_named)
		describe_inode(&seen->stat, entry);
	result = copy_content(reader, capacity, content, entry);
	if (entry->n_packets == 1 && !pipe->is_of_packets)
		forget_packet(entry);
	return result;
}

static int pipe_content_save(struct image *image, const struct pipe_in_use *pipe, bool is_named)
{
	PipeDataEntry *entry = message_new(PipeDataEntry, pipe_data_entry);
	autofree char *content = NULL;
	int result = pipe_content_describe(pipe, is_named, entry, &content) ?:
			     image_write(image, &entry->base)		    ?:
			     image_write_bytes(image, content, entry->bytes);

	image_free(entry);
	return result;
}

int pipes_in_use_save(const struct pipes_in_use *pipes, struct image_store *images, enum image_kind kind)
{
	struct image *image = NULL;
	int result = pipes->count ? image_create(images, &image, kind, 0) : 0;

	for (size_t i = 0; !result && i < pipes->count; i++)
		result = pipe_content_save(image, &pipes->items[i], kind == IMAGE_FIFO_DATA);
	return image_close(image) ?: result;
}

/* ---- restore ---- */

struct held_pipe *held_pipe_find(struct held_pipes *pipes, uint32_t id)
{
	size_t number = (uintptr_t)index_find(&pipes->by_id, id);
	struct held_pipe *added;

	if (number)
		return &pipes->items[number - 1];
	added = grow(&pipes->items, &pipes->count);
	added->id = id;
	added->ends[0] = added->ends[1] = -1;
	index_set(&pipes->by_id, id, (void *)pipes->count);
	return added;
}

static bool is_possible_inode(const PipeDataEntry *entry)
{
	return entry->has_uid == entry->has_gid && entry->has_uid == entry->has_mode &&
	       (!entry->has_uid ||
		(entry->uid != UINT32_MAX && entry->gid != UINT32_MAX && !(entry->mode & ~07777U))) &&
	       inode_times_are_possible(entry->times);
}

/* The pipe takes over the record, even if it is wrong. */
static int pipe_content_load(struct image *image, PipeDataEntry *entry, struct held_pipe *pipe)
{
	uint64_t sum = 0;

	if (pipe->record) {
		image_free(entry);
		return fail(EINVAL, "%s: the content of pipe %u occurs twice", image_name(image), pipe->id);
	}
	pipe->record = entry;
	for (size_t i = 0; i < entry->n_packets; i++)
		sum += entry->packets[i];
	if (!is_possible_inode(entry))
		return fail(EINVAL, "%s: pipe %u has an invalid owner, mode or time", image_name(image),
			    entry->pipe_id);
	if (entry->bytes > image_size(image) - image_position(image))
		return fail(EINVAL, "%s is torn: the content of pipe %u is incomplete", image_name(image),
			    entry->pipe_id);
	if (entry->n_packets && sum != entry->bytes)
		return fail(EINVAL, "%s: the packets of pipe %u do not match its size", image_name(image),
			    entry->pipe_id);
	pipe->capacity = entry->size;
	pipe->size = entry->bytes;
	pipe->content = allocate(pipe->size);
	pipe->packets = entry->packets;
	pipe->packet_count = entry->n_packets;
	return image_read_bytes(image, pipe->content, pipe->size);
}

int held_pipes_load(struct image_store *images, enum image_kind kind, struct held_pipes *pipes)
{
	PipeDataEntry *entry;
	struct image *image;
	int result = image_open(images, &image, kind, 0);

	if (result)
		return result == -ENOENT ? 0 : result;
	while ((result = image_read_as(image, pipe_data_entry, &entry)) > 0) {
		result = pipe_content_load(image, entry, held_pipe_find(pipes, entry->pipe_id));
		if (result)
			break;
	}
	image_close_read(image);
	return result;
}

int held_pipe_set_capacity(const struct held_pipe *pipe)
{
	if (pipe->capacity && fcntl(pipe->ends[0], F_SETPIPE_SZ, pipe->capacity) < 0)
		return fail(errno, "cannot set the capacity of a pipe to %u bytes", pipe->capacity);
	return 0;
}

int held_pipe_fill(const struct held_pipe *pipe)
{
	size_t written = 0;
	int result = 0;

	if (pipe->packet_count && fcntl(pipe->ends[1], F_SETFL, O_NONBLOCK | O_DIRECT) < 0)
		return fail(errno, "cannot set O_DIRECT for a pipe");
	for (size_t i = 0; !result && i < pipe->packet_count; i++) {
		result = write_all(pipe->ends[1], pipe->content + written, pipe->packets[i]);
		written += pipe->packets[i];
	}
	if (!result)
		result = write_all(pipe->ends[1], pipe->content + written, pipe->size - written);
	return result ? fail(-result, "cannot restore the %zu bytes of content of a pipe", pipe->size) : 0;
}

void held_pipes_close(struct held_pipes *pipes)
{
	for (size_t i = 0; i < pipes->count; i++) {
		struct held_pipe *pipe = &pipes->items[i];

		for (int end = 0; end < 2; end++)
			if (pipe->ends[end] >= 0 && !pipe->is_given[end])
				close(pipe->ends[end]);
		free(pipe->content);
		image_free(pipe->record);
	}
	index_free(&pipes->by_id);
	free(pipes->items);
	*pipes = (struct held_pipes){ 0 };
}
