/*
 * stack_test.c - which layer of a chain has which page: the drawing of stack.h, pages that a layer leaves to a parent
 * but no layer has, and many random chains, compared with a model that has one number for each page.
 */
#include "unit.h"
#include "chains.h"
#include <pthread.h>
#include <sys/resource.h>

static void assert_run(const struct page_runs *runs, size_t index, uint64_t page, uint64_t count,
		       uint32_t layer)
{
	assert_true(index < runs->count);
	assert_int_equal(runs->items[index].start, PAGES(page));
	assert_int_equal(runs->items[index].count, count);
	assert_int_equal(runs->items[index].layer, layer);
}

static void the_drawing(void **state unused)
{
	struct opened opened;

	layer(1, false, { 3, 3, HERE }, { 0x0b, 6, HERE }, { 0x18, 4, HERE });
	layer(0, true, { 3, 2, PARENT }, { 5, 1, HERE }, { 0x0b, 4, PARENT }, { 0x0f, 3, HERE },
	      { 0x17, 2, HERE }, { 0x19, 3, PARENT });
	opened = open_stack(0);
	assert_int_equal(opened.stack.runs.count, 6);
	assert_run(&opened.stack.runs, 0, 0x03, 2, 1);
	assert_run(&opened.stack.runs, 1, 0x05, 1, 0);
	assert_run(&opened.stack.runs, 2, 0x0b, 4, 1);
	assert_run(&opened.stack.runs, 3, 0x0f, 3, 0);
	assert_run(&opened.stack.runs, 4, 0x17, 2, 0);
	assert_run(&opened.stack.runs, 5, 0x19, 3, 1);
	assert_int_equal(page_stack_layer(&opened.stack, 0).count, 3);
	assert_int_equal(page_stack_layer(&opened.stack, 1).count, 3);
	assert_int_equal(page_stack_layer(&opened.stack, 2).count, 0);
	assert_pages(&opened.stack, &opened.stack.runs);
	assert_pages(&opened.stack, &opened.stack.by_layer);
	close_stack(&opened);
	opened = open_stack(1); /* the first snapshot by itself */
	assert_int_equal(opened.stack.runs.count, 3);
	assert_run(&opened.stack.runs, 0, 0x03, 3, 0);
	assert_run(&opened.stack.runs, 1, 0x0b, 6, 0);
	assert_run(&opened.stack.runs, 2, 0x18, 4, 0);
	close_stack(&opened);
}

static void flags(void **state unused)
{
	struct opened opened;

	layer(1, false, { 3, 2, HERE | PAGES_LAZY }, { 5, 2, HERE });
	layer(0, true, { 3, 4, PARENT });
	opened = open_stack(0);
	assert_int_equal(opened.stack.runs.count, 2);
	assert_int_equal(opened.stack.runs.items[0].flags, PAGES_LAZY);
	assert_int_equal(opened.stack.runs.items[1].flags, 0);
	close_stack(&opened);
}

/* ---- errors ---- */

static void assert_refused(const char *words)
{
	struct image_store *store = layer_open(0, false);
	struct page_chain *chain;
	struct page_stack stack;

	assert_int_equal(page_chain_open(&chain, store), 0);
	assert_true(page_stack_open(&stack, chain, IMAGE_PAGEMAP, ID) < 0);
	assert_int_equal(stack.runs.count, 0);
	assert_failure_says(words);
	page_stack_close(&stack);
	page_chain_close(chain);
	image_store_close(store);
}

static void absent(void **state unused)
{
	layer(2, false, { 1, 100, HERE });
	layer(1, true, { 1, 10, PARENT }, { 20, 5, HERE });
	layer(0, true, { 1, 11, PARENT });
	assert_refused("/0/pagemap-4711.img leaves the page at 0xb000 to its parent");
	layer(0, true, { 19, 2, PARENT });
	assert_refused("leaves the page at 0x13000 to its parent");
	layer(0, true, { 22, 4, PARENT });
	assert_refused("leaves the page at 0x19000 to its parent");
	layer(2, false, { 2, 100, HERE });
	layer(0, true, { 1, 10, PARENT });
	assert_refused("/1/pagemap-4711.img leaves the page at 0x1000 to its parent");
}

