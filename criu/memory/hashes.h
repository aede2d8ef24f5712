/*
 * hashes.h - 128-bit hashes of saved pages: hashes-N.img beside pages-N.img. Who has them can tell whether a page is the saved one
 * without reading the image.
 *
 * XXH3 with a random seed. Two pages with one hash are as unlikely as 2^-128 a pair for whoever does not know the seed; it
 * is no cryptographic hash, and a process that reads its own images could make such a pair, of its own pages.
 */
#ifndef CRIU_MEMORY_HASHES_H
#define CRIU_MEMORY_HASHES_H

#include "compiler.h"
#include "image/image.h"

struct page_hash {
	uint64_t low, high;
};

struct page_hash page_hash(const void *page, uint64_t seed);

/* ---- written with the pages ---- */

struct hash_writer;

/* `snapshot` names the snapshot that is being written. */
int hash_writer_open(struct hash_writer **writer, struct image_store *store, uint32_t pages_id, uint64_t seed,
		     uint64_t snapshot) must_check;
/* The hashes of the next `count` pages of the pages image, which lie at `pages`. */
int hash_writer_add(struct hash_writer *writer, const char *pages, uint64_t count) must_check;
/* As page_writer_close(). */
int hash_writer_close(struct hash_writer *writer, int result) must_check;

/* ---- read ---- */

struct page_hashes {
	struct image *image; /* NULL: there are none */
	uint64_t count;
	uint64_t start; /* of the hashes in the image, bytes */
};

/*
 * Those of pages-<pages_id>.img. -ENOENT, not recorded: there are none, or not of this snapshot, or not with this seed: then
 * nothing can be told from them.
 */
int page_hashes_open(struct page_hashes *hashes, struct image_store *store, uint32_t pages_id, uint64_t seed,
		     uint64_t snapshot) must_check;
void page_hashes_close(struct page_hashes *hashes);
/* The hashes of `count` pages from number `page` on; -errno, not recorded. May be called from several threads. */
int page_hashes_read(const struct page_hashes *hashes, uint64_t page, uint64_t count, struct page_hash *found)
	must_check;

#endif
