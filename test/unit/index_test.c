/*
 * index_test.c - the hash table of base/index.h against a plain array, over many additions and removals.
 */
#include "unit.h"
#include <stdlib.h>
#include "base/index.h"
#include "compiler.h"

#define KEYS 500

static void check_all(const struct index *index, char *const values[KEYS])
{
	size_t count = 0;

	for (uint64_t key = 0; key < KEYS; key++) {
		assert_ptr_equal(index_find(index, key << 4), values[key]);
		count += values[key] != NULL;
	}
	assert_int_equal(index->count, count);
}

static void test_random(void **state unused)
{
	static char things[KEYS];
	char *values[KEYS] = { NULL };
	struct index index = { 0 };

	srandom(1);
	for (int round = 0; round < 20000; round++) {
		size_t key = random() % KEYS;

		values[key] = random() % 5 < 3 ? &things[random() % KEYS] : NULL;
		if (values[key])
			index_set(&index, key << 4, values[key]);
		else
			index_remove(&index, key << 4);
		if (round % 500 == 0)
			check_all(&index, values);
	}
	check_all(&index, values);
	index_free(&index);
}

static void test_empty(void **state unused)
{
	struct index index = { 0 };

	assert_null(index_find(&index, 0));
	index_remove(&index, 0);
	index_set(&index, UINT64_MAX, &index);
	assert_ptr_equal(index_find(&index, UINT64_MAX), &index);
	assert_null(index_find(&index, 0));
	index_free(&index);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_empty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
