/*
 * flatten.h - merges a chain of snapshots into one directory: all pages that the newest sees, in images of its own. The
 * processes need not exist.
 */
#ifndef CRIU_MEMORY_FLATTEN_H
#define CRIU_MEMORY_FLATTEN_H

#include "image/image.h"

struct flatten_statistics {
	size_t layers;		 /* length of the chain */
	uint64_t pages;		 /* pages in the new images */
	uint64_t shared, copied; /* bytes: shared by the file system; copied otherwise. The rest were holes */
};

/*
 * In place. At every instant, even after a crash, the directory restores to the same memory; run it again to complete
 * it. A directory without a parent stays as it is. 0 or -errno, recorded.
 */
int flatten_in_place(struct image_store *store, struct flatten_statistics *statistics) must_check;
/* Into a new directory, with all other images of the newest snapshot; `out` must hold no images. */
int flatten_into(struct image_store *store, struct image_store *out, struct flatten_statistics *statistics)
	must_check;

#endif
