/*
 * chain.h - a chain of snapshots: a directory of images, the one that its `parent` leads to, and so on. Found and checked once;
 * opens their pages images when somebody reads them.
 */
#ifndef CRIU_MEMORY_CHAIN_H
#define CRIU_MEMORY_CHAIN_H

#include <sys/uio.h>
#include "image/image.h"

struct page_chain; /* opaque */

/*
 * `newest` stays the caller's and outlives the chain; its images need not be complete. 0 or -errno, recorded: a parent that is
 * missing, not complete, of another tree, in the chain already, or that has given pages away (criu dedup).
 */
int page_chain_open(struct page_chain **chain, struct image_store *newest) must_check;
/*
 * The same for whoever relies on the snapshots, or changes them: each directory is locked before it is looked at (image_store_lock()), until
 * its store is closed. The newest keeps the lock that it may have.
 */
int page_chain_open_locked(struct page_chain **chain, struct image_store *newest, enum image_use use)
	must_check;
/* Locks all directories of an open chain for another use. They are still what they were, or this is a failure. */
int page_chain_lock(struct page_chain *chain, enum image_use use) must_check;
void page_chain_close(struct page_chain *chain); /* NULL is fine */
/* Layers count from the newest, 0. */
size_t page_chain_length(const struct page_chain *chain);
struct image_store *page_chain_store(const struct page_chain *chain, size_t layer);
/* What names the snapshot; 0: nothing does. */
uint64_t page_chain_snapshot(const struct page_chain *chain, size_t layer);
bool page_chain_is_complete(const struct page_chain *chain); /* the newest; all others are */
/* 1: it is this layer; 0: it is none; -errno, recorded. */
int page_chain_find(const struct page_chain *chain, const struct image_store *store, size_t *layer)
	must_check;
/*
 * For whoever has read the pages, or has left some to the chain: the snapshots are those that were opened, and nobody has freed pages that
 * this chain sees (criu dedup says so before it frees the first). 0 or -errno, recorded.
 */
int page_chain_check(const struct page_chain *chain) must_check;

/* Reads bytes of pages-ID.img of a layer into several places (which are changed). Threads may do so at the same time. */
int page_chain_read(struct page_chain *chain, size_t layer, uint32_t pages_id, struct iovec *places,
		    int count, uint64_t offset) must_check;
/* They will be wanted soon. */
void page_chain_ahead(struct page_chain *chain, size_t layer, uint32_t pages_id, uint64_t offset,
		      uint64_t size);
/* Are so many pages images, one of each layer, opened only once? */
bool page_chain_keeps_open(const struct page_chain *chain, size_t layers);
/* Closes the pages images that reading has left open. */
void page_chain_rest(struct page_chain *chain);

#endif
