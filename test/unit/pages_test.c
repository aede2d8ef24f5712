/*
 * pages_test.c - writes pages into images of a store in memory, and into a sink of the test: the content is right,
 * zeros are left out only on request, a sink gets all pages in order, and learns of an error once.
 */
#include "unit.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "image/message.h"
#include "memory/page_files.h"
#include "memory/stack.h"
#include "pagemap.pb-c.h"

#define PAGES(number) ((uint64_t)(number)*PAGE_SIZE)
#define ID	      4711
#define PAGES_ID      7

static int start_clean(void **state unused)
{
	failure_clear();
	log_level = 0;
	return 0;
}

static struct image_store *new_store(void)
{
	struct image_store *store;

	assert_int_equal(image_store_open_memory(&store), 0);
	return store;
}

/* Memory in which every page contains its number, except empty pages. */
struct memory {
	bool (*is_zero)(uint64_t page);
	int fails;
	uint64_t asked; /* pages */
};

static void fill_page(const struct memory *memory, uint64_t page, char *bytes)
{
	memset(bytes, 0, PAGE_SIZE);
	if (!memory->is_zero(page))
		memcpy(bytes + PAGE_SIZE - sizeof(page), &page, sizeof(page));
}

static int from_memory(void *from, struct page_run *runs, size_t count, char *buffer)
{
	struct memory *memory = from;

	if (memory->fails)
		return fail(memory->fails, "no such memory");
	for (size_t i = 0; i < count; i++)
		for (uint64_t page = 0; page < runs[i].count; page++, buffer += PAGE_SIZE, memory->asked++)
			fill_page(memory, runs[i].start / PAGE_SIZE + page, buffer);
	return 0;
}

static bool never(uint64_t page unused)
{
	return false;
}

static bool always(uint64_t page unused)
{
	return true;
}

/* 3 and 4 of each ten, and pages at multiples of ten */
static bool sometimes(uint64_t page)
{
	return page % 10 == 3 || page % 10 == 4 || page % 100 == 0 || page % 100 == 99;
}

static struct page_statistics write_pages(struct image_store *store, struct memory *memory,
					  const struct page_runs *runs, unsigned flags, bool skips_zeros,
					  int expected)
{
	struct page_statistics statistics = { 0 };
	struct page_writer *writer;

	assert_int_equal(page_files_write(&writer,
					  &(struct page_files){ .store = store,
								.kind = IMAGE_PAGEMAP,
								.id = ID,
								.pages_id = PAGES_ID },
					  &statistics),
			 0);
	assert_int_equal(page_writer_add(writer, runs, flags, skips_zeros, from_memory, memory), expected);
	assert_int_equal(page_writer_close(writer, 0), 0);
	return statistics;
}

/* The image has exactly the right pages of the runs, in as few entries as possible. */
static void assert_pagemap(struct image_store *store, const struct memory *memory,
			   const struct page_runs *runs, unsigned flags, bool skips_zeros)
{
	struct page_runs expected = { 0 };
	struct image *image;
	PagemapHead *head;
	PagemapEntry *entry;
	size_t index = 0;

	for (size_t i = 0; i < runs->count; i++)
		for (uint64_t page = 0, number; page < runs->items[i].count; page++) {
			number = runs->items[i].start / PAGE_SIZE + page;
			if (!skips_zeros || !memory->is_zero(number))
				page_runs_add(&expected, &(struct page_run){
								 .start = PAGES(number),
								 .count = 1,
								 .offset = PAGES(page_runs_total(&expected)),
							 });
		}
	assert_int_equal(image_open(store, &image, IMAGE_PAGEMAP, ID), 0);
	assert_int_equal(image_read_as(image, pagemap_head, &head), 1);
	assert_int_equal(head->pages_id, PAGES_ID);
	image_free(head);
	while (image_read_as(image, pagemap_entry, &entry) == 1) {
		assert_true(index < expected.count);
		assert_int_equal(entry->vaddr, expected.items[index].start);
		assert_true(entry->has_nr_pages);
		assert_int_equal(entry->nr_pages, expected.items[index].count);
		assert_int_equal(entry->compat_nr_pages, expected.items[index].count);
		assert_int_equal(entry->flags, flags);
		image_free(entry);
		index++;
	}
	assert_int_equal(index, expected.count);
	image_close_read(image);
	page_runs_free(&expected);
}

