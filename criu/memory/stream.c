/*
 * stream.c - writes a large file while its next part is being produced. See stream.h.
 *
 * Measured, 2 GiB of a task's memory, ext4 on a virtio disk, Linux 6.18, two CPUs, seconds; each of two threads reads
 * and writes:
 *
 *	page cache, pieces of 1 MiB                      2.9 - 5.6 + 0.6 of fsync()
 *	page cache, pieces of 256 KiB                    0.43 + 0.6
 *	page cache, pieces of 256 KiB, writing begun     0.73 - 0.93
 *	page cache, pieces of 64 KiB, writing begun      1.2 - 1.7
 *	O_DIRECT, pieces of 1 MiB                        0.91 - 1.05 with the room allocated first, else 1.3 - 3.2
 *
 * For 1 MiB in one call the kernel looks for pages of that size, and moves memory to get some. Data that went through
 * the page cache is still there for a restore that follows soon: 0.4 s instead of 1.4.
 *
 * In a whole dump, with one thread reading and one writing (two would hinder each other: 1.0 - 1.7), with writing begun
 *
 *	every 256 KiB  0.95 - 1.8      every 4 MiB  0.71 - 1.2  <- this      every 32 MiB  0.88 - 2.9
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "base/thread.h"
#include "memory/direct.h"
#include "memory/stream.h"

#define BUFFER_SIZE (256UL << 10) /* written in one call */
#define BUFFERS	    8
#define SMALL	    (64UL << 10)
#define KEPT	    6		/* of them may be full before a thread begins to write */
#define LENT_SIZE   (4UL << 20) /* of a reserve, to be filled in one go */

#define BEGUN_AT_ONCE (4UL << 20) /* given to the disk together */

/* If it is known that much will be written. */
#define LARGE_BUFFER_SIZE (1UL << 20)

struct buffer {
	char *bytes;
	size_t size;
	size_t filled;
	uint64_t offset;    /* in the file */
	bool is_full;	    /* and belongs to the writer; under the lock */
	bool is_on_its_way; /* past the page cache */
};

struct stream {
	struct stream_file file;
	int fd;	      /* -1: not asked for yet */
	char *memory; /* of all buffers */
	size_t size;
	bool is_lent; /* lent by a reserve */
	uint64_t offset;
	struct buffer *buffers;
	size_t count;
	size_t current;	       /* the buffer that is being filled; the writer follows in the same order */
	struct direct *direct; /* NULL: through the page cache, by a thread */
	pthread_t writer;
	bool has_writer;
	bool is_begun;			     /* it is known which of them, or neither */
	uint64_t begun;			     /* writeback has begun up to here; used by the writer */
	struct stream_statistics statistics; /* `cached` is the writer's */
	size_t on_their_way;		     /* buffers, past the page cache … */
	uint64_t way_began;		     /* … some all the time since then */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under the lock */
	bool is_ending;
	int error; /* positive */

	bool is_told; /* the filler has reported that error */
};

int stream_reserve_make(struct stream_reserve *reserve, size_t size)
{
	*reserve = (struct stream_reserve){ 0 };
	size = round_up(size, PAGE_SIZE);
	if (size <= BUFFERS * BUFFER_SIZE)
		return 0;
	reserve->memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
			       -1, 0);
	if (reserve->memory == MAP_FAILED) {
		reserve->memory = NULL;
		return -errno;
	}
	reserve->size = size;
	/* A process that is forked meanwhile (a keeper) lives longer. */
	madvise(reserve->memory, size, MADV_DONTFORK);
	return 0;
}

void stream_reserve_free(struct stream_reserve *reserve)
{
	if (reserve->memory)
		munmap(reserve->memory, reserve->size);
	*reserve = (struct stream_reserve){ 0 };
}

/* The kernel clears a huge page for a mapping of 2 MiB: 0.1 ms. */
static size_t own_size(uint64_t usual)
{
	const size_t most = BUFFERS * BUFFER_SIZE;

	if (usual >= STREAM_MUCH)
		return STREAM_MEMORY;
	return usual && usual < most ? round_up((size_t)usual, PAGE_SIZE) : most;
}

