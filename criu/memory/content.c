/*
 * content.c - compares memory with what the parent snapshot has, by hashes. See content.h.
 *
 * The work is cut into pieces: pages that lie one behind the other. Threads take one piece after the other: read it, hash it, compare
 * the parent's hashes (or bytes), note which pages are equal.
 */
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/memory.h"
#include "base/thread.h"
#include "memory/content.h"

#define WINDOW_PAGES   4096 /* whose hashes are read together: 64 KiB */
#define PIECE_PAGES    64   /* 256 KiB: stays in the CPU's cache between reading and hashing */
#define MOST_WORKERS   4
#define WORTH_A_WORKER 1024 /* pages */

struct piece {
	uint64_t start, count;
	uint64_t first; /* its number among the own pages */
};

struct comparison {
	const struct content *content;
	page_source *source;
	void *from;
	struct piece *pieces;
	size_t piece_count;
	bool *is_equal; /* one an own page */
	atomic_size_t next;
	atomic_int error; /* -errno */
};

/* ---- the parent's hashes ---- */

/* Small runs, one behind the other, are many: their hashes are read together. */
struct hash_window {
	struct page_hash hashes[WINDOW_PAGES];
	uint64_t page, count; /* in the image */
};

static int copy_hashes(const struct page_hashes *from, struct hash_window *window, uint64_t page,
		       uint64_t count, struct page_hash *to)
{
	int result = 0;

	if (count >= WINDOW_PAGES)
		return page_hashes_read(from, page, count, to);
	if (page < window->page || page + count > window->page + window->count) {
		window->page = page;
		window->count = page < from->count ? min(from->count - page, (uint64_t)WINDOW_PAGES) : 0;
		result = count > window->count ? -EINVAL :
						 page_hashes_read(from, page, window->count, window->hashes);
	}
	if (!result)
		memcpy(to, window->hashes + (page - window->page), count * sizeof(*to));
	return result;
}

/* `places`: of each run, by layer, where its hashes belong. */
static int read_layer(struct content *content, size_t layer, const uint64_t *places)
{
	struct page_stack *stack = &content->stack;
	struct page_runs runs = page_stack_layer(stack, layer);
	autofree struct hash_window *window = allocate(sizeof(*window));
	struct page_hashes hashes = { 0 };
	int result = page_hashes_open(&hashes, page_chain_store(stack->chain, layer),
				      stack->layers[layer].pages_id, content->seed,
				      page_chain_snapshot(stack->chain, layer));

	if (result)
		return result == -ENOENT ? 0 : result;
	for (size_t i = 0; !result && i < runs.count; i++)
		result = copy_hashes(&hashes, window, runs.items[i].offset / PAGE_SIZE, runs.items[i].count,
				     content->hashes + places[stack->layers[layer].first + i]);
	content->is_hashed[layer] = !result;
	page_hashes_close(&hashes);
	return 0;
}

/* By address, and by layer: in each layer the order is the same. */
static uint64_t *number_pages(struct content *content)
{
	const struct page_stack *stack = &content->stack;
	uint64_t *places = allocate_array(stack->runs.count, sizeof(*places)), pages = 0;
	autofree size_t *next = allocate_array(stack->layer_count, sizeof(*next));

	for (size_t i = 0; i < stack->layer_count; i++)
		next[i] = stack->layers[i].first;
	content->first = allocate_array(stack->runs.count, sizeof(*content->first));
	for (size_t i = 0; i < stack->runs.count; i++) {
		content->first[i] = places[next[stack->runs.items[i].layer]++] = pages;
		pages += stack->runs.items[i].count;
	}
	content->hashes = allocate_array(pages, sizeof(*content->hashes));
	return places;
}

int content_open(struct content *content, struct page_chain *chain, enum image_kind kind, unsigned long id,
		 uint64_t seed)
{
	int result = page_stack_open(&content->stack, chain, kind, id);
	autofree uint64_t *places = NULL;

	if (result)
		return result;
	content->seed = seed;
	content->is_hashed = allocate_array(content->stack.layer_count, sizeof(*content->is_hashed));
	places = number_pages(content);
	for (size_t i = 0; !result && i < content->stack.layer_count; i++)
		if (page_stack_layer(&content->stack, i).count)
			result = read_layer(content, i, places);
	return result;
}

void content_close(struct content *content)
{
	free(content->hashes);
	free(content->first);
	free(content->is_hashed);
	page_stack_close(&content->stack);
	*content = (struct content){ 0 };
}

/* ---- the pieces ---- */

static void cut(struct comparison *comparison, const struct page_runs *own)
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

/* Pages of a piece that the parent has in one place. */
struct part {
	const char *pages;
	uint64_t count, first;
	const struct page_hash *hashes;
	uint32_t layer;
	uint64_t offset; /* in the pages image, bytes */
};

static void compare_hashes(struct comparison *comparison, const struct part *part)
{
	for (uint64_t i = 0; i < part->count; i++) {
		struct page_hash ours = page_hash(part->pages + i * PAGE_SIZE, comparison->content->seed);

		comparison->is_equal[part->first + i] = !memcmp(&ours, &part->hashes[i], sizeof(ours));
	}
}

static int compare_bytes(struct comparison *comparison, const struct part *part, char *buffer)
{
	int result = page_stack_read(&comparison->content->stack, part->layer, buffer, part->count,
				     part->offset);

	for (uint64_t i = 0; !result && i < part->count; i++)
		comparison->is_equal[part->first + i] = !memcmp(part->pages + i * PAGE_SIZE,
								buffer + i * PAGE_SIZE, PAGE_SIZE);
	return result;
}

/* Pages that the parent does not have are in no part: they have changed. Nor are those that have vanished meanwhile. */
static int compare_piece(struct comparison *comparison, const struct piece *piece, char *pages, char *buffer)
{
	const struct content *content = comparison->content;
	const struct page_runs *theirs = &content->stack.runs;
	struct page_run run = { .start = piece->start, .count = piece->count };
	int result = comparison->source(comparison->from, &run, 1, pages);
	uint64_t end = page_run_end(&run);

	for (size_t i = page_runs_find(theirs, run.start);
	     !result && i < theirs->count && theirs->items[i].start < end; i++) {
		const struct page_run *found = &theirs->items[i];
		uint64_t from = max(found->start, run.start), to = min(page_run_end(found), end);
		struct part part = {
			.pages = pages + (from - run.start),
			.count = (to - from) / PAGE_SIZE,
			.first = piece->first + (from - run.start) / PAGE_SIZE,
			.hashes = content->hashes + content->first[i] + (from - found->start) / PAGE_SIZE,
			.layer = found->layer,
			.offset = found->offset + (from - found->start),
		};

		if (content->is_hashed[part.layer])
			compare_hashes(comparison, &part);
		else if (part.count)
			result = compare_bytes(comparison, &part, buffer);
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

/* We work, too. */
static int share_work(struct comparison *comparison, uint64_t pages)
{
	pthread_t helpers[MOST_WORKERS];
	size_t wanted = helpers_for(pages), started = 0;

	while (started < wanted && !thread_start(&helpers[started], compare_pieces, comparison))
		started++;
	compare_pieces(comparison);
	for (size_t i = 0; i < started; i++)
		pthread_join(helpers[i], NULL);
	return atomic_load(&comparison->error);
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
	cut(&comparison, own);
	result = share_work(&comparison, pages);
	if (!result)
		sort_out(&comparison, own, changed, unchanged);
	free(comparison.pieces);
	free(comparison.is_equal);
	return result;
}
