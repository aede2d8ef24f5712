/*
 * flatten.h - makes one directory of a chain of snapshots: all pages that the newest sees, in images of its own. The processes need
 * not exist.
 */
#ifndef CRIU_MEMORY_FLATTEN_H
#define CRIU_MEMORY_FLATTEN_H

#include "image/image.h"

struct flatten_statistics {
	size_t layers;	/* that were one chain */
	uint64_t pages; /* in the images that were written */
	uint64_t shared,
		copied; /* bytes: by the file system, without moving them; otherwise. The rest were holes */
};

/*
 * In its own place. At every instant, after a crash too, the directory restores to the same memory: to go on, do it again. A
 * directory without a parent stays as it is. 0 or -errno, recorded.
 */
int flatten_in_place(struct image_store *store, struct flatten_statistics *statistics) must_check;
/* As a new directory, with all other images of the newest snapshot; `out` holds no images yet. */
int flatten_into(struct image_store *store, struct image_store *out, struct flatten_statistics *statistics)
	must_check;

#endif