/* Small ones come from the heap: to unmap memory takes longer than to write it. */
static void *own_memory(size_t size)
{
	void *memory;

	if (size > SMALL)
		return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return posix_memalign(&memory, PAGE_SIZE, size) ? MAP_FAILED : memory;
}

static void free_own_memory(void *memory, size_t size)
{
	if (size > SMALL)
		munmap(memory, size);
	else
		free(memory);
}

static bool is_large(const struct stream *stream)
{
	return !stream->is_lent && stream->file.usual_size >= STREAM_MUCH;
}

static bool wants_direct(const struct stream *stream)
{
	return is_large(stream) && !stream->file.write;
}

static int take_memory(struct stream *stream, const struct stream_reserve *reserve)
{
	stream->is_lent = reserve && reserve->memory && !stream->file.memory;
	if (stream->file.memory) {
		stream->memory = stream->file.memory;
		stream->size = stream->file.memory_size;
		return 0;
	}
	stream->size = stream->is_lent ? reserve->size : own_size(stream->file.usual_size);
	stream->memory = stream->is_lent ? reserve->memory : own_memory(stream->size);
	if (stream->memory != MAP_FAILED)
		return 0;
	stream->memory = NULL;
	return fail(errno, "no memory for buffers");
}

static void make_buffers(struct stream *stream)
{
	size_t each = stream->is_lent ? LENT_SIZE : is_large(stream) ? LARGE_BUFFER_SIZE : BUFFER_SIZE;

	stream->count = round_up(stream->size, each) / each;
	stream->buffers = allocate_array(stream->count, sizeof(*stream->buffers));
	for (size_t i = 0; i < stream->count; i++)
		stream->buffers[i] = (struct buffer){ .bytes = stream->memory + i * each,
						      .size = min(each, stream->size - i * each) };
}

int stream_open(struct stream **opened, const struct stream_file *file, const struct stream_reserve *reserve)
{
	struct stream *stream = allocate(sizeof(*stream));
	int result;

	*opened = stream;
	stream->file = *file;
	stream->fd = -1;
	pthread_mutex_init(&stream->lock, NULL);
	pthread_cond_init(&stream->changed, NULL);
	result = take_memory(stream, reserve);
	if (!result)
		make_buffers(stream);
	return result;
}

/* ---- the writer ---- */

/*
 * Begins writeback early, so that the sync at the end of the dump has little to wait for. Only a hint: it affects
 * nothing but speed.
 */
static int write_buffer(struct stream *stream, const struct buffer *buffer)
{
	uint64_t end = buffer->offset + buffer->filled, began = monotonic_time();
	int result = 0;

	if (stream->file.write)
		return stream->file.write(stream->file.context, buffer->bytes, buffer->filled);
	for (size_t done = 0; !result && done < buffer->filled; done += BUFFER_SIZE)
		result = write_all_at(stream->fd, buffer->bytes + done,
				      min(buffer->filled - done, BUFFER_SIZE), buffer->offset + done);
	if (end - stream->begun >= BEGUN_AT_ONCE) {
		sync_file_range(stream->fd, stream->begun, end - stream->begun, SYNC_FILE_RANGE_WRITE);
		stream->begun = end;
	}
	throughput_add(&stream->statistics.cached, buffer->filled, began);
	return result;
}

/* After an error buffers are only returned. */
static void *write_behind(void *argument)
{
	struct stream *stream = argument;
	size_t next = 0;

	pthread_mutex_lock(&stream->lock);
	for (;;) {
		struct buffer *buffer = &stream->buffers[next];
		int result = 0;

		if (!buffer->is_full && stream->is_ending)
			break;
		if (!buffer->is_full) {
			pthread_cond_wait(&stream->changed, &stream->lock);
			continue;
		}
		pthread_mutex_unlock(&stream->lock);
		if (!stream->error)
			result = write_buffer(stream, buffer);
		pthread_mutex_lock(&stream->lock);
		buffer->is_full = false;
		buffer->filled = 0;
		if (result)
			stream->error = -result;
		next = (next + 1) % stream->count;
		pthread_cond_signal(&stream->changed);
	}
	pthread_mutex_unlock(&stream->lock);
	return NULL;
}

/* ---- errors ---- */

static int report_error(struct stream *stream)
{
	if (stream->error && !stream->is_told)
		fail(stream->error, "cannot write %s", stream->file.name);
	stream->is_told = stream->error;
	return -stream->error;
}

