/*
 * page_files.c - writes page images. Bytes go through a stream, which writes them while the next ones are read.
 * Neighbouring pages with the same flags become one entry of the pagemap. See page_files.h.
 */
#include <stdlib.h>
#include "base/memory.h"
#include "memory/hashes.h"
#include "memory/page_files.h"
#include "memory/pagemap.h"

struct file_sink {
	struct page_sink base;
	struct image *pagemap, *pages;
	struct page_run entry; /* not written yet, because the next pages may belong to it; count 0: none */
	unsigned flags;	       /* of that entry */
	struct stream *stream; /* into the pages image */
};

static struct file_sink *file_sink(struct page_sink *sink)
{
	return (struct file_sink *)sink;
}

static char *give_buffer(struct page_sink *base, size_t *room)
{
	return stream_buffer(file_sink(base)->stream, room);
}

static int flush_entry(struct file_sink *sink)
{
	struct page_run entry = sink->entry;

	sink->entry.count = 0;
	return entry.count ? pagemap_write_entry(sink->pagemap, entry.start, entry.count, sink->flags) : 0;
}

static int merge_entry(struct page_sink *base, uint64_t start, uint64_t count, unsigned flags)
{
	struct file_sink *sink = file_sink(base);
	int result;

	if (sink->entry.count && page_run_end(&sink->entry) == start && sink->flags == flags) {
		sink->entry.count += count;
		return 0;
	}
	result = flush_entry(sink);
	sink->entry = (struct page_run){ .start = start, .count = count };
	sink->flags = flags;
	return result;
}

static int advance_stream(struct page_sink *base, size_t size)
{
	return stream_advance(file_sink(base)->stream, size);
}

static int close_image(struct image *image, int result)
{
	int closed;

	if (result)
		image_abandon(image, result);
	closed = image_close(image);
	return result ?: closed;
}

static int close_sink(struct page_sink *base, int result)
{
	struct file_sink *sink = file_sink(base);

	result = stream_close(sink->stream, result);
	if (!result)
		result = flush_entry(sink);
	result = close_image(sink->pagemap, result);
	result = close_image(sink->pages, result);
	free(sink);
	return result;
}

static const struct page_sink_ops file_sink_ops = {
	.buffer = give_buffer,
	.add = merge_entry,
	.advance = advance_stream,
	.close = close_sink,
};

int page_files_open(struct page_sink **opened, const struct page_files *files)
{
	struct file_sink *sink = allocate(sizeof(*sink));
	int result;

	sink->base.ops = &file_sink_ops;
	*opened = &sink->base;
	result = image_create(files->store, &sink->pagemap, files->kind, files->id);
	if (!result)
		result = image_create(files->store, &sink->pages, IMAGE_PAGES, files->pages_id);
	if (!result)
		result = stream_open(&sink->stream, image_fd(sink->pages), image_name(sink->pages),
				     files->reserve);
	return result ?: pagemap_write_head(sink->pagemap, files->pages_id);
}

int page_files_write(struct page_writer **writer, const struct page_files *files,
		     struct page_statistics *statistics)
{
	const struct page_hashing *hashing = files->hashing;
	struct hash_writer *hashes = NULL;
	struct page_sink *sink;
	int result = page_files_open(&sink, files);

	if (!result && hashing)
		result = hash_writer_open(&hashes, files->store, files->pages_id, hashing->seed,
					  hashing->snapshot);
	*writer = page_writer_open(sink, hashes, statistics);
	return result;
}
