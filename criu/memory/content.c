/*
 * content.c - compares memory with what the parent snapshot has, by hashes. See content.h.
 *
 * The work is cut into pieces: pages that lie one behind the other. Threads take one piece after the other: read it, hash it, read the
 * parent's hashes (or bytes), wherever in its chain they are, note which pages are equal.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/memory.h"
#include "memory/content.h"

#define PIECE_PAGES    64 /* 256 KiB: stays in the CPU's cache between reading and hashing */
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

int content_open(struct content *content, struct page_chain *chain, enum image_kind kind, unsigned long id,
		 uint64_t seed)
{
	int result = page_stack_open(&content->stack, chain, kind, id);

	if (result)
		return result;
	content->seed = seed;
	content->hashes = allocate_array(content->stack.layer_count, sizeof(*content->hashes));
	for (size_t i = 0; i < content->stack.layer_count; i++) {
		result = page_hashes_open(&content->hashes[i], page_chain_store(chain, i),
					  content->stack.layers[i].pages_id, seed,
					  page_chain_snapshot(chain, i));
		if (result && result != -ENOENT)
			return result;
	}
	return 0;
}

void content_close(struct content *content)
{
	for (size_t i = 0; content->hashes && i < content->stack.layer_count; i++)
		page_hashes_close(&content->hashes[i]);
	free(content->hashes);
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
	uint32_t layer;
	uint64_t offset; /* in the pages image, bytes */
};

static bool compare_hashes(struct comparison *comparison, const struct part *part)
{
	const struct content *content = comparison->content;
	struct page_hash theirs[PIECE_PAGES];

	if (page_hashes_read(&content->hashes[part->layer], part->offset / PAGE_SIZE, part->count, theirs))
		return false;
	for (uint64_t i = 0; i < part->count; i++) {
		struct page_hash ours = page_hash(part->pages + i * PAGE_SIZE, content->seed);

		comparison->is_equal[part->first + i] = !memcmp(&ours, &theirs[i], sizeof(ours));
	}
	return true;
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
	const struct page_runs *theirs = &comparison->content->stack.runs;
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
			.layer = found->layer,
			.offset = found->offset + (from - found->start),
		};

		if (part.count && !compare_hashes(comparison, &part))
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

/* We work, too. Signals are for the thread that drives the dump. */
static int share_work(struct comparison *comparison, uint64_t pages)
{
	pthread_t helpers[MOST_WORKERS];
	size_t wanted = helpers_for(pages), started = 0;
	sigset_t all, old;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (started < wanted && !pthread_create(&helpers[started], NULL, compare_pieces, comparison))
		started++;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
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
