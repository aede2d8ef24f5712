/*
 * pages_write.c - writes page images: takes runs of pages from a source, a buffer at a time, drops pages of zeros, and appends
 * the rest to the pages image. The pagemap follows from what was really written.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "image/message.h"
#include "memory/pages.h"
#include "pagemap.pb-c.h"

#define BUFFER_PAGES 256  /* 1 MiB: fits the cache of a CPU, so the copy to the page cache finds it there */
#define MOST_RUNS    1024 /* in one call of the source; IOV_MAX */

struct page_writer {
	struct image *pagemap, *pages;
	struct page_run entry; /* not written yet; count 0: none */
	unsigned flags;	       /* of that entry */
	uint64_t offset;       /* end of the pages image */
	struct page_statistics *statistics;
	char *buffer; /* BUFFER_PAGES */
};

int page_writer_open(struct page_writer **opened, struct image_store *store, enum image_kind kind, unsigned long id,
		     uint32_t pages_id, struct page_statistics *statistics)
{
	struct page_writer *writer = allocate(sizeof(*writer));
	PagemapHead head = PAGEMAP_HEAD__INIT;
	int result;

	*opened = writer;
	writer->statistics = statistics;
	writer->buffer = mmap(NULL, BUFFER_PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (writer->buffer == MAP_FAILED)
		result = fail(errno, "no memory for a buffer");
	else
		result = image_create(store, &writer->pagemap, kind, id);
	if (!result)
		result = image_create(store, &writer->pages, IMAGE_PAGES, pages_id);
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

/* `count` pages at `bytes` are to be written, without looking at them. */
static int append(struct page_writer *writer, uint64_t start, const char *bytes, uint64_t count, unsigned flags)
{
	int result;

	if (!count)
		return 0;
	result = image_write_bytes(writer->pages, bytes, count * PAGE_SIZE);
	if (result)
		return result;
	writer->offset += count * PAGE_SIZE;
	writer->statistics->written += count;
	return add_entry(writer, start, count, flags);
}

static int append_run(struct page_writer *writer, const struct page_run *run, const char *bytes, unsigned flags,
		      bool skips_zeros)
{
	uint64_t first = 0; /* of the pages that wait to be written */
	int result = 0;

	for (uint64_t page = 0; skips_zeros && !result && page < run->count; page++) {
		if (!is_zero(bytes + page * PAGE_SIZE))
			continue;
		result = append(writer, run->start + first * PAGE_SIZE, bytes + first * PAGE_SIZE, page - first, flags);
		writer->statistics->zeros++;
		first = page + 1;
	}
	return result ?: append(writer, run->start + first * PAGE_SIZE, bytes + first * PAGE_SIZE, run->count - first, flags);
}

int page_writer_add(struct page_writer *writer, const struct page_runs *runs, unsigned flags, bool skips_zeros,
		    page_source *source, void *from)
{
	struct page_run batch[MOST_RUNS];
	uint64_t done = 0; /* pages of runs->items[i] */
	int result = 0;

	for (size_t i = 0; !result && i < runs->count;) {
		size_t batched = 0;
		uint64_t pages = 0;
		const char *bytes = writer->buffer;

		while (i < runs->count && batched < MOST_RUNS && pages < BUFFER_PAGES) {
			uint64_t take = min(runs->items[i].count - done, BUFFER_PAGES - pages);

			batch[batched++] = (struct page_run){ .start = runs->items[i].start + done * PAGE_SIZE, .count = take };
			pages += take;
			done += take;
			if (done == runs->items[i].count) {
				i++;
				done = 0;
			}
		}
		writer->statistics->scanned += pages;
		result = source(from, batch, batched, writer->buffer);
		for (size_t b = 0; !result && b < batched; b++) {
			result = append_run(writer, &batch[b], bytes, flags, skips_zeros);
			bytes += batch[b].count * PAGE_SIZE;
		}
	}
	return result;
}

int page_writer_close(struct page_writer *writer)
{
	int result;

	if (!writer)
		return 0;
	result = writer->pagemap ? flush_entry(writer) : 0;
	result = image_close(writer->pagemap) ?: result;
	result = image_close(writer->pages) ?: result;
	if (writer->buffer != MAP_FAILED)
		munmap(writer->buffer, BUFFER_PAGES * PAGE_SIZE);
	free(writer);
	return result;
}

int pages_of_file(void *from, const struct page_run *runs, size_t count, char *buffer)
{
	for (size_t i = 0; i < count; i++) {
		size_t size = runs[i].count * PAGE_SIZE;
		int result = read_all_at(*(int *)from, buffer, size, runs[i].start);

		if (result)
			return fail(-result, "cannot read shared memory at %#llx", (unsigned long long)runs[i].start);
		buffer += size;
	}
	return 0;
}

/* What process_vm_readv() may not read, /proc/PID/mem may: it ignores the protection of mappings. */
static int read_by_file(struct task_memory *memory, const struct page_run *runs, size_t count, char *buffer)
{
	char path[32];

	if (memory->mem < 0) {
		snprintf(path, sizeof(path), "/proc/%d/mem", memory->pid);
		memory->mem = open(path, O_RDONLY | O_CLOEXEC);
	}
	if (memory->mem < 0)
		return fail(errno, "cannot open /proc/%d/mem", memory->pid);
	for (size_t i = 0; i < count; i++) {
		size_t size = runs[i].count * PAGE_SIZE;
		int result = read_all_at(memory->mem, buffer, size, runs[i].start);

		if (result)
			return fail(-result, "cannot read the memory of process %d at %#llx", memory->pid,
				    (unsigned long long)runs[i].start);
		buffer += size;
	}
	return 0;
}

int pages_of_task(void *from, const struct page_run *runs, size_t count, char *buffer)
{
	struct task_memory *memory = from;
	struct iovec here = { buffer, 0 }, there[MOST_RUNS];

	for (size_t i = 0; i < count; i++) {
		there[i] = (struct iovec){ (void *)(uintptr_t)runs[i].start, runs[i].count * PAGE_SIZE };
		here.iov_len += there[i].iov_len;
	}
	if (process_vm_readv(memory->pid, &here, 1, there, count, 0) == (ssize_t)here.iov_len)
		return 0;
	return read_by_file(memory, runs, count, buffer);
}
