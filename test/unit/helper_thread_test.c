/*
 * helper_thread_test.c - two threads share work: each item is done exactly once, and a failure is reported.
 */
#include "unit.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/helper_thread.h"
#include "base/memory.h"

static void count_one(void *context, size_t i)
{
	unsigned *times = context;

	__atomic_fetch_add(&times[i], 1, __ATOMIC_RELAXED);
}

static void shares_are_done_once(void **state unused)
{
	static const size_t counts[] = { 0, 1, 2, 127, 128, 129, 255, 1000, 100000 };

	for (size_t i = 0; i < array_size(counts); i++)
		for (size_t worth = 0; worth <= 128; worth += 64) {
			autofree unsigned *times = allocate_array(counts[i] + 1, sizeof(*times));

			share_work(counts[i], worth, count_one, times);
			for (size_t j = 0; j < counts[i]; j++)
				assert_int_equal(times[j], 1);
			assert_int_equal(times[counts[i]], 0);
		}
}

static void fail_last(void *context, size_t i)
{
	if (i == *(size_t *)context)
		ignore(fail(EIO, "number %zu fails", i));
}

static void failure_of_a_share(void **state unused)
{
	size_t last = 999;

	share_work(1000, 0, fail_last, &last);
	assert_int_equal(failure_errno(), EIO);
	assert_non_null(strstr(failure_text(), "number 999 fails"));
	failure_clear();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shares_are_done_once),
		cmocka_unit_test(failure_of_a_share),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
