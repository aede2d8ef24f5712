/*
 * hashes.h - 128-bit hashes of saved pages: hashes-N.img beside pages-N.img. With them a page can be compared with the
 * saved one without reading the image.
 *
 * XXH3 with a random seed. For those who do not know the seed, the probability that two pages have the same hash is
 * 2^-128 for each pair. It is no cryptographic hash: a process that reads its own images could construct such a pair,
 * of its own pages.
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

/* `snapshot` is the id of the snapshot that is being written. */
int hash_writer_open(struct hash_writer **writer, struct image_store *store, uint32_t pages_id, uint64_t seed,
		     uint64_t snapshot) must_check;
/* Adds the hashes of the next `count` pages of the pages image, which are at `pages`. */
int hash_writer_add(struct hash_writer *writer, const char *pages, uint64_t count) must_check;
/* As page_writer_close(). */
int hash_writer_close(struct hash_writer *writer, int result) must_check;

/* ---- read ---- */

struct page_hashes {
	struct image *image; /* NULL: none */
	uint64_t count;
	uint64_t start; /* of the hashes in the image, bytes */
};

/*
 * Opens those of pages-<pages_id>.img. -ENOENT, not recorded: there are none, or not of this snapshot, or not with this
 * seed, so they are useless.
 */
int page_hashes_open(struct page_hashes *hashes, struct image_store *store, uint32_t pages_id, uint64_t seed,
		     uint64_t snapshot) must_check;
void page_hashes_close(struct page_hashes *hashes);
/* Reads the hashes of `count` pages from number `page` on; -errno, not recorded. Several threads may call it. */
int page_hashes_read(const struct page_hashes *hashes, uint64_t page, uint64_t count, struct page_hash *found)
	must_check;

#endif