static void no_parent(void **state unused)
{
	layer(1, false, { 1, 1, PARENT });
	layer(0, false, { 1, 1, HERE }, { 8, 1, PARENT });
	assert_refused("/0/pagemap-4711.img leaves the page at 0x8000 to a parent snapshot, and there is no");
	layer(0, true, { 1, 1, PARENT });
	assert_refused("/1/pagemap-4711.img leaves the page at 0x1000 to a parent snapshot");
}

static void too_many_pages(void **state unused)
{
	layer(1, false, { 1, 1, HERE });
	layer(0, true, { 1, 1ULL << 36, PARENT });
	assert_refused("/0/pagemap-4711.img lists more pages than an address space has");
	layer(0, true, { 1, 1ULL << 34, PARENT });
	assert_refused("leaves the page at 0x2000 to its parent");
}

static void remove_file(const char *name)
{
	autofree char *path = format_text("%s/%s", directory, name);

	assert_int_equal(unlink(path), 0);
}

static void missing_images(void **state unused)
{
	layer(1, false, { 1, 5, HERE });
	layer(0, true, { 1, 5, PARENT });
	remove_file("1/pages-2.img");
	assert_refused("/1/pages-2.img, which pagemap-4711.img refers to, is missing");
	remove_file("1/pagemap-4711.img");
	assert_refused("leaves the page at 0x1000 to its parent");
	layer(0, true, { 1, 5, HERE }); /* no page of the parent is needed */
	close_stack((struct opened[]){ open_stack(0) });
}

static void too_short(void **state unused)
{
	autofree char *path = format_text("%s/1/pages-2.img", directory);

	layer(1, false, { 1, 5, HERE });
	layer(0, true, { 1, 1, PARENT });
	assert_int_equal(truncate(path, PAGES(5) - 1), 0);
	assert_refused("/1/pages-2.img is too short: it has 20479 bytes");
}

static void no_such_task(void **state unused)
{
	struct image_store *store;
	struct page_chain *chain;
	struct page_stack stack;

	layer(0, false, { 1, 1, HERE });
	store = layer_open(0, false);
	assert_int_equal(page_chain_open(&chain, store), 0);
	assert_int_equal(page_stack_open(&stack, chain, IMAGE_PAGEMAP, ID + 1), -ENOENT);
	assert_false(has_failed());
	page_stack_close(&stack);
	page_chain_close(chain);
	image_store_close(store);
}

/* ---- random chains ---- */

static void by_chance(void **state unused)
{
	for (unsigned seed = 1; seed <= 60; seed++) {
		unsigned layers = 1 + seed % 20, pages = 1 + seed * 31 % MOST_PAGES;
		int owner[MOST_PAGES];
		struct opened opened;

		make_chain_by_chance(seed, layers, pages, owner);
		opened = open_stack(0);
		assert_model(&opened.stack, owner, pages);
		assert_pages(&opened.stack, &opened.stack.runs);
		close_stack(&opened);
		assert_int_equal(clean(NULL) ?: prepare(NULL), 0);
	}
}

/* ---- reading ---- */

static void several_places(void **state unused)
{
	static char pages[3][PAGE_SIZE], expected[PAGE_SIZE];
	struct iovec places[] = { { pages[2], PAGE_SIZE }, { pages[0], PAGE_SIZE }, { pages[1], PAGE_SIZE } };
	struct opened opened;

	layer(0, false, { 8, 3, HERE });
	opened = open_stack(0);
	assert_int_equal(page_stack_read_into(&opened.stack, 0, places, 3, 0), 0);
	fill_page(expected, 0, 8);
	assert_memory_equal(pages[2], expected, PAGE_SIZE);
	fill_page(expected, 0, 10);
	assert_memory_equal(pages[1], expected, PAGE_SIZE);
	assert_true(page_stack_read(&opened.stack, 0, pages, 1, PAGES(3)) < 0);
	failure_clear();
	close_stack(&opened);
}

