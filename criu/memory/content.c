/*
 * content.c - compares memory with the parent snapshot, by hashes. See content.h.
 *
 * The work is divided into pieces of consecutive pages. Each thread takes the next piece, reads and hashes it, compares
 * it with the parent's hashes (or bytes), and notes which pages are equal.
 */
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "base/bits.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/thread.h"
#include "memory/content.h"

#define WINDOW_PAGES   4096 /* pages whose hashes are read together: 64 KiB */
#define PIECE_PAGES    64   /* 256 KiB: stays in the CPU's cache between reading and hashing */
#define MOST_WORKERS   4
#define WORTH_A_WORKER 1024 /* pages */

struct piece {
	uint64_t start, count;
	uint64_t first; /* index among the task's own pages */
};

struct comparison {
	const struct content *content;
	page_source *source;
	void *from;
	struct piece *pieces;
	size_t piece_count;
	bool *is_equal; /* for each own page */
	atomic_size_t next;
	atomic_int error; /* -errno */
};

/* ---- the parent's hashes ---- */

/* Reads hashes of the parent: those of the current layer, one window of pages at a time. */
struct hash_reader {
	struct content *content;
	bool reads_pages; /* there are no hashes */
	bool is_open;	  /* it has a current layer */
	size_t layer;
	struct page_hashes hashes; /* of the layer; empty if it has none, or none of these pages */
	struct page_hash window[WINDOW_PAGES];
	uint64_t page, count; /* of the window */
};

static int open_hashes(struct hash_reader *reader, size_t layer, uint32_t pages_id)
{
	const struct content *content = reader->content;
	int result;

	page_hashes_close(&reader->hashes);
	reader->is_open = true;
	reader->layer = layer;
	reader->count = 0;
	content->pages_ids[layer] = pages_id;
	result = page_hashes_open(&reader->hashes, page_chain_store(content->chain, layer), pages_id,
				  content->seed, page_chain_snapshot(content->chain, layer));
	return result == -ENOENT ? 0 : result;
}

/* Reads the window that begins at this page. */
static int read_window(struct hash_reader *reader, uint64_t page)
{
	uint64_t end = reader->hashes.count;
	uint64_t count = page < end ? min(end - page, (uint64_t)WINDOW_PAGES) : 0;
	int result = page_hashes_read(&reader->hashes, page, count, reader->window);

	reader->page = page;
	reader->count = result ? 0 : count;
	return result;
}

/* Copies hashes from the window: runs are often small and adjacent, so one read serves many of them. */
static int copy_hashes(struct hash_reader *reader, uint64_t page, uint64_t count, struct page_hash *to)
{
	int result = 0;

	if (count >= WINDOW_PAGES)
		return page_hashes_read(&reader->hashes, page, count, to);
	if (page < reader->page || page + count > reader->page + reader->count)
		result = read_window(reader, page);
	if (!result && count > reader->count)
		result = -EINVAL;
	if (!result)
		memcpy(to, reader->window + (page - reader->page), count * sizeof(*to));
	return result;
}

/* Called when the number of pages is known. */
static void make_room_for_pages(struct content *content)
{
	uint64_t pages = page_runs_total(&content->pages);

	content->known = allocate_array(pages, sizeof(*content->known));
	content->is_hashed = allocate_array(BITS_WORDS(pages), sizeof(*content->is_hashed));
}

static void note_page_places(union parent_page *known, const struct page_run *run)
{
	for (uint64_t i = 0; i < run->count; i++) {
		known[i].place.layer = run->layer;
		known[i].place.offset = run->offset + i * PAGE_SIZE;
	}
}

static int hash_pages(const struct content *content, const struct page_run *run, uint32_t pages_id,
		      union parent_page *known)
{
	autofree char *buffer = allocate(PIECE_PAGES * PAGE_SIZE);
	int result = 0;

