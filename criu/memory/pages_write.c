/*
 * pages_write.c - the page writer: reads runs of pages from a source, a buffer at a time, drops pages of zeros, and
 * passes the rest to a sink. So the sink gets only pages that existed when they were read.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "base/progress.h"
#include "memory/hashes.h"
#include "memory/page_sink.h"
#include "memory/pages.h"

#define MOST_READ 1024		  /* runs in one call of the source; no more than IOV_MAX */
#define MOST_RUNS (2 * MOST_READ) /* with those of the parent in between */

struct page_writer {
	struct page_sink *sink;
	struct hash_writer *hashes; /* NULL: none are kept */
	struct page_statistics *statistics;
};

struct page_writer *page_writer_open(struct page_sink *sink, struct hash_writer *hashes,
				     struct page_statistics *statistics)
{
	struct page_writer *writer = allocate(sizeof(*writer));

	*writer = (struct page_writer){ .sink = sink, .hashes = hashes, .statistics = statistics };
	return writer;
}

static int tell_sink(struct page_writer *writer, uint64_t start, uint64_t count, unsigned flags)
{
	return writer->sink->ops->add(writer->sink, start, count, flags);
}

static bool is_zero(const char *page)
{
	/* The first bytes nearly always decide; otherwise the page is compared with itself, shifted by one byte. */
	return !page[0] && !memcmp(page, page + 1, PAGE_SIZE - 1);
}

/*
 * The pages of a run are at `bytes`. Those to be written are moved to *place, which is at `bytes` or before, and *place
 * is moved behind them.
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
		result = result ?: tell_sink(writer, run->start + page * PAGE_SIZE, end - page, flags);
	}
	return result;
}

/* Consecutive runs of a plan, or parts of them. Those to be read fit into the buffer. */
struct batch {
	struct page_run runs[MOST_RUNS], wanted[MOST_READ]; /* all runs; those to be read */
	size_t count, wanted_count;
};

static bool is_parents(const struct page_run *run)
{
	return run->layer;
}

/* Takes the rest of runs->items[*run] behind *done pages, and the following runs, with up to `room` pages to read. */
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

static int read_batch(struct page_writer *writer, struct batch *batch, char *buffer, page_source *source,
		      void *from)
{
	uint64_t began = monotonic_time(), pages = 0;
	int result = source(from, batch->wanted, batch->wanted_count, buffer);

	for (size_t i = 0; i < batch->wanted_count; i++)
		pages += batch->wanted[i].count;
	throughput_add(&writer->statistics->read, pages * PAGE_SIZE, began);
	return result;
}

/* The source may return less of each run than its space in the buffer. */
static int write_batch(struct page_writer *writer, struct batch *batch, char *buffer, unsigned flags,
		       bool skips_zeros, page_source *source, void *from)
{
	struct page_statistics *statistics = writer->statistics;
	const struct page_run *read = batch->wanted;
	char *bytes = buffer, *place = buffer;
	int result = batch->wanted_count ? read_batch(writer, batch, buffer, source, from) : 0;

	for (size_t i = 0; !result && i < batch->count; i++) {
		const struct page_run *run = &batch->runs[i];

		statistics->scanned += run->count;
		if (is_parents(run)) {
			statistics->unchanged += run->count;
			result = tell_sink(writer, run->start, run->count, PAGES_IN_PARENT);
		} else {
			result = take_run(writer, read++, bytes, flags, skips_zeros, &place);
			bytes += run->count * PAGE_SIZE;
		}
	}
	return result ?: writer->sink->ops->advance(writer->sink, place - buffer);
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
		char *buffer = writer->sink->ops->buffer(writer->sink, &room);

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
	result = writer->sink->ops->close(writer->sink, result);
	result = hash_writer_close(writer->hashes, result);
	free(writer);
	return result;
}
