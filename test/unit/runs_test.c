/*
 * runs_test.c - page runs: which are joined, finding them, and limits of both.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "unit.h"
#include "base/memory.h"
#include "memory/runs.h"

#define PAGES(number) ((number)*PAGE_SIZE)

static void add(struct page_runs *runs, uint64_t page, uint64_t count, uint32_t layer, uint64_t offset)
{
	page_runs_add(runs, &(struct page_run){ .start = PAGES(page),
						.count = count,
						.layer = layer,
						.offset = PAGES(offset) });
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

static void within(void **state unused)
{
	struct page_runs runs = { 0 };

	add(&runs, 3, 2, 0, 0);
	add(&runs, 10, 100, 0, 2);
	assert_int_equal(page_runs_within(&runs, 0, PAGES(3)), 0);
	assert_int_equal(page_runs_within(&runs, 0, PAGES(4)), 1);
	assert_int_equal(page_runs_within(&runs, PAGES(4), PAGES(12)), 3);
	assert_int_equal(page_runs_within(&runs, PAGES(20), PAGES(30)), 10);
	assert_int_equal(page_runs_within(&runs, PAGES(109), UINT64_MAX), 1);
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

/* Writes runs as "03:2:P 05:1": the first page in hex, the number of pages, and P if the parent has them. */
static char *text_of(const struct page_runs *runs)
{
	static char text[512];

	*text = '\0';
	for (size_t i = 0; i < runs->count; i++)
		sprintf(text + strlen(text), "%s%02X:%d%s", i ? " " : "",
			(unsigned)(runs->items[i].start / PAGE_SIZE), (int)runs->items[i].count,
			runs->items[i].layer ? ":P" : "");
	return text;
}

static void assert_plan(struct page_runs *changed, struct page_runs *unchanged, struct page_runs *parent,
			const char *expected)
{
	struct page_runs plan = { 0 };

	page_runs_plan(changed, unchanged, parent, &plan);
	assert_string_equal(text_of(&plan), expected);
	page_runs_free(&plan);
	page_runs_free(changed);
	page_runs_free(unchanged);
	page_runs_free(parent);
}

static void add_at(struct page_runs *runs, uint64_t page, uint64_t count)
{
	add(runs, page, count, 0, page);
}

/* The drawing of the design: '=' unchanged, '+' new or written. */
static void plan_drawn(void **state unused)
{
	struct page_runs changed = { 0 }, unchanged = { 0 }, parent = { 0 };

	add_at(&parent, 0x03, 3);
	add_at(&parent, 0x0b, 6);
	add_at(&parent, 0x18, 4);
	add_at(&unchanged, 0x03, 2);
	add_at(&changed, 0x05, 1);
	add_at(&unchanged, 0x0b, 4);
	add_at(&changed, 0x0f, 3);
	add_at(&changed, 0x17, 2);
	add_at(&unchanged, 0x19, 3);
	assert_plan(&changed, &unchanged, &parent, "03:2:P 05:1 0B:4:P 0F:3 17:2 19:3:P");
}

/* Without a parent all pages are saved. */
static void plan_first(void **state unused)
{
	struct page_runs changed = { 0 }, unchanged = { 0 }, parent = { 0 };

	add_at(&changed, 0x03, 3);
	add_at(&changed, 0x0b, 6);
	add_at(&unchanged, 0x18, 4);
	assert_plan(&changed, &unchanged, &parent, "03:3 0B:6 18:4");
}

/*
 * No page is left to a parent that does not have it: one was not saved there because it was zero, another was
 * dropped.
 */
static void plan_no_promise(void **state unused)
{
	struct page_runs changed = { 0 }, unchanged = { 0 }, parent = { 0 };

	add_at(&parent, 2, 2);
	add_at(&parent, 6, 1);
	add_at(&parent, 9, 20);
	add_at(&unchanged, 1, 10);
	add_at(&changed, 11, 1);
	add_at(&unchanged, 12, 1);
	add_at(&unchanged, 40, 1);
	assert_plan(&changed, &unchanged, &parent, "01:1 02:2:P 04:2 06:1:P 07:2 09:2:P 0B:1 0C:1:P 28:1");
}

/* Random sets of pages, compared with a list of the state of each page. */
static void plan_any(void **state unused)
{
	enum { NOTHING, CHANGED, UNCHANGED };

	srand(7);
	for (int round = 0; round < 2000; round++) {
		struct page_runs changed = { 0 }, unchanged = { 0 }, parent = { 0 }, plan = { 0 };
		int what[40], expected[40], found[40] = { 0 };
		bool has[40];

		for (int page = 0; page < 40; page++) {
			what[page] = page && rand() % 3 ? what[page - 1] : rand() % 3;
			has[page] = page && rand() % 3 ? has[page - 1] : rand() % 2;
			if (what[page] == CHANGED)
				add_at(&changed, page, 1);
			if (what[page] == UNCHANGED)
				add_at(&unchanged, page, 1);
			if (has[page])
				add_at(&parent, page, 1);
			expected[page] = !what[page] ? 0 : what[page] == UNCHANGED && has[page] ? 2 : 1;
		}
		page_runs_plan(&changed, &unchanged, &parent, &plan);
		for (size_t i = 0; i < plan.count; i++) {
			assert_true(!i || plan.items[i].start >= page_run_end(&plan.items[i - 1]));
			for (uint64_t page = 0; page < plan.items[i].count; page++)
				found[plan.items[i].start / PAGE_SIZE + page] = plan.items[i].layer + 1;
		}
		assert_memory_equal(found, expected, sizeof(found));
		page_runs_free(&changed);
		page_runs_free(&unchanged);
		page_runs_free(&parent);
		page_runs_free(&plan);
	}
}

/* A run is cut at both ends, and its place in the image is adapted. */
static void pieces(void **state unused)
{
	struct page_run items[] = {
		{ .start = 2 * PAGE_SIZE, .count = 4, .offset = 100 * PAGE_SIZE },
		{ .start = 8 * PAGE_SIZE, .count = 1, .offset = 7 * PAGE_SIZE },
		{ .start = 10 * PAGE_SIZE, .count = 5, .offset = 50 * PAGE_SIZE },
	};
	const uint64_t expected[][3] = { { 3, 3, 101 }, { 8, 1, 7 }, { 10, 2, 50 } };
	struct page_runs runs = { items, array_size(items) };
	uint64_t start = 3 * PAGE_SIZE, end = 12 * PAGE_SIZE;
	size_t next = page_runs_find(&runs, start);
	struct page_piece piece;

	for (size_t i = 0; i < array_size(expected); i++) {
		assert_true(page_runs_next_piece(&runs, start, end, &next, &piece));
		assert_int_equal(piece.start, expected[i][0] * PAGE_SIZE);
		assert_int_equal(piece.size, expected[i][1] * PAGE_SIZE);
		assert_int_equal(piece.offset, expected[i][2] * PAGE_SIZE);
	}
	assert_false(page_runs_next_piece(&runs, start, end, &next, &piece));
	next = page_runs_find(&runs, 6 * PAGE_SIZE);
	assert_false(page_runs_next_piece(&runs, 6 * PAGE_SIZE, 8 * PAGE_SIZE, &next, &piece));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces),     cmocka_unit_test(within),	    cmocka_unit_test(joined),
		cmocka_unit_test(kept_apart), cmocka_unit_test(find),	    cmocka_unit_test(highest),
		cmocka_unit_test(plan_drawn), cmocka_unit_test(plan_first), cmocka_unit_test(plan_no_promise),
		cmocka_unit_test(plan_any),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
