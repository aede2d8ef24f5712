/*
 * pipe_content.h - the content of pipes, with or without a name: dump copies it without taking it out, restore puts it
 * back.
 */
#ifndef CRIU_FILES_PIPE_CONTENT_H
#define CRIU_FILES_PIPE_CONTENT_H

#include "compiler.h"
#include "files/seen.h"
#include "image/image.h"
#include "pipe-data.pb-c.h"

/* Restore: a pipe that is being restored. */
struct held_pipe {
	uint32_t id;
	unsigned capacity; /* 0: the kernel's default */
	char *content;
	size_t size;
	const uint32_t *packets; /* lengths that add up to `size`; none: a stream */
	size_t packet_count;
	PipeDataEntry *record;	   /* the other data of the image; NULL: none */
	const struct task *holder; /* the first task that has it */
	int ends[2];		   /* to read, to write; -1: not open */
	bool is_replaced;	   /* --inherit-fd gives another pipe, which keeps what is in it */
	bool is_given[2]; /* the end is a file of the tree now; otherwise it is criu's own until files_close() */
};

struct held_pipes {
	struct held_pipe *items;
	size_t count;
	struct index by_id; /* number of the item, from 1 on */
};

/* Dump: the ends of a pipe that the tree has open. */
struct pipe_in_use {
	uint32_t id;
	const struct file *file; /* the first one */
	unsigned ends;		 /* bit 0: a reading end, bit 1: a writing end */
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

/* Restore: reads an image (IMAGE_PIPES_DATA, IMAGE_FIFO_DATA), if it exists. */
int held_pipes_load(struct image_store *images, enum image_kind kind, struct held_pipes *pipes) must_check;
struct held_pipe *held_pipe_find(struct held_pipes *pipes, uint32_t id); /* adds it if it is unknown */
int held_pipe_set_capacity(const struct held_pipe *pipe) must_check;
int held_pipe_fill(const struct held_pipe *pipe) must_check; /* through ends[1] */
void held_pipes_close(struct held_pipes *pipes);

#endif
