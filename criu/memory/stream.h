/*
 * stream.h - a file that is written behind whoever fills it: from a ring of buffers, by a thread of its own.
 *
 * What fits into one buffer is written when the stream is closed, and no thread is started. Writing to the disk begins behind
 * each buffer; it is for the caller to sync.
 */
#ifndef CRIU_MEMORY_STREAM_H
#define CRIU_MEMORY_STREAM_H

#include <stddef.h>

struct stream;

/* From the start of `fd`, which stays the caller's. 0 or -errno, recorded; `name` is for messages and stays valid. */
int stream_open(struct stream **stream, int fd, const char *name);
/* Where the next bytes go: page-aligned, *room of them, at least a page. Waits for a buffer. NULL: writing failed, recorded. */
char *stream_buffer(struct stream *stream, size_t *room);
/* So many bytes were put there: whole pages, at most the room. */
int stream_advance(struct stream *stream, size_t size);
/* Writes the rest, ends the threads. 0 or -errno, recorded. NULL is fine. */
int stream_close(struct stream *stream);

#endif
