/*
 * pages_read.c - reads page images: what a pagemap promises is checked once, as a whole, before any task exists.
 */
#include <errno.h>
#include <inttypes.h>
#include "base/error.h"
#include "base/io.h"
#include "memory/pages.h"
#include "pagemap.pb-c.h"

static int check_entry(const struct page_layer *layer, const struct image *image, const PagemapEntry *entry,
		       uint64_t count)
{
	const struct page_run *last = layer->runs.count ? &layer->runs.items[layer->runs.count - 1] : NULL;

	if (!count || entry->vaddr % PAGE_SIZE || count > (UINT64_MAX - entry->vaddr) / PAGE_SIZE)
		return fail(EINVAL, "%s holds an impossible range: %" PRIu64 " pages at %#" PRIx64,
			    image_name(image), count, entry->vaddr);
	if (last && entry->vaddr < page_run_end(last))
		return fail(EINVAL, "%s is not sorted: %#" PRIx64 " comes after %#" PRIx64, image_name(image),
			    entry->vaddr, last->start);
	return 0;
}

static int add_entry(struct page_layer *layer, const struct image *image, const PagemapEntry *entry,
		     uint64_t *offset)
{
	uint64_t count = entry->has_nr_pages ? entry->nr_pages : entry->compat_nr_pages;
	bool in_parent = entry->has_flags ? entry->flags & PAGES_IN_PARENT :
					    entry->has_in_parent && entry->in_parent;
	bool present = entry->has_flags ? entry->flags & PAGES_PRESENT : !in_parent;
	int result = check_entry(layer, image, entry, count);

	if (result)
		return result;
	if (in_parent)
		return fail(EINVAL, "%s refers to a parent snapshot, which is not supported yet",
			    image_name(image));
	if (!present)
		return 0;
	page_runs_add(&layer->runs,
		      &(struct page_run){ .start = entry->vaddr, .count = count, .offset = *offset });
	*offset += count * PAGE_SIZE;
	return 0;
}

static int read_entries(struct page_layer *layer, struct image *image, uint32_t *pages_id, uint64_t *size)
{
	PagemapHead *head = NULL;
	PagemapEntry *entry;
	int result = image_read_as(image, pagemap_head, &head);

	if (result <= 0)
		return result ?: fail(EINVAL, "%s is empty", image_name(image));
	*pages_id = head->pages_id;
	image_free(head);
	while ((result = image_read_as(image, pagemap_entry, &entry)) > 0) {
		result = add_entry(layer, image, entry, size);
		image_free(entry);
		if (result)
			return result;
	}
	return result;
}

int page_layer_open(struct page_layer *layer, struct image_store *store, enum image_kind kind,
		    unsigned long id)
{
	struct image *image;
	uint32_t pages_id;
	uint64_t size = 0;
	int result;

	*layer = (struct page_layer){ 0 };
	result = image_open(store, &image, kind, id);
	if (result)
		return result;
	result = read_entries(layer, image, &pages_id, &size);
	if (!result && size) {
		result = image_open(store, &layer->pages, IMAGE_PAGES, pages_id);
		if (result == -ENOENT)
			fail(ENOENT, "pages-%u.img, which %s refers to, is missing", pages_id,
			     image_name(image));
		else if (!result && image_size(layer->pages) < size)
			result = fail(
				EINVAL, "%s is too short: it has %" PRIu64 " bytes, and %s promises %" PRIu64,
				image_name(layer->pages), image_size(layer->pages), image_name(image), size);
	}
	image_close(image);
	if (result) {
		page_layer_close(layer);
		return result == -ENOENT ? -EINVAL : result;
	}
	return 0;
}

void page_layer_close(struct page_layer *layer)
{
	page_runs_free(&layer->runs);
	image_close(layer->pages);
	layer->pages = NULL;
}

int page_layer_read(const struct page_layer *layer, void *buffer, uint64_t count, uint64_t offset)
{
	int result = read_all_at(image_fd(layer->pages), buffer, count * PAGE_SIZE, offset);

	return result ? fail(-result, "cannot read %s", image_name(layer->pages)) : 0;
}

int page_layer_read_into(const struct page_layer *layer, struct iovec *places, int count, uint64_t offset)
{
	while (count) {
		ssize_t got = preadv(image_fd(layer->pages), places, count, offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return fail(got ? errno : ENODATA, "cannot read %s", image_name(layer->pages));
		offset += got;
		for (; count && (size_t)got >= places->iov_len; places++, count--)
			got -= places->iov_len;
		if (count) {
			places->iov_base = (char *)places->iov_base + got;
			places->iov_len -= got;
		}
	}
	return 0;
}