/* Every page in the images has the content of the memory. */
static void assert_bytes(struct image_store *store, const struct memory *memory, uint64_t pages)
{
	autofree char *bytes = allocate(PAGE_SIZE), *expected = allocate(PAGE_SIZE);
	struct page_chain *chain;
	struct page_stack stack;

	assert_int_equal(page_chain_open(&chain, store), 0);
	assert_int_equal(page_stack_open(&stack, chain, IMAGE_PAGEMAP, ID), 0);
	assert_int_equal(page_runs_total(&stack.runs), pages);
	for (size_t i = 0; i < stack.runs.count; i++)
		for (uint64_t page = 0; page < stack.runs.items[i].count; page++) {
			const struct page_run *run = &stack.runs.items[i];

			assert_int_equal(page_stack_read(&stack, 0, bytes, 1, run->offset + PAGES(page)), 0);
			fill_page(memory, run->start / PAGE_SIZE + page, expected);
			assert_memory_equal(bytes, expected, PAGE_SIZE);
		}
	if (pages)
		assert_true(page_stack_read(&stack, 0, bytes, 1, PAGES(pages)) < 0);
	failure_clear();
	page_stack_close(&stack);
	page_chain_close(chain);
}

static void add_run(struct page_runs *runs, uint64_t page, uint64_t count)
{
	*grow(&runs->items, &runs->count) = (struct page_run){ .start = PAGES(page), .count = count };
}

static void round_trip(struct memory memory, const struct page_runs *runs, bool skips_zeros)
{
	struct image_store *store = new_store();
	struct page_statistics statistics = write_pages(store, &memory, runs, PAGES_PRESENT | PAGES_LAZY,
							skips_zeros, 0);

	assert_int_equal(statistics.scanned, page_runs_total(runs));
	assert_int_equal(memory.asked, statistics.scanned);
	assert_int_equal(statistics.written + statistics.zeros, statistics.scanned);
	assert_int_equal(statistics.read.bytes, PAGES(statistics.scanned));
	assert_int_equal(statistics.streams.cached.bytes, PAGES(statistics.written));
	if (!skips_zeros)
		assert_int_equal(statistics.zeros, 0);
	assert_pagemap(store, &memory, runs, PAGES_PRESENT | PAGES_LAZY, skips_zeros);
	assert_bytes(store, &memory, statistics.written);
	image_store_close(store);
}

static void written(void **state unused)
{
	struct page_runs runs = { 0 };

	round_trip((struct memory){ .is_zero = never }, &runs, true);
	add_run(&runs, 16, 1);
	add_run(&runs, 100, 250);
	add_run(&runs, 350, 3); /* adjacent: joined with the entry before */
	add_run(&runs, 0x7fffffff0, 15);
	round_trip((struct memory){ .is_zero = never }, &runs, false);
	round_trip((struct memory){ .is_zero = never }, &runs, true);
	page_runs_free(&runs);
}

static void zeros(void **state unused)
{
	struct page_runs runs = { 0 };

	add_run(&runs, 16, 1);
	add_run(&runs, 99, 302);
	add_run(&runs, 403, 1);
	round_trip((struct memory){ .is_zero = sometimes }, &runs, true);
	round_trip((struct memory){ .is_zero = sometimes }, &runs, false);
	round_trip((struct memory){ .is_zero = always }, &runs, true);
	round_trip((struct memory){ .is_zero = always }, &runs, false);
	page_runs_free(&runs);
}

/* More pages than a buffer holds, in one run, and in more runs than one call of the source accepts. */
static void borders(void **state unused)
{
	struct page_runs one = { 0 }, many = { 0 };

	add_run(&one, 16, 5000);
	round_trip((struct memory){ .is_zero = never }, &one, true);
	round_trip((struct memory){ .is_zero = sometimes }, &one, true);
	for (uint64_t i = 0; i < 2500; i++)
		add_run(&many, 16 + 3 * i, 1 + i % 2);
	round_trip((struct memory){ .is_zero = never }, &many, true);
	round_trip((struct memory){ .is_zero = sometimes }, &many, true);
	page_runs_free(&one);
	page_runs_free(&many);
}

