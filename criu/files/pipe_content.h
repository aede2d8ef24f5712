/*
 * pipe_content.h - what waits in a pipe, whether it has a name or not: copied out without taking it, and put back.
 */
#ifndef CRIU_FILES_PIPE_CONTENT_H
#define CRIU_FILES_PIPE_CONTENT_H

#include "files/seen.h"
#include "image/image.h"

/* Restore: a pipe on its way back. */
struct held_pipe {
	uint32_t id;
	unsigned capacity; /* 0: as the kernel makes it */
	char *content;
	size_t size;
	uint32_t *packets; /* lengths that add up to `size`; none: a stream */
	size_t packet_count;
	int ends[2]; /* to read, to write; ours until files_close(); -1: not open */
};

struct held_pipes {
	struct held_pipe *items;
	size_t count;
};

/* Dump: writes one pipe_data_entry and the bytes. `is_of_packets`: one who writes to it has O_DIRECT. */
int pipe_content_save(struct image *image, const struct seen_file *seen, uint32_t id, bool is_of_packets);

/* Restore: all that an image holds (IMAGE_PIPES_DATA, IMAGE_FIFO_DATA), if there is one. */
int held_pipes_load(struct image_store *images, enum image_kind kind, struct held_pipes **pipes);
struct held_pipe *held_pipe_find(struct held_pipes **pipes, uint32_t id); /* makes one if there is none */
int held_pipe_set_capacity(const struct held_pipe *pipe);
int held_pipe_fill(const struct held_pipe *pipe); /* through ends[1] */
void held_pipes_close(struct held_pipes **pipes);

#endif
