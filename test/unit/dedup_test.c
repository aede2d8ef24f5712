/*
 * dedup_test.c - frees pages in the parents of a chain: all that the chain does not use, no others, and never without a
 * mark.
 */
#include "unit.h"
#include "chains.h"
#include "memory/dedup.h"

static struct dedup_statistics dedup(unsigned layer)
{
	struct opened opened = open_stack(layer);
	struct dedup_statistics statistics;

	assert_int_equal(page_chain_dedup(opened.chain, &statistics), 0);
	close_stack(&opened);
	return statistics;
}

static bool has_data(unsigned layer, uint64_t place)
{
	autofree char *path = format_text("%s/%u/pages-%u.img", directory, layer, 1 + layer % 3);
	autoclose int fd = open(path, O_RDONLY);
	off_t data = lseek(fd, PAGES(place), SEEK_DATA);

	assert_true(fd >= 0);
	return data == (off_t)PAGES(place);
}

static void the_drawing(void **state unused)
{
	struct dedup_statistics statistics;
	struct opened opened;

	layer(1, false, { 3, 3, HERE }, { 0x0b, 6, HERE }, { 0x18, 4, HERE });
	layer(0, true, { 3, 2, PARENT }, { 5, 1, HERE }, { 0x0b, 4, PARENT }, { 0x0f, 3, HERE },
	      { 0x17, 2, HERE }, { 0x19, 3, PARENT });
	statistics = dedup(0);
	assert_int_equal(statistics.pages, 4); /* 05 0f 10 18 */
	assert_int_equal(statistics.layers, 1);
	assert_int_equal(statistics.bytes, PAGES(4));
	for (unsigned place = 0; place < 13; place++)
		assert_int_equal(has_data(1, place), place != 2 && place != 7 && place != 8 && place != 9);
	opened = open_stack(0);
	assert_pages(&opened.stack, &opened.stack.runs);
	close_stack(&opened);
	/* The second time there is nothing to free. */
	statistics = dedup(0);
	assert_int_equal(statistics.pages, 0);
	assert_int_equal(statistics.layers, 0);
}

static void assert_not_restorable(unsigned layer)
{
	struct image_store *store = layer_open(layer, false);
	struct page_chain *chain;

	assert_true(page_chain_open(&chain, store) < 0);
	assert_failure_says("has freed pages");
	image_store_close(store);
}

static void assert_restorable(unsigned layer)
{
	close_stack((struct opened[]){ open_stack(layer) });
}

/* Layers that have lost pages are marked, others are not. */
static void marks(void **state unused)
{
	layer(3, false, { 1, 10, HERE });
	layer(2, true, { 1, 5, PARENT }, { 6, 5, HERE });
	layer(1, true, { 1, 10, PARENT });
	layer(0, true, { 1, 10, PARENT }, { 20, 1, HERE });
	dedup(2); /* frees 6… of layer 3 */
	assert_not_restorable(3);
	for (unsigned number = 0; number < 3; number++)
		assert_restorable(number);
	dedup(0); /* uses the same pages as layer 2 */
	assert_not_restorable(3);
	for (unsigned number = 0; number < 3; number++)
		assert_restorable(number);
	layer(0, true, { 1, 2, PARENT });
	dedup(0);
	assert_restorable(0);
	assert_not_restorable(2);
	assert_not_restorable(1); /* it has lost no page itself, but its parents have */
	assert_not_restorable(3);
}

/* What is read is pages-N.img, so that loses its pages. */
static void both_images(void **state unused)
{
	layer(1, false, { 1, 10, HERE });
	layer(0, true, { 1, 9, PARENT });
	put_file("1/pages-lz4-2.img", "not read", 8);
	assert_int_equal(dedup(0).pages, 1);
}

static void tasks_that_are_gone(void **state unused)
{
	struct dedup_statistics statistics;
	autofree char *old = format_text("%s/1/pagemap-4711.img", directory),
		      *new = format_text("%s/1/pagemap-12.img", directory);

	layer(1, false, { 1, 10, HERE });
	assert_int_equal(rename(old, new), 0);
	layer(0, true, { 1, 10, HERE });
	statistics = dedup(0);
	assert_int_equal(statistics.pages, 10);
}

static void assert_refused(const char *words)
{
	struct opened opened = open_stack(0);
	struct dedup_statistics statistics;

	assert_true(page_chain_dedup(opened.chain, &statistics) < 0);
	assert_failure_says(words);
	close_stack(&opened);
	assert_restorable(1);
	for (unsigned place = 0; place < 10; place++)
		assert_true(has_data(1, place));
}

/* All checks come before the first change. */
static void refusals_come_first(void **state unused)
{
	autofree char *pages = format_text("%s/1/pages-2.img", directory),
		      *second = format_text("%s/link", directory),
		      *pagemap = format_text("%s/1/pagemap-4711.img", directory),
		      *other = format_text("%s/1/pagemap-12.img", directory),
		      *command = format_text("cp %s %s", pagemap, other),
		      *inventory = format_text("%s/0/inventory.img", directory);

	layer(1, false, { 1, 10, HERE });
	layer(0, true, { 1, 5, PARENT });
	assert_int_equal(link(pages, second), 0);
	assert_refused("/1/pages-2.img has several links");
	assert_int_equal(unlink(second), 0);
	assert_int_equal(system(command), 0);
	assert_refused("/1/pages-2.img belongs to two pagemaps");
	put_file("1/pagemap-12.img", "nonsense", 8);
	assert_refused("/1/pagemap-12.img");
	assert_int_equal(unlink(other), 0);
	assert_int_equal(unlink(inventory), 0);
	assert_refused("/0 is not a complete snapshot");
}

static void consumed(void **state unused)
{
	struct dedup_statistics statistics;
	struct opened opened;

	layer(1, false, { 1, 10, HERE });
	layer(0, true, { 1, 5, PARENT }, { 20, 1, HERE });
	opened = open_stack(0);
	assert_int_equal(page_chain_consume(opened.chain, &statistics), 0);
	assert_int_equal(statistics.pages, 6);
	assert_int_equal(statistics.layers, 2);
	close_stack(&opened);
	for (unsigned place = 0; place < 10; place++)
		assert_int_equal(has_data(1, place), place >= 5);
	assert_not_restorable(0);
	assert_not_restorable(1);
}

static void by_chance(void **state unused)
{
	for (unsigned seed = 1; seed <= 30; seed++) {
		unsigned layers = 2 + seed % 12, pages = 1 + seed * 37 % MOST_PAGES;
		uint64_t data = 0, seen;
		int owner[MOST_PAGES];
		struct opened opened;

		make_chain_by_chance(seed, layers, pages, owner);
		dedup(0);
		opened = open_stack(0);
		assert_model(&opened.stack, owner, pages);
		assert_pages(&opened.stack, &opened.stack.runs);
		seen = page_runs_total(&opened.stack.runs) -
		       page_runs_total((struct page_runs[]){ page_stack_layer(&opened.stack, 0) });
		close_stack(&opened);
		for (unsigned layer = 1; layer < layers; layer++)
			for (unsigned place = 0; place < pages; place++)
				data += has_data(layer, place);
		assert_int_equal(data, seen);
		assert_int_equal(clean(NULL) ?: prepare(NULL), 0);
	}
}

int main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, prepare, clean)
	const struct CMUnitTest tests[] = {
		test(the_drawing),	   test(both_images), test(marks),     test(tasks_that_are_gone),
		test(refusals_come_first), test(consumed),    test(by_chance),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