	for (uint64_t done = 0, take; !result && done < run->count; done += take) {
		struct iovec place = { .iov_base = buffer };

		take = min(run->count - done, (uint64_t)PIECE_PAGES);
		place.iov_len = take * PAGE_SIZE;
		result = page_chain_read(content->chain, run->layer, pages_id, &place, 1,
					 run->offset + done * PAGE_SIZE);
		for (uint64_t i = 0; !result && i < take; i++)
			known[done + i].hash = page_hash(buffer + i * PAGE_SIZE, content->seed);
	}
	return result;
}

/* A page_visitor. */
static int note_pages(void *context, const struct page_run *run, uint32_t pages_id, uint64_t number)
{
	struct hash_reader *reader = context;
	struct content *content = reader->content;
	int result = 0;

	if (!content->known)
		make_room_for_pages(content);
	if (!reader->is_open || reader->layer != run->layer)
		result = open_hashes(reader, run->layer, pages_id);
	if (result)
		return result;
	if (copy_hashes(reader, run->offset / PAGE_SIZE, run->count, &content->known[number].hash)) {
		if (!reader->reads_pages) {
			note_page_places(&content->known[number], run);
			return 0;
		}
		result = hash_pages(content, run, pages_id, &content->known[number]);
	}
	if (!result)
		bits_set(content->is_hashed, number, number + run->count);
	return result;
}

int content_open(struct content *content, struct page_chain *chain, enum image_kind kind, unsigned long id,
		 uint64_t seed, const struct page_runs *only)
{
	autofree struct hash_reader *reader = allocate(sizeof(*reader));
	int result;

	content->chain = chain;
	content->seed = seed;
	content->pages_ids = allocate_array(page_chain_length(chain), sizeof(*content->pages_ids));
	reader->content = content;
	reader->reads_pages = only;
	result = page_stack_walk(chain, kind, id, only, &content->pages, note_pages, reader);
	page_hashes_close(&reader->hashes);
	if (!result && !content->known)
		make_room_for_pages(content);
	return result;
}

void content_close(struct content *content)
{
	page_runs_free(&content->pages);
	free(content->known);
	free(content->is_hashed);
	free(content->pages_ids);
	*content = (struct content){ 0 };
}

/* ---- the pieces ---- */

static void cut_into_pieces(struct comparison *comparison, const struct page_runs *own)
{
	uint64_t first = 0;

	for (size_t i = 0; i < own->count; i++)
		for (uint64_t page = 0, count; page < own->items[i].count; page += count, first += count) {
			count = min(own->items[i].count - page, (uint64_t)PIECE_PAGES);
			*grow(&comparison->pieces, &comparison->piece_count) =
				(struct piece){ own->items[i].start + page * PAGE_SIZE, count, first };
		}
}

/* ---- the threads ---- */

/* Consecutive pages of a piece that are all compared by hashes, or all by bytes. */
struct part {
	const char *pages;
	uint64_t count, first; /* number of pages; index of the first among the task's own pages … */
	uint64_t theirs;       /* … and among the parent's */
};

static void compare_hashes(struct comparison *comparison, const struct part *part)
{
	const union parent_page *theirs = comparison->content->known + part->theirs;

	for (uint64_t i = 0; i < part->count; i++) {
		struct page_hash ours = page_hash(part->pages + i * PAGE_SIZE, comparison->content->seed);

		comparison->is_equal[part->first + i] = !memcmp(&ours, &theirs[i].hash, sizeof(ours));
	}
}

/* The number of pages from here on that are in one layer, in the same order as in memory. */
static uint64_t count_together(const union parent_page *known, uint64_t most)
{
	uint64_t count = 1;

	while (count < most && known[count].place.layer == known->place.layer)
		count++;
	return count;
}

static int compare_bytes(struct comparison *comparison, const struct part *part, char *buffer)
{
	const struct content *content = comparison->content;
	int result = 0;

	for (uint64_t done = 0, take; !result && done < part->count; done += take) {
		const union parent_page *known = &content->known[part->theirs + done];
		struct iovec place = { .iov_base = buffer };

		take = count_together(known, part->count - done);
		place.iov_len = take * PAGE_SIZE;
		result = page_chain_read(content->chain, known->place.layer,
					 content->pages_ids[known->place.layer], &place, 1,
					 known->place.offset);
		for (uint64_t i = 0; !result && i < take; i++)
			comparison->is_equal[part->first + done + i] = !memcmp(
				part->pages + (done + i) * PAGE_SIZE, buffer + i * PAGE_SIZE, PAGE_SIZE);
	}
	return result;
}

