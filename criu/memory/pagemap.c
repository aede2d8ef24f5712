/*
 * pagemap.c - reads and checks a pagemap image, with both spellings of its flags. See pagemap.h.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include "base/error.h"
#include "base/memory.h"
#include "image/message.h"
#include "memory/pagemap.h"
#include "pagemap.pb-c.h"

/*
 * A chain of 100 snapshots of 1 GiB, each with 1 % of its pages newly written, has half a million entries: they are
 * read as integers, without creating a message for each.
 */
enum { VADDR = 1, COMPAT_NR_PAGES, IN_PARENT, FLAGS, NR_PAGES, FIELDS = NR_PAGES };

struct fields {
	uint64_t values[FIELDS];
	unsigned given; /* bits */
};

static uint64_t field(const struct fields *fields, unsigned number)
{
	return fields->given & 1u << number ? fields->values[number - 1] : 0;
}

/* Older images have `in_parent` instead of `flags`. */
static unsigned flags_of(const struct fields *fields)
{
	unsigned flags = field(fields, FLAGS) & (PAGES_IN_PARENT | PAGES_LAZY | PAGES_PRESENT);

	if (!(fields->given & 1u << FLAGS))
		return field(fields, IN_PARENT) ? PAGES_IN_PARENT : PAGES_PRESENT;
	/* An image that has the pages does not need its parent's. */
	return flags & PAGES_PRESENT ? flags & ~PAGES_IN_PARENT : flags;
}

static int take_entry(struct pagemap *pagemap, const char *name, const struct fields *fields)
{
	const struct pagemap_entry *last = pagemap->count ? &pagemap->entries[pagemap->count - 1] : NULL;
	uint64_t count = fields->given & 1u << NR_PAGES ? field(fields, NR_PAGES) :
							  (uint32_t)field(fields, COMPAT_NR_PAGES);
	struct pagemap_entry entry = { field(fields, VADDR), count, flags_of(fields), pagemap->size };

	if (!count || entry.start % PAGE_SIZE || count > (UINT64_MAX - entry.start) / PAGE_SIZE)
		return fail(EINVAL, "%s has an invalid range: %" PRIu64 " pages at %#" PRIx64, name, count,
			    entry.start);
	if (last && entry.start < last->start + last->count * PAGE_SIZE)
		return fail(EINVAL, "%s is not sorted: %#" PRIx64 " comes after %#" PRIx64, name, entry.start,
			    last->start);
	if (!(entry.flags & (PAGES_PRESENT | PAGES_IN_PARENT)))
		return 0;
	if (entry.flags & PAGES_PRESENT) {
		if (count > (INT64_MAX - pagemap->size) / PAGE_SIZE)
			return fail(EINVAL, "%s lists more pages than a file can hold", name);
		pagemap->size += count * PAGE_SIZE;
	}
	if (pagemap->count == pagemap->capacity) {
		pagemap->capacity = pagemap->capacity * 2 ?: 64;
		pagemap->entries = reallocate_array(pagemap->entries, pagemap->capacity,
						    sizeof(*pagemap->entries));
	}
	pagemap->entries[pagemap->count++] = entry;
	return 0;
}

static int read_entries(struct pagemap *pagemap, const char *directory, struct image *image)
{
	autofree char *name = format_text("%s/%s", directory, image_name(image));
	PagemapHead *head = NULL;
	struct fields fields;
	int result = image_read_as(image, pagemap_head, &head);

	if (result <= 0)
		return result ?: fail(EINVAL, "%s is empty", name);
	pagemap->pages_id = head->pages_id;
	image_free(head);
	while ((result = image_read_integers(image, &pagemap_entry__descriptor, fields.values, FIELDS,
					     &fields.given)) > 0) {
		if (!(fields.given & 1u << VADDR))
			return fail(EINVAL, "%s has an entry without an address", name);
		result = take_entry(pagemap, name, &fields);
		if (result)
			return result;
	}
	return result;
}

int pagemap_read(struct pagemap *pagemap, struct image_store *store, enum image_kind kind, unsigned long id)
{
	struct image *image;
	int result;

	*pagemap = (struct pagemap){ .entries = pagemap->entries, .capacity = pagemap->capacity };
	result = image_open(store, &image, kind, id);
	if (result)
		return result;
	result = read_entries(pagemap, image_store_name(store), image);
	image_close_read(image);
	return result;
}

void pagemap_free(struct pagemap *pagemap)
{
	free(pagemap->entries);
	*pagemap = (struct pagemap){ 0 };
}

int pagemap_read_coverage(struct page_runs *runs, struct image_store *store, pid_t pid)
{
	struct pagemap pagemap = { 0 };
	int result = pagemap_read(&pagemap, store, IMAGE_PAGEMAP, pid);

	for (size_t i = 0; !result && i < pagemap.count; i++)
		page_runs_add_range(runs, pagemap.entries[i].start,
				    pagemap.entries[i].start + pagemap.entries[i].count * PAGE_SIZE);
	pagemap_free(&pagemap);
	return result;
}

int pagemap_write_head(struct image *image, uint32_t pages_id)
{
	PagemapHead head = PAGEMAP_HEAD__INIT;

	head.pages_id = pages_id;
	return image_write(image, &head.base);
}

int pagemap_write_entry(struct image *image, uint64_t start, uint64_t count, unsigned flags)
{
	PagemapEntry entry = PAGEMAP_ENTRY__INIT;

	entry.vaddr = start;
	entry.compat_nr_pages = min(count, (uint64_t)UINT32_MAX);
	message_set(&entry, flags, flags);
	if (flags & PAGES_IN_PARENT)
		message_set(&entry, in_parent, true);
	message_set(&entry, nr_pages, count);
	return image_write(image, &entry.base);
}
