/*
 * content_test.c - compares memory with a chain: the result is right for each page, whether the layers have hashes,
 * none, those of another snapshot, or too few.
 */
#include "unit.h"
#include "chains.h"
#include "memory/content.h"

#define SEED  0x5eed
#define LARGE 3000 /* pages: enough for several threads */

enum beside { HASHES, NOTHING, OF_ANOTHER_SNAPSHOT, WITH_ANOTHER_SEED, TOO_FEW, KINDS };

/* The memory of the task. */
enum own { ABSENT, EQUAL, DIFFERENT, VANISHING };
struct memory {
	int owner[LARGE + 1]; /* a layer of the chain, or NOBODY */
	enum own own[LARGE + 1];
	size_t pages;
};

static void put_beside(unsigned number, enum beside beside)
{
	struct image_store *store = layer_open(number, true);
	struct pagemap pagemap = { 0 };
	struct hash_writer *writer;
	char page[PAGE_SIZE];

	assert_int_equal(pagemap_read(&pagemap, store, IMAGE_PAGEMAP, ID), 0);
	assert_int_equal(hash_writer_open(&writer, store, pagemap.pages_id,
					  SEED + (beside == WITH_ANOTHER_SEED),
					  number + 1 + (beside == OF_ANOTHER_SNAPSHOT)),
			 0);
	for (size_t i = 0; i < pagemap.count - (beside == TOO_FEW && pagemap.count); i++)
		for (uint64_t p = 0; pagemap.entries[i].flags & HERE && p < pagemap.entries[i].count; p++) {
			fill_page(page, number, pagemap.entries[i].start / PAGE_SIZE + p);
			assert_int_equal(hash_writer_add(writer, page, 1), 0);
		}
	assert_int_equal(hash_writer_close(writer, 0), 0);
	pagemap_free(&pagemap);
	image_store_close(store);
}

/* A page_source: the task's memory. Some pages have vanished when they are read. */
static int read_own(void *from, struct page_run *runs, size_t count, char *buffer)
{
	const struct memory *memory = from;

	for (size_t i = 0; i < count; i++) {
		uint64_t first = runs[i].start / PAGE_SIZE, all = runs[i].count;

		for (uint64_t p = 0; p < all; p++, buffer += PAGE_SIZE) {
			if (memory->own[first + p] == VANISHING && runs[i].count == all)
				runs[i].count = p;
			fill_page(buffer, max(memory->owner[first + p], 0), first + p);
			if (memory->own[first + p] == DIFFERENT)
				buffer[PAGE_SIZE - 1]++;
		}
	}
	return 0;
}

static bool is_in(const struct page_runs *runs, size_t page)
{
	return page_runs_within(runs, PAGES(page), PAGES(page + 1)) != 0;
}

/* Pages that have vanished, and pages that were to be read together with them, count as changed. */
static void assert_compared(const struct memory *memory)
{
	struct page_runs own = { 0 }, changed = { 0 }, unchanged = { 0 };
	struct image_store *store = layer_open(0, false);
	struct content content = { 0 };
	struct page_chain *chain;
	bool vanishes = false;

	for (size_t page = 0; page < memory->pages; page++) {
		vanishes |= memory->own[page] == VANISHING;
		if (memory->own[page] != ABSENT)
			page_runs_add_range(&own, PAGES(page), PAGES(page + 1));
	}
	assert_int_equal(page_chain_open(&chain, store), 0);
	assert_int_equal(content_open(&content, chain, IMAGE_PAGEMAP, ID, SEED, NULL), 0);
	assert_int_equal(content_compare(&content, &own, read_own, (void *)memory, &changed, &unchanged), 0);
	for (size_t page = 0; page < memory->pages; page++) {
		bool is_own = memory->own[page] != ABSENT;
		bool is_equal = memory->own[page] == EQUAL && memory->owner[page] != NOBODY;

		assert_int_equal(is_in(&content.pages, page), memory->owner[page] != NOBODY);
		assert_int_equal(is_in(&changed, page) + is_in(&unchanged, page), is_own);
		assert_false(is_in(&unchanged, page) && !is_equal);
		assert_true(vanishes || is_in(&unchanged, page) == is_equal);
	}
	content_close(&content);
	page_chain_close(chain);
	image_store_close(store);
	page_runs_free(&own);
	page_runs_free(&changed);
	page_runs_free(&unchanged);
}