static void a_range(void **state unused)
{
	enum { FIRST = 4, COUNT = 8 };
	static const int owners[COUNT] = { 1, 0, NOBODY, NOBODY, 0, 0, 1, 1 };
	static char pages[COUNT][PAGE_SIZE], expected[PAGE_SIZE];
	struct opened opened;

	layer(1, false, { 3, 2, HERE }, { 10, 5, HERE });
	layer(0, true, { 3, 2, PARENT }, { 5, 1, HERE }, { 8, 2, HERE }, { 10, 4, PARENT });
	opened = open_stack(0);
	memset(pages, 'x', sizeof(pages));
	assert_int_equal(page_stack_read_range(&opened.stack, PAGES(FIRST), COUNT, pages), 0);
	for (int i = 0; i < COUNT; i++) {
		memset(expected, 0, PAGE_SIZE);
		if (owners[i] != NOBODY)
			fill_page(expected, owners[i], FIRST + i);
		assert_memory_equal(pages[i], expected, PAGE_SIZE);
	}
	close_stack(&opened);
}

static void *read_all_pages(void *argument)
{
	const struct page_stack *stack = argument;
	char page[PAGE_SIZE], expected[PAGE_SIZE];
	intptr_t wrong = 0;

	for (int round = 0; round < 20; round++)
		for (size_t i = 0; i < stack->runs.count; i++) {
			const struct page_run *run = &stack->runs.items[i];

			fill_page(expected, run->layer, run->start / PAGE_SIZE);
			wrong += page_stack_read(stack, run->layer, page, 1, run->offset) ||
				 memcmp(page, expected, PAGE_SIZE);
		}
	return (void *)wrong;
}

static int open_descriptors(void)
{
	int count = 0;

	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* More layers than stay open, read by several threads, with each page in another layer. */
static void many_layers(void **state unused)
{
	enum { LAYERS = 60, READERS = 30, MOST_OPEN = 24 };
	pthread_t readers[READERS];
	struct rlimit old, small;
	struct opened opened;
	int before, after;

	for (unsigned number = LAYERS; number--;) {
		struct entry entries[] = { { 1 + number, 1, HERE },
					   { 2 + number, LAYERS - number - 1, PARENT } };

		make_layer(number, number + 1 < LAYERS, entries, number + 1 < LAYERS ? 2 : 1);
	}
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	small = (struct rlimit){ 8 * MOST_OPEN, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
	opened = open_stack(0);
	assert_true(page_chain_keeps_open(opened.chain, MOST_OPEN));
	assert_false(page_chain_keeps_open(opened.chain, MOST_OPEN + 1));
	assert_int_equal(opened.stack.runs.count, LAYERS);
	before = open_descriptors();
	for (int i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, read_all_pages, &opened.stack), 0);
	for (int i = 0; i < READERS; i++) {
		void *wrong;

		pthread_join(readers[i], &wrong);
		assert_null(wrong);
	}
	after = open_descriptors();
	assert_true(after > before && after <= before + MOST_OPEN);
	page_chain_rest(opened.chain);
	assert_int_equal(open_descriptors(), before);
	close_stack(&opened);
	setrlimit(RLIMIT_NOFILE, &old);
}

int main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, prepare, clean)
	const struct CMUnitTest tests[] = {
		test(the_drawing),    test(flags),	    test(absent),      test(no_parent),
		test(too_many_pages), test(missing_images), test(too_short),   test(no_such_task),
		test(by_chance),      test(several_places), test(many_layers), test(a_range),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