/* ---- past the page cache ---- */

static unsigned slot_of(const struct stream *stream, const struct buffer *buffer)
{
	return (unsigned)(buffer - stream->buffers);
}

static void begin_way(struct stream *stream, struct buffer *buffer)
{
	if (!stream->on_their_way++)
		stream->way_began = monotonic_time();
	buffer->is_on_its_way = true;
}

/* `size`: bytes that have arrived */
static void end_way(struct stream *stream, struct buffer *buffer, size_t size)
{
	stream->statistics.direct.bytes += size;
	if (!--stream->on_their_way)
		throughput_add(&stream->statistics.direct, 0, stream->way_began);
	buffer->is_on_its_way = false;
}

/* The file system has not taken it: it goes through the page cache, which also tells whether the disk is full. */
static int write_otherwise(struct stream *stream, struct buffer *buffer)
{
	end_way(stream, buffer, 0);
	stream->error = -write_buffer(stream, buffer);
	buffer->filled = 0;
	return report_error(stream);
}

static int begin_direct(struct stream *stream, struct buffer *buffer)
{
	buffer->is_full = false;
	begin_way(stream, buffer);
	if (!direct_begin(stream->direct, slot_of(stream, buffer), buffer->bytes, buffer->filled,
			  buffer->offset))
		return 0;
	return write_otherwise(stream, buffer);
}

static int await_direct(struct stream *stream, struct buffer *buffer)
{
	if (!buffer->is_on_its_way)
		return 0;
	if (direct_await(stream->direct, slot_of(stream, buffer)))
		return write_otherwise(stream, buffer);
	end_way(stream, buffer, buffer->filled);
	buffer->filled = 0;
	return 0;
}

static int close_direct(struct stream *stream, uint64_t size, int result)
{
	int closed;

	for (size_t i = 0; i < stream->count && !result; i++)
		result = await_direct(stream, &stream->buffers[i]);
	closed = direct_close(stream->direct, size);
	if (!result && closed)
		result = fail(-closed, "cannot write %s", stream->file.name);
	return result;
}

/* ---- the filler ---- */

/* There is no writer yet, so nobody else looks at the descriptor and the error. */
static int have_file(struct stream *stream)
{
	if (stream->fd < 0 && !stream->error) {
		stream->fd = stream->file.open(stream->file.context);
		stream->error = stream->fd < 0 ? -stream->fd : 0;
		stream->is_told = stream->error;
	}
	return -stream->error;
}

static int write_now(struct stream *stream, struct buffer *buffer)
{
	if (stream->direct)
		return begin_direct(stream, buffer);
	stream->error = -write_buffer(stream, buffer);
	buffer->filled = 0;
	buffer->is_full = false;
	return report_error(stream);
}

static int write_full(struct stream *stream)
{
	int result = stream->has_writer ? 0 : have_file(stream);

	for (size_t i = 0; !result && i < stream->count; i++)
		if (stream->buffers[i].is_full)
			result = write_now(stream, &stream->buffers[i]);
	return result;
}

/* Has full buffers written from now on: past the page cache, or by a thread, or at once if there is none. */
static int have_written(struct stream *stream)
{
	int result = stream->has_writer ? 0 : have_file(stream);

	if (!result && !stream->is_begun) {
		stream->is_begun = true;
		if (wants_direct(stream))
			stream->direct = direct_open(stream->fd, stream->count);
		if (!stream->direct)
			stream->has_writer = !thread_start(&stream->writer, write_behind, stream);
	}
	return result || stream->has_writer ? result : write_full(stream);
}

/* Without a writer it may take a while: the filler waits. */
static int write_and_note(struct stream *stream)
{
	uint64_t began = monotonic_time();
	int result = have_written(stream);

	stream->statistics.waited += monotonic_time() - began;
	return result;
}

/* Waits until the buffer is free. Returns the error of the stream, if it has one: positive. */
static int await_buffer(struct stream *stream, struct buffer *buffer)
{
	uint64_t began = 0;
	int error;

	pthread_mutex_lock(&stream->lock);
	while (buffer->is_full) {
		began = began ?: monotonic_time();
		pthread_cond_wait(&stream->changed, &stream->lock);
	}
	error = stream->error;
	pthread_mutex_unlock(&stream->lock);
	if (began)
		stream->statistics.waited += monotonic_time() - began;
	return error;
}