/* Compares only a part of the pages: the result for them is the same, and other pages are not mentioned. */
static void assert_part_compared(const struct memory *memory)
{
	size_t from = memory->pages / 3, end = max(2 * memory->pages / 3, from + 1);
	struct page_runs own = { 0 }, only = { 0 }, changed = { 0 }, unchanged = { 0 };
	struct image_store *store = layer_open(0, false);
	struct content content = { 0 };
	struct page_chain *chain;

	for (size_t page = 0; page < memory->pages; page++)
		if (memory->own[page] != ABSENT && memory->own[page] != VANISHING)
			page_runs_add_range(&own, PAGES(page), PAGES(page + 1));
	page_runs_add_range(&only, PAGES(from), PAGES(end));
	assert_int_equal(page_chain_open(&chain, store), 0);
	assert_int_equal(content_open(&content, chain, IMAGE_PAGEMAP, ID, SEED, &only), 0);
	assert_int_equal(content_compare(&content, &own, read_own, (void *)memory, &changed, &unchanged), 0);
	for (size_t page = 0; page < memory->pages; page++) {
		bool is_wanted = page >= from && page < end && memory->owner[page] != NOBODY;

		assert_int_equal(is_in(&content.pages, page), is_wanted);
		assert_int_equal(is_in(&unchanged, page), is_wanted && memory->own[page] == EQUAL);
	}
	content_close(&content);
	page_chain_close(chain);
	image_store_close(store);
	page_runs_free(&own);
	page_runs_free(&only);
	page_runs_free(&changed);
	page_runs_free(&unchanged);
}

static void by_chance(void **state unused)
{
	static struct memory memory;

	for (unsigned seed = 1; seed <= 60; seed++) {
		unsigned layers = 1 + seed % 12, pages = 1 + seed * 31 % MOST_PAGES;

		make_chain_by_chance(seed, layers, pages, memory.owner);
		for (unsigned number = 0; number < layers; number++) {
			enum beside beside = rand() % KINDS;

			if (beside != NOTHING)
				put_beside(number, beside);
		}
		memory.pages = pages;
		for (unsigned page = 0; page < pages; page++)
			memory.own[page] = seed % 6 || rand() % 8 ? rand() % VANISHING : VANISHING;
		assert_compared(&memory);
		assert_part_compared(&memory);
		assert_int_equal(clean(NULL) ?: prepare(NULL), 0);
	}
}

static void by_several_threads(void **state unused)
{
	static struct memory memory = { .pages = LARGE };

	layer(1, false, { 0, LARGE, HERE });
	layer(0, true, { 0, 1000, PARENT }, { 1000, 1000, HERE }, { 2000, 1000, PARENT });
	for (size_t page = 0; page < LARGE; page++) {
		memory.owner[page] = page / 1000 != 1;
		memory.own[page] = page % 7 ? EQUAL : DIFFERENT;
	}
	assert_compared(&memory);
	assert_part_compared(&memory);
	put_beside(1, HASHES);
	assert_compared(&memory);
	assert_part_compared(&memory);
	put_beside(0, HASHES);
	assert_compared(&memory);
	assert_part_compared(&memory);
}

/* If there are hashes, the comparison uses them, and does not read the images. */
static void hashes_suffice(void **state unused)
{
	static struct memory memory = { .pages = 20 };
	autofree char *pages = format_text("%s/0/pages-1.img", directory);
	autoclose int fd = -1;
	char page[PAGE_SIZE] = "something else";

	layer(0, false, { 0, 20, HERE });
	put_beside(0, HASHES);
	for (size_t i = 0; i < 20; i++)
		memory.own[i] = i % 3 ? EQUAL : DIFFERENT;
	fd = open(pages, O_WRONLY | O_CLOEXEC);
	for (size_t i = 0; i < 20; i++)
		assert_int_equal(pwrite(fd, page, sizeof(page), PAGES(i)), PAGE_SIZE);
	assert_compared(&memory);
	assert_part_compared(&memory);
}

static void no_such_task(void **state unused)
{
	struct image_store *store;
	struct page_chain *chain;
	struct content content = { 0 };

	layer(0, false, { 1, 1, HERE });
	store = layer_open(0, false);
	assert_int_equal(page_chain_open(&chain, store), 0);
	assert_int_equal(content_open(&content, chain, IMAGE_PAGEMAP, ID + 1, SEED, NULL), -ENOENT);
	assert_null(content.known);
	assert_false(has_failed());
	content_close(&content);
	page_chain_close(chain);
	image_store_close(store);
}

int main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, prepare, clean)
	const struct CMUnitTest tests[] = {
		test(by_chance),
		test(by_several_threads),
		test(hashes_suffice),
		test(no_such_task),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
