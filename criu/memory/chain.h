/*
 * chain.h - a chain of snapshots: a directory of images, the one that its `parent` leads to, and so on. It is found and
 * checked once; pages images are opened when they are read.
 */
#ifndef CRIU_MEMORY_CHAIN_H
#define CRIU_MEMORY_CHAIN_H

#include <sys/uio.h>
#include "image/image.h"

struct page_chain; /* opaque */

/*
 * `newest` stays the caller's and must outlive the chain; its images need not be complete. 0 or -errno, recorded: a
 * parent is missing, incomplete, of another tree, already in the chain, or has freed pages that are needed (criu
 * dedup).
 */
int page_chain_open(struct page_chain **chain, struct image_store *newest) must_check;
/*
 * The same for callers that rely on the snapshots, or change them: each directory is locked before it is read
 * (image_store_lock()), until its store is closed. The newest keeps a lock that it has.
 */
int page_chain_open_locked(struct page_chain **chain, struct image_store *newest, enum image_use use)
	must_check;
/* Locks all directories of an open chain for another use. Fails if a snapshot has changed meanwhile. */
int page_chain_lock(struct page_chain *chain, enum image_use use) must_check;
void page_chain_close(struct page_chain *chain); /* NULL is fine */
/* Layers count from the newest, 0. */
size_t page_chain_length(const struct page_chain *chain);
struct image_store *page_chain_store(const struct page_chain *chain, size_t layer);
/* The id of the snapshot; 0: none. */
uint64_t page_chain_snapshot(const struct page_chain *chain, size_t layer);
bool page_chain_is_complete(const struct page_chain *chain); /* the newest one; all others are complete */
/* Is any pages image compressed, as far as the snapshots say so, or are pre-dumps? 0 or -errno, recorded. */
int page_chain_find_packed(const struct page_chain *chain, bool *is_found) must_check;
/* 1: found, in *layer; 0: not in the chain; -errno, recorded. */
int page_chain_find(const struct page_chain *chain, const struct image_store *store, size_t *layer)
	must_check;
/*
 * For callers that have read pages, or have left some to the chain: checks that the snapshots are still those that were
 * opened, and that no pages have been freed that this chain needs (criu dedup records that before it frees the first).
 * 0 or -errno, recorded.
 */
int page_chain_check(const struct page_chain *chain) must_check;

/*
 * Reads bytes of pages-ID.img of a layer into several buffers (the vectors are changed). Several threads may do so at
 * the same time.
 */
int page_chain_read(struct page_chain *chain, size_t layer, uint32_t pages_id, struct iovec *places,
		    int count, uint64_t offset) must_check;
/* Announces bytes that will be read soon. */
void page_chain_ahead(struct page_chain *chain, size_t layer, uint32_t pages_id, uint64_t offset,
		      uint64_t size);
/* Can this many pages images, one of each layer, stay open, so that each is opened only once? */
bool page_chain_keeps_open(const struct page_chain *chain, size_t layers);
/* Closes the pages images that reading has left open. */
void page_chain_rest(struct page_chain *chain);

#endif
