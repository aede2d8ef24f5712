/*
 * pagemap.h - writes one pagemap image, or reads and checks it: the pages of a task, or of shared memory, that one
 * snapshot holds or leaves to its parent. stack.h tells what a whole chain holds.
 */
#ifndef CRIU_MEMORY_PAGEMAP_H
#define CRIU_MEMORY_PAGEMAP_H

#include "compiler.h"
#include "image/image.h"
#include "memory/pages.h"

struct pagemap_entry {
	uint64_t start, count; /* bytes, pages */
	unsigned flags;	       /* either PAGES_PRESENT or PAGES_IN_PARENT; perhaps PAGES_LAZY */
	uint64_t offset;       /* present: in the pages image, bytes */
};

struct pagemap {
	uint32_t pages_id;	       /* pages-N.img */
	struct pagemap_entry *entries; /* sorted, disjoint, none is empty */
	size_t count, capacity;
	uint64_t size; /* size that the pages image must have, in bytes */
};

/*
 * Reads into a struct that is all zero, or that was used before: then its memory is reused. -ENOENT (not recorded):
 * there is no such image.
 */
int pagemap_read(struct pagemap *pagemap, struct image_store *store, enum image_kind kind, unsigned long id)
	must_check;
void pagemap_free(struct pagemap *pagemap);
/*
 * Adds the addresses in a task's pagemap. All their pages can be had from this snapshot or its parents: that was
 * checked when it was made. -ENOENT (not recorded): there is no such image.
 */
int pagemap_read_coverage(struct page_runs *runs, struct image_store *store, pid_t pid) must_check;

/* Writes a pagemap image: the head, then entries in ascending order. `flags` are PAGES_*. 0 or -errno, recorded. */
int pagemap_write_head(struct image *image, uint32_t pages_id) must_check;
int pagemap_write_entry(struct image *image, uint64_t start, uint64_t count, unsigned flags) must_check;

#endif
