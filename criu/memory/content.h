/*
 * content.h - tells which pages are as the parent snapshot has them by comparing them: their hashes with those kept beside its
 * images, or their bytes with the images themselves where there are no hashes.
 *
 * Needs nothing of the kernel and is of no memory's but what it is now, so it is right whatever became of the process in
 * between: restored, started anew, another one under the same pid. It has to read all of the memory.
 */
#ifndef CRIU_MEMORY_CONTENT_H
#define CRIU_MEMORY_CONTENT_H

#include "compiler.h"
#include "memory/hashes.h"
#include "memory/pages.h"
#include "memory/stack.h"

/* Of a page: its hash, or where its bytes are. */
union parent_page {
	struct page_hash hash;
	struct {
		uint64_t layer, offset; /* in the pages image, bytes */
	} place;
};
_Static_assert(sizeof(union parent_page) == sizeof(struct page_hash),
	       "the hashes of many are read in one piece");

struct content {
	struct page_runs pages;	  /* what the parent has, with offsets as if all were in one image */
	union parent_page *known; /* one each of these pages */
	uint64_t *is_hashed;	  /* a bit each */
	struct page_chain *chain; /* not ours */
	uint32_t *pages_ids;	  /* one a layer */
	uint64_t seed;
};

/*
 * Reads the hashes: 16 bytes a page. So to compare takes the same time, and the same memory, however many snapshots the pages come from.
 * With `only`, it is of those pages, and they are read and hashed now where there are no hashes; NULL: of all.
 * -ENOENT, not recorded: the chain has nothing of it. To be closed in any case; all zero is fine.
 */
int content_open(struct content *content, struct page_chain *chain, enum image_kind kind, unsigned long id,
		 uint64_t seed, const struct page_runs *only) must_check;
void content_close(struct content *content);
/* file_pages.c: to compare more pages of a mapping might take longer than to save them. */
#define FILE_PAGES_MOST 1024
/*
 * Of a running process: what the chain has of its own pages in private mappings of files, if those are not too many.
 * -ENOENT, not recorded: nothing.
 */
int file_pages_open(struct content *content, struct page_chain *chain, pid_t pid, uint64_t seed) must_check;
static inline bool content_is_open(const struct content *content)
{
	return content->known;
}
/* Puts each page of `own` either into *changed or into *unchanged. The source is called by several threads at once. */
int content_compare(const struct content *content, const struct page_runs *own, page_source *source,
		    void *from, struct page_runs *changed, struct page_runs *unchanged) must_check;

#endif