static void source_fails(void **state unused)
{
	struct memory memory = { .is_zero = never, .fails = EFAULT };
	struct image_store *store = new_store();
	struct page_runs runs = { 0 };

	add_run(&runs, 1, 1);
	write_pages(store, &memory, &runs, PAGES_PRESENT, true, -EFAULT);
	assert_int_equal(failure_errno(), EFAULT);
	page_runs_free(&runs);
	image_store_close(store);
}

/* ---- a sink of the test ---- */

/* Stores everything in memory, in buffers of `room` pages, and fails at a given call. */
struct memory_sink {
	struct page_sink base;
	uint64_t room;
	int fails_at_buffer, fails_at_add,
		fails_at_advance; /* the call that fails, counted from 1; 0: none */
	struct record *record;
};

/* What the sink has got; it outlives the sink. */
struct record {
	struct page_runs present, parents; /* as the sink got them; `offset` is that of the bytes */
	char *bytes;
	size_t size, added; /* bytes so far; pages that were added in this round */
	unsigned buffers, adds, advances, closes;
	int closed_with;
	bool is_in_round;
};

static char *memory_buffer(struct page_sink *base, size_t *room)
{
	struct memory_sink *sink = (struct memory_sink *)base;
	struct record *record = sink->record;

	assert_false(record->is_in_round);
	if (++record->buffers == (unsigned)sink->fails_at_buffer) {
		fail(EIO, "the sink is full");
		return NULL;
	}
	record->is_in_round = true;
	record->added = 0;
	record->bytes = reallocate_array(record->bytes, record->size + PAGES(sink->room), 1);
	*room = PAGES(sink->room);
	return record->bytes + record->size;
}

static int memory_add(struct page_sink *base, uint64_t start, uint64_t count, unsigned flags)
{
	struct memory_sink *sink = (struct memory_sink *)base;
	struct record *record = sink->record;
	bool is_parents = flags & PAGES_IN_PARENT;
	struct page_run run = { .start = start,
				.count = count,
				.offset = record->size + PAGES(record->added) };

	assert_true(record->is_in_round);
	if (++record->adds == (unsigned)sink->fails_at_add)
		return fail(ENOSPC, "the sink takes no more");
	page_runs_add(is_parents ? &record->parents : &record->present, &run);
	record->added += is_parents ? 0 : count;
	return 0;
}

static int memory_advance(struct page_sink *base, size_t size)
{
	struct memory_sink *sink = (struct memory_sink *)base;
	struct record *record = sink->record;

	assert_true(record->is_in_round);
	assert_int_equal(size, PAGES(record->added));
	assert_true(size <= PAGES(sink->room));
	record->is_in_round = false;
	if (++record->advances == (unsigned)sink->fails_at_advance)
		return fail(EPIPE, "the sink is gone");
	record->size += size;
	return 0;
}

static int memory_close(struct page_sink *base, int result)
{
	struct memory_sink *sink = (struct memory_sink *)base;

	sink->record->closes++;
	sink->record->closed_with = result;
	free(sink);
	return result;
}

static const struct page_sink_ops memory_sink_ops = { memory_buffer, memory_add, memory_advance,
						      memory_close };

/* Writes the runs, and returns the result of closing the writer. */
static int write_into(struct memory_sink settings, struct memory *memory, const struct page_runs *runs,
		      bool skips_zeros, struct page_statistics *statistics)
{
	struct memory_sink *sink = allocate(sizeof(*sink));
	struct page_writer *writer;
	int result;

	*sink = settings;
	sink->base.ops = &memory_sink_ops;
	writer = page_writer_open(&sink->base, NULL, statistics);
	result = page_writer_add(writer, runs, PAGES_PRESENT, skips_zeros, from_memory, memory);
	assert_int_equal(page_writer_close(writer, result), result);
	assert_int_equal(settings.record->closes, 1);
	assert_int_equal(settings.record->closed_with, result);
	return result;
}

