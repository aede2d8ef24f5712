/*
 * content.h - finds the pages that are equal to the parent snapshot's by comparing them: by the hashes stored with its
 * images, or by the bytes of the images if there are no hashes.
 *
 * It needs no support of the kernel and depends only on the present memory. So it is right whatever happened to the
 * process in between: restored, started anew, another process with the same pid. It has to read all of the memory.
 */
#ifndef CRIU_MEMORY_CONTENT_H
#define CRIU_MEMORY_CONTENT_H

#include "compiler.h"
#include "memory/hashes.h"
#include "memory/pages.h"
#include "memory/stack.h"

/* The hash of a page, or the location of its bytes. */
union parent_page {
	struct page_hash hash;
	struct {
		uint64_t layer, offset; /* in the pages image, bytes */
	} place;
};
_Static_assert(sizeof(union parent_page) == sizeof(struct page_hash),
	       "the hashes of many are read in one piece");

struct content {
	struct page_runs pages;	  /* pages of the parent, with offsets as if all were in one image */
	union parent_page *known; /* one for each of these pages */
	uint64_t *is_hashed;	  /* a bit for each */
	struct page_chain *chain; /* not ours */
	uint32_t *pages_ids;	  /* for each layer */
	uint64_t seed;
};

/*
 * Reads the hashes: 16 bytes for each page. So comparing takes the same time and memory, however many snapshots the
 * pages come from. With `only`, only those pages are opened, and they are read and hashed now if there are no hashes;
 * NULL: all pages. -ENOENT, not recorded: the chain has nothing of it. To be closed in any case; all zero is fine.
 */
int content_open(struct content *content, struct page_chain *chain, enum image_kind kind, unsigned long id,
		 uint64_t seed, const struct page_runs *only) must_check;
void content_close(struct content *content);
/* file_pages.c: comparing more pages of a mapping may take longer than saving them. */
#define FILE_PAGES_MOST 1024
/*
 * For a running process: the pages that the chain has of its private mappings of files, if they are not too many.
 * -ENOENT, not recorded: nothing.
 */
int file_pages_open(struct content *content, struct page_chain *chain, pid_t pid, uint64_t seed) must_check;
static inline bool content_is_open(const struct content *content)
{
	return content->known;
}
/* Puts each page of `own` into *changed or *unchanged. Several threads call the source at the same time. */
int content_compare(const struct content *content, const struct page_runs *own, page_source *source,
		    void *from, struct page_runs *changed, struct page_runs *unchanged) must_check;

#endif
