/*
 * runs_test.c - page runs: what is joined and what is not, finding, the borders of both.
 */
#include "unit.h"
#include "memory/runs.h"

#define PAGES(number) ((number)*PAGE_SIZE)

static void add(struct page_runs *runs, uint64_t page, uint64_t count, uint32_t layer, uint64_t offset)
{
	page_runs_add(runs, &(struct page_run){ PAGES(page), count, layer, PAGES(offset), 0 });
}

static void joined(void **state unused)
{
	struct page_runs runs = { 0 };

	add(&runs, 3, 2, 0, 0);
	add(&runs, 5, 1, 0, 2);
	add(&runs, 6, 10, 0, 3);
	assert_int_equal(runs.count, 1);
	assert_int_equal(runs.items[0].count, 13);
	assert_int_equal(page_run_end(&runs.items[0]), PAGES(16));
	assert_int_equal(page_runs_total(&runs), 13);
	page_runs_free(&runs);
	assert_int_equal(runs.count, 0);
	assert_null(runs.items);
}

static void kept_apart(void **state unused)
{
	struct page_runs runs = { 0 };

	add(&runs, 3, 2, 0, 0);
	add(&runs, 6, 1, 0, 2); /* a gap in memory */
	add(&runs, 7, 1, 0, 4); /* a gap in the image */
	add(&runs, 8, 1, 1, 5); /* another layer */
	add(&runs, 9, 1, 1, 5); /* the same bytes again */
	assert_int_equal(runs.count, 5);
	assert_int_equal(page_runs_total(&runs), 6);
	page_runs_free(&runs);
}

static void find(void **state unused)
{
	struct page_runs runs = { 0 };

	assert_int_equal(page_runs_find(&runs, 0), 0);
	for (uint64_t i = 0; i < 100; i++)
		add(&runs, 10 + 4 * i, 2, 0, 2 * i); /* two pages, two not */
	assert_int_equal(runs.count, 100);
	assert_int_equal(page_runs_find(&runs, 0), 0);
	for (uint64_t i = 0; i < 100; i++) {
		assert_int_equal(page_runs_find(&runs, PAGES(10 + 4 * i)), i);
		assert_int_equal(page_runs_find(&runs, PAGES(12 + 4 * i) - 1), i);
		assert_int_equal(page_runs_find(&runs, PAGES(12 + 4 * i)), i + 1);
		assert_int_equal(page_runs_find(&runs, PAGES(14 + 4 * i) - 1), i + 1);
	}
	assert_int_equal(page_runs_find(&runs, UINT64_MAX), 100);
	page_runs_free(&runs);
}

/* The last page below the end of all addresses. */
static void highest(void **state unused)
{
	struct page_runs runs = { 0 };

	page_runs_add(&runs, &(struct page_run){ .start = UINT64_MAX - 2 * PAGE_SIZE + 1, .count = 1 });
	assert_int_equal(page_runs_find(&runs, UINT64_MAX - PAGE_SIZE), 0);
	assert_int_equal(page_runs_find(&runs, UINT64_MAX), 1);
	page_runs_free(&runs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(joined),
		cmocka_unit_test(kept_apart),
		cmocka_unit_test(find),
		cmocka_unit_test(highest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
