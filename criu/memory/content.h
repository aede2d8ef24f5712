/*
 * content.h - tells which pages are as the parent snapshot has them by comparing them: their hashes with those kept beside its
 * images, or their bytes with the images themselves where there are no hashes.
 *
 * Needs nothing of the kernel and is of no memory's but what it is now, so it is right whatever became of the process in
 * between: restored, started anew, another one under the same pid. It has to read all of the memory.
 */
#ifndef CRIU_MEMORY_CONTENT_H
#define CRIU_MEMORY_CONTENT_H

#include "memory/hashes.h"
#include "memory/pages.h"
#include "memory/stack.h"

struct content {
	struct page_stack stack;  /* of the parent and its parents */
	struct page_hash *hashes; /* one a page of the stack, by address; NULL: it was not opened */
	uint64_t *first;	  /* one a run of the stack: where its pages' hashes begin */
	bool *is_hashed;	  /* one a layer; in the others, bytes are compared */
	uint64_t seed;
};

/*
 * Reads the hashes: 16 bytes a page. So to compare takes the same time however many snapshots the pages come from. -ENOENT, not
 * recorded: the chain has nothing of it. To be closed in any case; all zero is fine.
 */
int content_open(struct content *content, struct page_chain *chain, enum image_kind kind, unsigned long id,
		 uint64_t seed);
void content_close(struct content *content);
/* Puts each page of `own` either into *changed or into *unchanged. The source is called by several threads at once. */
int content_compare(const struct content *content, const struct page_runs *own, page_source *source,
		    void *from, struct page_runs *changed, struct page_runs *unchanged);

#endif
