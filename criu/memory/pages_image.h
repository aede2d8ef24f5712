/*
 * pages_image.h - reads a pages image, whether it is compressed (packed.h) or not.
 */
#ifndef CRIU_MEMORY_PAGES_IMAGE_H
#define CRIU_MEMORY_PAGES_IMAGE_H

#include <stdbool.h>
#include <sys/uio.h>
#include "image/image.h"

struct pages_image; /* opaque */

/*
 * Opens pages-N.img, or pages-lz4-N.img if only that exists. 0 or -errno. -ENOENT is not recorded: there is neither of
 * them.
 */
int pages_image_open(struct pages_image **pages, struct image_store *store, unsigned long id) must_check;
void pages_image_close(struct pages_image *pages); /* NULL is fine */
const char *pages_image_name(const struct pages_image *pages);
uint64_t pages_image_size(const struct pages_image *pages); /* of the pages, however they are stored */
/* The descriptor of an image with nothing but the pages. -1: they are compressed. */
int pages_image_fd(const struct pages_image *pages);
/*
 * Reads pages into several buffers (the vectors are changed). Threads may do so at the same time. 0 or -errno,
 * recorded.
 */
int pages_image_read(struct pages_image *pages, struct iovec *places, int count, uint64_t offset) must_check;
/* Announces bytes that will be read soon. */
void pages_image_ahead(const struct pages_image *pages, uint64_t offset, uint64_t size);

/* Is the image that pages_image_open() would open compressed? */
bool pages_image_is_packed(struct image_store *store, unsigned long id);
/* Is any image of the store compressed? 0 or -errno, recorded. */
int pages_image_find_packed(struct image_store *store, bool *is_found) must_check;

#endif