/*
 * Pages that the parent does not have are in no part, so they count as changed. Pages that have vanished meanwhile are
 * in no part either.
 */
static int compare_piece(struct comparison *comparison, const struct piece *piece, char *pages, char *buffer)
{
	const struct content *content = comparison->content;
	const struct page_runs *theirs = &content->pages;
	struct page_run run = { .start = piece->start, .count = piece->count };
	int result = comparison->source(comparison->from, &run, 1, pages);
	uint64_t end = page_run_end(&run);

	for (size_t i = page_runs_find(theirs, run.start);
	     !result && i < theirs->count && theirs->items[i].start < end; i++) {
		const struct page_run *found = &theirs->items[i];
		uint64_t from = max(found->start, run.start);
		uint64_t left = (min(page_run_end(found), end) - from) / PAGE_SIZE;
		struct part part = {
			.pages = pages + (from - run.start),
			.first = piece->first + (from - run.start) / PAGE_SIZE,
			.theirs = (found->offset + (from - found->start)) / PAGE_SIZE,
		};

		for (; !result && left; left -= part.count) {
			bool is_hashed = bits_find(content->is_hashed, part.theirs, part.theirs + 1, true) ==
					 part.theirs;

			part.count = bits_find(content->is_hashed, part.theirs, part.theirs + left,
					       !is_hashed) -
				     part.theirs;
			if (is_hashed)
				compare_hashes(comparison, &part);
			else
				result = compare_bytes(comparison, &part, buffer);
			part.pages += part.count * PAGE_SIZE;
			part.first += part.count;
			part.theirs += part.count;
		}
	}
	return result;
}

static void *compare_pieces(void *argument)
{
	struct comparison *comparison = argument;
	autofree char *pages = allocate(PIECE_PAGES * PAGE_SIZE);
	autofree char *buffer = allocate(PIECE_PAGES * PAGE_SIZE);

	for (size_t i; (i = atomic_fetch_add(&comparison->next, 1)) < comparison->piece_count;) {
		int result = atomic_load(&comparison->error) ?:
				     compare_piece(comparison, &comparison->pieces[i], pages, buffer);

		if (result) {
			atomic_store(&comparison->error, result);
			break;
		}
	}
	return NULL;
}

static size_t helpers_for(uint64_t pages)
{
	cpu_set_t cpus;

	if (pages < WORTH_A_WORKER || sched_getaffinity(0, sizeof(cpus), &cpus) < 0)
		return 0;
	return min(CPU_COUNT(&cpus), MOST_WORKERS) - 1;
}

static void sort_out(const struct comparison *comparison, const struct page_runs *own,
		     struct page_runs *changed, struct page_runs *unchanged)
{
	uint64_t number = 0;

	for (size_t i = 0; i < own->count; i++)
		for (uint64_t page = 0; page < own->items[i].count; page++, number++) {
			uint64_t start = own->items[i].start + page * PAGE_SIZE;

			page_runs_add_range(comparison->is_equal[number] ? unchanged : changed, start,
					    start + PAGE_SIZE);
		}
}

int content_compare(const struct content *content, const struct page_runs *own, page_source *source,
		    void *from, struct page_runs *changed, struct page_runs *unchanged)
{
	struct comparison comparison = { .content = content, .source = source, .from = from };
	uint64_t pages = page_runs_total(own);
	int result;

	comparison.is_equal = allocate_array(pages, sizeof(*comparison.is_equal));
	cut_into_pieces(&comparison, own);
	threads_run(helpers_for(pages), compare_pieces, &comparison);
	result = atomic_load(&comparison.error);
	if (!result)
		sort_out(&comparison, own, changed, unchanged);
	free(comparison.pieces);
	free(comparison.is_equal);
	return result;
}
