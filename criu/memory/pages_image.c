/*
 * pages_image.c - see pages_image.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "memory/packed.h"
#include "memory/pages_image.h"

struct pages_image {
	struct image *image;
	struct unpacker *unpacker; /* NULL: it is not compressed */
	char *name;		   /* with that of the directory, for messages */
};

static int open_either(struct pages_image *pages, struct image_store *store, unsigned long id)
{
	int result = image_open(store, &pages->image, IMAGE_PAGES, id);
	bool is_packed = result == -ENOENT;

	if (is_packed)
		result = image_open(store, &pages->image, IMAGE_PACKED_PAGES, id);
	if (result)
		return result;
	pages->name = format_text("%s/%s", image_store_name(store), image_name(pages->image));
	return is_packed ? unpacker_open(&pages->unpacker, image_fd(pages->image), image_size(pages->image),
					 pages->name) :
			   0;
}

int pages_image_open(struct pages_image **opened, struct image_store *store, unsigned long id)
{
	int result;

	*opened = allocate(sizeof(**opened));
	result = open_either(*opened, store, id);
	if (result)
		pages_image_close(steal_pointer(opened));
	return result;
}

void pages_image_close(struct pages_image *pages)
{
	if (!pages)
		return;
	unpacker_close(pages->unpacker);
	image_close_read(pages->image);
	free(pages->name);
	free(pages);
}

const char *pages_image_name(const struct pages_image *pages)
{
	return pages->name;
}

uint64_t pages_image_size(const struct pages_image *pages)
{
	return pages->unpacker ? unpacker_size(pages->unpacker) : image_size(pages->image);
}

int pages_image_fd(const struct pages_image *pages)
{
	return pages->unpacker ? -1 : image_fd(pages->image);
}

static int read_plain(const struct pages_image *pages, struct iovec *places, int count, uint64_t offset)
{
	int result = read_vectors_at(image_fd(pages->image), places, count, (off_t)offset);

	return result ? fail(-result, "cannot read %s", pages->name) : 0;
}

int pages_image_read(struct pages_image *pages, struct iovec *places, int count, uint64_t offset)
{
	return pages->unpacker ? unpacker_read(pages->unpacker, places, count, offset) :
				 read_plain(pages, places, count, offset);
}

void pages_image_ahead(const struct pages_image *pages, uint64_t offset, uint64_t size)
{
	uint64_t start = offset, end = offset + size;

	if (pages->unpacker)
		unpacker_place(pages->unpacker, offset, size, &start, &end);
	if (start < end) /* a length of 0 would mean: to the end of the file */
		posix_fadvise(image_fd(pages->image), start, end - start, POSIX_FADV_WILLNEED);
}

bool pages_image_is_packed(struct image_store *store, unsigned long id)
{
	struct image *image = NULL;
	bool is_packed = attempted(image_open(store, &image, IMAGE_PAGES, id)) == -ENOENT &&
			 attempted(image_open(store, &image, IMAGE_PACKED_PAGES, id)) != -ENOENT;

	image_close_read(image);
	return is_packed;
}

int pages_image_find_packed(struct image_store *store, bool *is_found)
{
	struct image_names names;
	unsigned long id;
	int result = image_store_list(store, &names);

	*is_found = false;
	for (size_t i = 0; !result && !*is_found && i < names.count; i++)
		*is_found = image_name_is(names.items[i], IMAGE_PACKED_PAGES, &id) &&
			    pages_image_is_packed(store, id);
	image_names_free(&names);
	return result;
}
