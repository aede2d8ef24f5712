/*
 * pages_write.c - writes page images: takes runs of pages from a source, a buffer at a time, drops pages of zeros, and streams
 * the rest into the pages image. The pagemap follows from what was really written.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "base/progress.h"
#include "image/message.h"
#include "memory/hashes.h"
#include "memory/pages.h"
#include "memory/stream.h"
#include "pagemap.pb-c.h"

#define MOST_READ 1024		  /* runs in one call of the source; no more than IOV_MAX */
#define MOST_RUNS (2 * MOST_READ) /* with those of the parent in between */

struct page_writer {
	struct image *pagemap, *pages;
	struct page_run entry; /* not written yet; count 0: none */
	unsigned flags;	       /* of that entry */
	struct page_statistics *statistics;
	struct stream *stream;	    /* into the pages image */
	struct hash_writer *hashes; /* NULL: none are kept */
};

int page_writer_open(struct page_writer **opened, struct image_store *store, enum image_kind kind,
		     unsigned long id, uint32_t pages_id, const struct page_hashing *hashing,
		     const struct stream_reserve *reserve, struct page_statistics *statistics)
{
	struct page_writer *writer = allocate(sizeof(*writer));
	PagemapHead head = PAGEMAP_HEAD__INIT;
	int result;

	*opened = writer;
	writer->statistics = statistics;
	result = image_create(store, &writer->pagemap, kind, id);
	if (!result)
		result = image_create(store, &writer->pages, IMAGE_PAGES, pages_id);
	if (!result)
		result = stream_open(&writer->stream, image_fd(writer->pages), image_name(writer->pages),
				     reserve);
	if (!result && hashing)
		result = hash_writer_open(&writer->hashes, store, pages_id, hashing->seed, hashing->snapshot);
	head.pages_id = pages_id;
	return result ?: image_write(writer->pagemap, &head.base);
}

static int flush_entry(struct page_writer *writer)
{
	PagemapEntry entry = PAGEMAP_ENTRY__INIT;

	if (!writer->entry.count)
		return 0;
	entry.vaddr = writer->entry.start;
	entry.compat_nr_pages = min(writer->entry.count, (uint64_t)UINT32_MAX);
	message_set(&entry, flags, writer->flags);
	if (writer->flags & PAGES_IN_PARENT)
		message_set(&entry, in_parent, true);
	message_set(&entry, nr_pages, writer->entry.count);
	writer->entry.count = 0;
	return image_write(writer->pagemap, &entry.base);
}

static int add_entry(struct page_writer *writer, uint64_t start, uint64_t count, unsigned flags)
{
	int result = 0;

	if (writer->entry.count && page_run_end(&writer->entry) == start && writer->flags == flags) {
		writer->entry.count += count;
		return 0;
	}
	result = flush_entry(writer);
	writer->entry = (struct page_run){ .start = start, .count = count };
	writer->flags = flags;
	return result;
}

static bool is_zero(const char *page)
{
	/* The first bytes decide nearly always; the rest is a comparison of the page with itself, one byte on. */
	return !page[0] && !memcmp(page, page + 1, PAGE_SIZE - 1);
}

/*
 * The pages of a run lie at `bytes`. Those that are to be written are moved to *place, which is at `bytes` or before, and *place
 * behind them.
 */
static int take_run(struct page_writer *writer, const struct page_run *run, const char *bytes, unsigned flags,
		    bool skips_zeros, char **place)
{
	int result = 0;

	for (uint64_t page = 0, end; !result && page < run->count; page = end) {
		size_t size;

		for (; skips_zeros && page < run->count && is_zero(bytes + page * PAGE_SIZE); page++)
			writer->statistics->zeros++;
		for (end = page; end < run->count && !(skips_zeros && is_zero(bytes + end * PAGE_SIZE));
		     end++)
			;
		if (end == page)
			break;
		size = (end - page) * PAGE_SIZE;
		if (*place != bytes + page * PAGE_SIZE)
			memmove(*place, bytes + page * PAGE_SIZE, size);
		if (writer->hashes)
			result = hash_writer_add(writer->hashes, *place, end - page);
		*place += size;
		writer->statistics->written += end - page;
		result = result ?: add_entry(writer, run->start + page * PAGE_SIZE, end - page, flags);
	}
	return result;
}

