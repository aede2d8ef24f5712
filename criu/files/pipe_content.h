/*
 * pipe_content.h - what waits in a pipe, whether it has a name or not: copied out without taking it, and put back.
 */
#ifndef CRIU_FILES_PIPE_CONTENT_H
#define CRIU_FILES_PIPE_CONTENT_H

#include "compiler.h"
#include "files/seen.h"
#include "image/image.h"
#include "pipe-data.pb-c.h"

/* Restore: a pipe on its way back. */
struct held_pipe {
	uint32_t id;
	unsigned capacity; /* 0: as the kernel makes it */
	char *content;
	size_t size;
	const uint32_t *packets; /* lengths that add up to `size`; none: a stream */
	size_t packet_count;
	PipeDataEntry *record;	   /* what else the image says of it; NULL: nothing */
	const struct task *holder; /* the first that has it */
	int ends[2];		   /* to read, to write; -1: not open */
	bool is_given[2]; /* it is one of the tree's own by now; if not, it is ours until files_close() */
};

struct held_pipes {
	struct held_pipe *items;
	size_t count;
	struct index by_id; /* number of the item, from 1 on */
};

/* Dump: what the tree has open of a pipe. */
struct pipe_in_use {
	uint32_t id;
	const struct file *file; /* the first */
	unsigned ends;		 /* bit 0: one to read, bit 1: one to write */
	bool is_of_packets;	 /* one has O_DIRECT */
};

struct pipes_in_use {
	struct pipe_in_use *items;
	size_t count;
	struct index by_id; /* number of the item, from 1 on */
};

void pipes_in_use_add(struct pipes_in_use *pipes, uint32_t id, const struct file *file);
void pipes_in_use_free(struct pipes_in_use *pipes);

/* Dump: writes one pipe_data_entry and the bytes of each. No pipes, no image. */
int pipes_in_use_save(const struct pipes_in_use *pipes, struct image_store *images, enum image_kind kind)
	must_check;

/* Restore: all that an image holds (IMAGE_PIPES_DATA, IMAGE_FIFO_DATA), if there is one. */
int held_pipes_load(struct image_store *images, enum image_kind kind, struct held_pipes *pipes) must_check;
struct held_pipe *held_pipe_find(struct held_pipes *pipes, uint32_t id); /* makes one if there is none */
int held_pipe_set_capacity(const struct held_pipe *pipe) must_check;
int held_pipe_fill(const struct held_pipe *pipe) must_check; /* through ends[1] */
void held_pipes_close(struct held_pipes *pipes);

#endif
