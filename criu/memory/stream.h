/*
 * stream.h - a file that is written in the background while it is filled: from a ring of buffers, by a separate thread.
 *
 * What fits into most of the ring is written when the stream is closed, and no thread is started. Writing to the disk
 * begins behind each buffer; the caller has to sync.
 */
#ifndef CRIU_MEMORY_STREAM_H
#define CRIU_MEMORY_STREAM_H

#include <stddef.h>
#include "base/throughput.h"
#include "compiler.h"

struct stream;

#define STREAM_MUCH \
	(64UL << 20) /* bytes: from here on they are written past the page cache, if that is possible … */
#define STREAM_MEMORY (16UL << 20) /* … from this many bytes of buffers */

/*
 * Memory prepared in advance, for a stream whose filler must not wait: neither for the disk nor for page faults, nor
 * for a writer that uses memory and processor. Nothing is written before it is full.
 */
struct stream_reserve {
	char *memory; /* NULL: none */
	size_t size;
};

int stream_reserve_make(struct stream_reserve *reserve, size_t size)
	must_check; /* 0 or -errno, not recorded; too little: none */
void stream_reserve_free(struct stream_reserve *reserve);

/* What was written, and in which time: for the page cache in calls, for the disk while anything was on its way. */
struct stream_statistics {
	struct throughput cached, direct;
	struct throughput packing; /* bytes before they were compressed, … */
	uint64_t packed;	   /* … and after that */
	uint64_t waited;	   /* ns: the fillers, for a buffer, or for the rest to be written */
};

/*
 * The file of a stream. open() is called once: when the first bytes have to be written, or when the stream is closed
 * without an error. The thread that fills or closes the stream calls it. It returns a descriptor, which stays the
 * caller's and is written from its start, or -errno, recorded.
 */
struct stream_file {
	int (*open)(void *context);
	void *context;
	const char *name;    /* for messages; stays valid */
	uint64_t usual_size; /* with less, a few buffers are too large; 0: not known */
	char *memory; /* for the buffers, page-aligned; stays the caller's, and valid. NULL: the stream allocates it … */
	size_t memory_size;
	/*
	 * NULL: the bytes are written to the descriptor as they are. Otherwise this is called instead, for the next
	 * `size` bytes: 0 or -errno, not recorded.
	 */
	int (*write)(void *context, const char *bytes, size_t size) must_check;
	struct stream_statistics *statistics; /* the stream adds its own when it is closed; NULL: nowhere */
};

/*
 * 0 or -errno, recorded. The stream uses the buffers of the reserve, which outlives it, if that has any; `reserve` may
 * be NULL.
 */
int stream_open(struct stream **stream, const struct stream_file *file, const struct stream_reserve *reserve)
	must_check;
/*
 * Returns the place for the next bytes: page-aligned, *room of them, at least a page. Waits for a buffer. NULL: writing
 * failed, recorded.
 */
char *stream_buffer(struct stream *stream, size_t *room);
/* `size` bytes were put there: whole pages, at most the room. */
int stream_advance(struct stream *stream, size_t size) must_check;
/*
 * Ends the threads, and writes the rest, unless `result`, the result of everything so far, is an error, which is then
 * returned. 0 or -errno, recorded once. NULL is fine.
 */
int stream_close(struct stream *stream, int result) must_check;

#endif
