/*
 * stream.h - a file that is written in the background while it is filled: from a ring of buffers, by a separate thread.
 *
 * Data that fits into one buffer is written when the stream is closed, and no thread is started. Writeback begins after
 * each buffer; the caller has to sync.
 */
#ifndef CRIU_MEMORY_STREAM_H
#define CRIU_MEMORY_STREAM_H

#include <stddef.h>
#include "compiler.h"

struct stream;

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

/*
 * Writes from the start of `fd`, which stays the caller's. 0 or -errno, recorded; `name` is for messages and must stay
 * valid. If the reserve has buffers, the stream uses those, and the reserve must outlive it; `reserve` may be NULL.
 */
int stream_open(struct stream **stream, int fd, const char *name, const struct stream_reserve *reserve)
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
