/*
 * page_files.c - writes page images. Bytes go through a stream, which writes them while the next ones are read.
 * Neighbouring pages with the same flags become one entry of the pagemap. See page_files.h.
 *
 * The files are created when the first bytes have to be written. For a small process that is when the sink is closed,
 * and by then the process may run on. To create two files takes 0.1 ms, and more than a millisecond if many others have
 * just been deleted (ext4, Linux 6.18).
 */
#include <stdlib.h>
#include "base/error.h"
#include "base/memory.h"
#include "memory/hashes.h"
#include "memory/packed.h"
#include "memory/page_files.h"
#include "memory/pagemap.h"

#define MOST_KEPT 4096 /* entries of a pagemap: 160 KiB */

struct file_sink {
	struct page_sink base;
	struct page_files files;
	struct image *pagemap, *pages; /* NULL: not created yet */
	struct page_run entry;	       /* the next pages may belong to it; count 0: none */
	struct page_runs kept;	       /* entries before it that are not written yet */
	struct stream *stream;	       /* into the pages image … */
	char name[IMAGE_NAME_SIZE];    /* … of this name, … */
	enum image_kind pages_kind;    /* … which is compressed or not */
	struct packer *packer;	       /* NULL: nothing has been compressed yet */
	struct stream_statistics *statistics;
};

static struct file_sink *file_sink(struct page_sink *sink)
{
	return (struct file_sink *)sink;
}

/* Called when there is something to write, or when all pages are known. */
static int create_images(struct file_sink *sink)
{
	const struct page_files *files = &sink->files;

	if (sink->pages)
		return 0;
	return image_create(files->store, &sink->pagemap, files->kind, files->id)		   ?:
		       image_create(files->store, &sink->pages, sink->pages_kind, files->pages_id) ?:
		       pagemap_write_head(sink->pagemap, files->pages_id);
}

static bool adapts(const struct file_sink *sink)
{
	return image_store_compression(sink->files.store) == COMPRESS_AUTO;
}

static int open_sink(void *context)
{
	struct file_sink *sink = context;
	int result = create_images(sink);

	if (!result && sink->pages_kind == IMAGE_PACKED_PAGES)
		sink->packer = packer_open(image_fd(sink->pages), adapts(sink));
	return result ?: image_fd(sink->pages);
}

static int pack(void *context, const char *bytes, size_t size)
{
	return packer_write(((struct file_sink *)context)->packer, bytes, size);
}

static char *give_buffer(struct page_sink *base, size_t *room)
{
	return stream_buffer(file_sink(base)->stream, room);
}

static void keep_entry(struct file_sink *sink)
{
	if (sink->entry.count)
		*grow(&sink->kept.items, &sink->kept.count) = sink->entry;
	sink->entry.count = 0;
}

static int write_kept(struct file_sink *sink)
{
	int result = 0;

	for (size_t i = 0; !result && i < sink->kept.count; i++) {
		const struct page_run *entry = &sink->kept.items[i];

		result = pagemap_write_entry(sink->pagemap, entry->start, entry->count, entry->flags);
	}
	page_runs_free(&sink->kept);
	return result;
}

static int merge_entry(struct page_sink *base, uint64_t start, uint64_t count, unsigned flags)
{
	struct file_sink *sink = file_sink(base);

	if (sink->entry.count && page_run_end(&sink->entry) == start && sink->entry.flags == flags) {
		sink->entry.count += count;
		return 0;
	}
	keep_entry(sink);
	sink->entry = (struct page_run){ .start = start, .count = count, .flags = flags };
	return sink->kept.count < MOST_KEPT ? 0 : create_images(sink) ?: write_kept(sink);
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

static int close_packer(struct file_sink *sink, int result)
{
	struct packer_statistics statistics = { 0 };
	int closed = packer_close(steal_pointer(&sink->packer), result, &statistics);

	throughput_merge(&sink->statistics->cached, &statistics.writing);
	throughput_merge(&sink->statistics->packing, &statistics.packing);
	sink->statistics->packed += statistics.packed;
	return !result && closed ? fail(-closed, "cannot write %s", sink->name) : result;
}

/* Without an error the stream has created the images when it is closed. */
static int close_sink(struct page_sink *base, int result)
{
	struct file_sink *sink = file_sink(base);

	result = stream_close(sink->stream, result);
	result = close_packer(sink, result);
	keep_entry(sink);
	result = result ?: write_kept(sink);
	result = close_image(sink->pagemap, result);
	result = close_image(sink->pages, result);
	page_runs_free(&sink->kept);
	free(sink);
	return result;
}

static const struct page_sink_ops file_sink_ops = {
	.buffer = give_buffer,
	.add = merge_entry,
	.advance = advance_stream,
	.close = close_sink,
};

/* Only large images are worth it if that is to take less time. */
static bool wants_packing(const struct page_files *files)
{
	enum compression compression = image_store_compression(files->store);

	return compression == COMPRESS_ALWAYS ||
	       (compression == COMPRESS_AUTO && files->usual_size >= STREAM_MUCH);
}

int page_files_open(struct page_sink **opened, const struct page_files *files,
		    struct stream_statistics *statistics)
{
	struct file_sink *sink = allocate(sizeof(*sink));
	bool is_packed = wants_packing(files);
	const struct stream_file file = {
		.open = open_sink,
		.write = is_packed ? pack : NULL,
		.context = sink,
		.name = sink->name,
		.usual_size = files->usual_size,
		.memory = files->memory,
		.memory_size = files->memory_size,
		.statistics = statistics,
	};

	sink->pages_kind = is_packed ? IMAGE_PACKED_PAGES : IMAGE_PAGES;
	sink->statistics = statistics;
	image_file_name(sink->name, sink->pages_kind, files->pages_id);
	sink->base.ops = &file_sink_ops;
	sink->files = *files;
	*opened = &sink->base;
	return stream_open(&sink->stream, &file, files->reserve);
}

int page_files_write(struct page_writer **writer, const struct page_files *files,
		     struct page_statistics *statistics)
{
	const struct page_hashing *hashing = files->hashing;
	struct hash_writer *hashes = NULL;
	struct page_sink *sink;
	int result = page_files_open(&sink, files, &statistics->streams);

	if (!result && hashing)
		result = hash_writer_open(&hashes, files->store, files->pages_id, hashing->seed,
					  hashing->snapshot);
	*writer = page_writer_open(sink, hashes, statistics);
	return result;
}
