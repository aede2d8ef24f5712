/*
 * stream.h - a file that is written behind whoever fills it: from a ring of buffers, by a thread of its own.
 *
 * What fits into most of the ring is written when the stream is closed, and no thread is started. Writing to the disk begins behind
 * each buffer; it is for the caller to sync.
 */
#ifndef CRIU_MEMORY_STREAM_H
#define CRIU_MEMORY_STREAM_H

#include <stddef.h>
#include "compiler.h"

struct stream;

/*
 * Memory that is there already, for a stream whose filler must not wait: neither for the disk nor for page faults, nor for a
 * writer's share of memory and processor. Nothing is written before it is full.
 */
struct stream_reserve {
	char *memory; /* NULL: there is none */
	size_t size;
};

int stream_reserve_make(struct stream_reserve *reserve, size_t size)
	must_check; /* 0 or -errno, not recorded; too little: none */
void stream_reserve_free(struct stream_reserve *reserve);

/*
 * The file that a stream goes to: it is asked for once, by whoever fills or closes the stream, when the first bytes are to be written, or
 * when the stream is closed without an error. Gives a descriptor, which is written from its start and stays the caller's, or -errno, recorded.
 */
struct stream_file {
	int (*open)(void *context);
	void *context;
	const char *name; /* for messages; stays valid */
};

/*
 * 0 or -errno, recorded. The stream's buffers are those of the reserve, which outlives it, if that has any; `reserve` may be NULL.
 */
int stream_open(struct stream **stream, const struct stream_file *file, const struct stream_reserve *reserve)
	must_check;
/* Where the next bytes go: page-aligned, *room of them, at least a page. Waits for a buffer. NULL: writing failed, recorded. */
char *stream_buffer(struct stream *stream, size_t *room);
/* So many bytes were put there: whole pages, at most the room. */
int stream_advance(struct stream *stream, size_t size) must_check;
/*
 * Ends the threads, and writes the rest, unless `result`, what has come of everything so far, is an error: that is returned then. 0 or
 * -errno, recorded, once. NULL is fine.
 */
int stream_close(struct stream *stream, int result) must_check;

#endif