static void free_record(struct record *record)
{
	page_runs_free(&record->present);
	page_runs_free(&record->parents);
	free(record->bytes);
	*record = (struct record){ 0 };
}

static void assert_record(const struct record *record, const struct memory *memory)
{
	autofree char *expected = allocate(PAGE_SIZE);

	for (size_t i = 0; i < record->present.count; i++)
		for (uint64_t page = 0; page < record->present.items[i].count; page++) {
			const struct page_run *run = &record->present.items[i];

			fill_page(memory, run->start / PAGE_SIZE + page, expected);
			assert_memory_equal(record->bytes + run->offset + PAGES(page), expected, PAGE_SIZE);
		}
}

/* Every page is written once, for any size of the sink's buffers. Pages of the parent have no bytes. */
static void into_a_sink(void **state unused)
{
	struct page_runs runs = { 0 };

	add_run(&runs, 16, 1);
	add_run(&runs, 100, 250);
	add_run(&runs, 350, 70);
	runs.items[2].layer = 1;
	add_run(&runs, 420, 5);
	for (uint64_t room = 1; room <= 256; room *= 4)
		for (int skips_zeros = 0; skips_zeros < 2; skips_zeros++) {
			struct memory memory = { .is_zero = sometimes };
			struct page_statistics statistics = { 0 };
			struct record record = { 0 };

			assert_int_equal(write_into((struct memory_sink){ .room = room, .record = &record },
						    &memory, &runs, skips_zeros, &statistics),
					 0);
			assert_int_equal(page_runs_total(&record.parents), 70);
			assert_int_equal(record.parents.items[0].start, PAGES(350));
			assert_int_equal(page_runs_total(&record.present), statistics.written);
			assert_int_equal(record.size, PAGES(statistics.written));
			assert_int_equal(statistics.written + statistics.zeros, 256);
			assert_int_equal(statistics.unchanged, 70);
			assert_int_equal(statistics.zeros > 0, skips_zeros);
			assert_record(&record, &memory);
			free_record(&record);
		}
	page_runs_free(&runs);
}

/* After a sink has failed, only its close() is called. */
static void sink_fails(void **state unused)
{
	const struct {
		struct memory_sink sink;
		int error;
		unsigned buffers, adds, advances; /* calls */
	} cases[] = {
		{ { .fails_at_buffer = 1 }, EIO, 1, 0, 0 },    { { .fails_at_buffer = 3 }, EIO, 3, 2, 2 },
		{ { .fails_at_add = 1 }, ENOSPC, 1, 1, 0 },    { { .fails_at_add = 3 }, ENOSPC, 3, 3, 2 },
		{ { .fails_at_advance = 1 }, EPIPE, 1, 1, 1 }, { { .fails_at_advance = 2 }, EPIPE, 2, 2, 2 },
	};
	struct page_runs runs = { 0 };

	add_run(&runs, 16, 100);
	for (size_t i = 0; i < array_size(cases); i++) {
		struct memory memory = { .is_zero = never };
		struct page_statistics statistics = { 0 };
		struct record record = { 0 };
		struct memory_sink sink = cases[i].sink;

		failure_clear();
		sink.room = 8;
		sink.record = &record;
		assert_int_equal(write_into(sink, &memory, &runs, true, &statistics), -cases[i].error);
		assert_int_equal(failure_errno(), cases[i].error);
		assert_int_equal(record.buffers, cases[i].buffers);
		assert_int_equal(record.adds, cases[i].adds);
		assert_int_equal(record.advances, cases[i].advances);
		free_record(&record);
	}
	page_runs_free(&runs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(into_a_sink, start_clean),
		cmocka_unit_test_setup(sink_fails, start_clean),
		cmocka_unit_test_setup(written, start_clean),
		cmocka_unit_test_setup(zeros, start_clean),
		cmocka_unit_test_setup(borders, start_clean),
		cmocka_unit_test_setup(source_fails, start_clean),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