static int await_direct_buffer(struct stream *stream, struct buffer *buffer)
{
	uint64_t began;
	int result;

	if (!buffer->is_on_its_way)
		return 0;
	began = monotonic_time();
	result = await_direct(stream, buffer);
	stream->statistics.waited += monotonic_time() - began;
	return result;
}

char *stream_buffer(struct stream *stream, size_t *room)
{
	struct buffer *buffer = &stream->buffers[stream->current];
	int error;

	if (!stream->has_writer && buffer->is_full && write_and_note(stream))
		return NULL;
	if (await_direct_buffer(stream, buffer))
		return NULL;
	error = await_buffer(stream, buffer);
	*room = buffer->size - buffer->filled;
	if (error) {
		report_error(stream);
		return NULL;
	}
	return buffer->bytes + buffer->filled;
}

/* Passes the filled buffer to the writer, and takes the next one. */
static int submit_buffer(struct stream *stream)
{
	struct buffer *buffer = &stream->buffers[stream->current];

	buffer->offset = stream->offset;
	stream->offset += buffer->filled;
	pthread_mutex_lock(&stream->lock);
	buffer->is_full = true;
	pthread_cond_signal(&stream->changed);
	pthread_mutex_unlock(&stream->lock);
	stream->current = (stream->current + 1) % stream->count;
	/*
	 * A filler that lent memory does not want to share the processor with a writer while there is space. Nor is a
	 * thread worth it for a few buffers of our own. Until it runs, all buffers before the current one are full.
	 */
	if (stream->is_lent || (!stream->is_begun && stream->current < KEPT))
		return 0;
	return write_and_note(stream);
}

int stream_advance(struct stream *stream, size_t size)
{
	struct buffer *buffer = &stream->buffers[stream->current];

	buffer->filled += size;
	return buffer->filled < buffer->size ? 0 : submit_buffer(stream);
}

static void end_writer(struct stream *stream)
{
	if (!stream->has_writer)
		return;
	pthread_mutex_lock(&stream->lock);
	stream->is_ending = true;
	pthread_cond_signal(&stream->changed);
	pthread_mutex_unlock(&stream->lock);
	pthread_join(stream->writer, NULL);
}

/* Drops what the writer has not begun yet. */
static void abandon(struct stream *stream, int result)
{
	pthread_mutex_lock(&stream->lock);
	if (!stream->error) {
		stream->error = -result;
		stream->is_told = true;
	}
	pthread_mutex_unlock(&stream->lock);
}

static void report_statistics(const struct stream *stream)
{
	struct stream_statistics *all = stream->file.statistics;

	if (!all)
		return;
	throughput_merge(&all->cached, &stream->statistics.cached);
	throughput_merge(&all->direct, &stream->statistics.direct);
	all->waited += stream->statistics.waited;
}

/* Writes what is still in the buffers, unless there was an error. */
static int write_rest(struct stream *stream, int result)
{
	struct buffer *last;
	uint64_t size;

	result = result ?: report_error(stream) ?: write_full(stream);
	last = stream->buffers ? &stream->buffers[stream->current] : NULL;
	if (!result && last)
		result = await_direct(stream, last);
	size = stream->offset + (last ? last->filled : 0);
	if (!result && last && last->filled) {
		last->offset = stream->offset;
		result = write_now(stream, last);
	}
	return stream->direct ? close_direct(stream, size, result) : result;
}

int stream_close(struct stream *stream, int result)
{
	uint64_t began = monotonic_time();
	bool waits;

	if (!stream)
		return result;
	waits = stream->is_begun;
	if (result)
		abandon(stream, result);
	end_writer(stream);
	result = write_rest(stream, result);
	if (waits)
		stream->statistics.waited += monotonic_time() - began;
	report_statistics(stream);
	pthread_mutex_destroy(&stream->lock);
	pthread_cond_destroy(&stream->changed);
	if (stream->memory && !stream->is_lent && !stream->file.memory)
		free_own_memory(stream->memory, stream->size);
	free(stream->buffers);
	free(stream);
	return result;
}