/* Consecutive runs of a plan, or parts of them. What is to be read of them fits into the buffer. */
struct batch {
	struct page_run runs[MOST_RUNS], wanted[MOST_READ]; /* all of them; those that are to be read */
	size_t count, wanted_count;
};

static bool is_parents(const struct page_run *run)
{
	return run->layer;
}

/* What is left of runs->items[*run] behind *done pages, and what follows, with up to `room` pages to be read. */
static void next_batch(const struct page_runs *runs, size_t *run, uint64_t *done, uint64_t room,
		       struct batch *batch)
{
	for (batch->count = batch->wanted_count = 0;
	     *run < runs->count && batch->count < MOST_RUNS && batch->wanted_count < MOST_READ && room;) {
		const struct page_run *from = &runs->items[*run];
		uint64_t take = is_parents(from) ? from->count : min(from->count - *done, room);
		struct page_run *added = &batch->runs[batch->count++];

		*added = (struct page_run){ .start = from->start + *done * PAGE_SIZE,
					    .count = take,
					    .layer = from->layer };
		if (!is_parents(from)) {
			batch->wanted[batch->wanted_count++] = *added;
			room -= take;
		}
		*done += take;
		if (*done == from->count) {
			++*run;
			*done = 0;
		}
	}
}

/* The source may give less of each run than its room in the buffer. */
static int write_batch(struct page_writer *writer, struct batch *batch, char *buffer, unsigned flags,
		       bool skips_zeros, page_source *source, void *from)
{
	struct page_statistics *statistics = writer->statistics;
	const struct page_run *read = batch->wanted;
	char *bytes = buffer, *place = buffer;
	int result = batch->wanted_count ? source(from, batch->wanted, batch->wanted_count, buffer) : 0;

	for (size_t i = 0; !result && i < batch->count; i++) {
		const struct page_run *run = &batch->runs[i];

		statistics->scanned += run->count;
		if (is_parents(run)) {
			statistics->unchanged += run->count;
			result = add_entry(writer, run->start, run->count, PAGES_IN_PARENT);
		} else {
			result = take_run(writer, read++, bytes, flags, skips_zeros, &place);
			bytes += run->count * PAGE_SIZE;
		}
	}
	return result ?: stream_advance(writer->stream, place - buffer);
}

int page_writer_add(struct page_writer *writer, const struct page_runs *runs, unsigned flags,
		    bool skips_zeros, page_source *source, void *from)
{
	const struct page_statistics *statistics = writer->statistics;
	struct batch batch;
	uint64_t done = 0; /* pages of runs->items[i] */
	int result = 0;

	for (size_t i = 0; !result && i < runs->count;) {
		size_t room;
		char *buffer = stream_buffer(writer->stream, &room);

		if (!buffer)
			return -EIO;
		result = interrupt_check();
		if (result)
			break;
		next_batch(runs, &i, &done, room / PAGE_SIZE, &batch);
		result = write_batch(writer, &batch, buffer, flags, skips_zeros, source, from);
		progress_amount(statistics->scanned << PAGE_SHIFT, statistics->expected << PAGE_SHIFT);
	}
	return result;
}

int page_writer_close(struct page_writer *writer, int result)
{
	if (!writer)
		return result;
	result = stream_close(writer->stream, result);
	if (!result)
		result = flush_entry(writer);
	for (size_t i = 0; i < 2; i++) {
		struct image *image = i ? writer->pages : writer->pagemap;
		int closed;

		if (result)
			image_abandon(image, result);
		closed = image_close(image);
		result = result ?: closed;
	}
	result = hash_writer_close(writer->hashes, result);
	free(writer);
	return result;
}
