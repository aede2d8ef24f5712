/*
 * calls_test.c - lists of calls for another process: the addresses of their bytes here and there, how answers are
 * found, and in which processes a list can be run.
 */
#include "unit.h"
#include <errno.h>
#include <string.h>
#include "base/error.h"
#include "base/memory.h"
#include "calls.h"

#define BASE 0x7000000000ULL

static void calls_and_arguments(void **state unused)
{
	struct call_list list;

	calls_init(&list, BASE);
	assert_int_equal(add_call(&list, "one", 1, 10, 20), 1);
	assert_int_equal(add_call(&list, "two", 2), 2);
	assert_int_equal(add_call(&list, "three", 3, 1, 2, 3, 4, 5, 6), 3);
	assert_int_equal(list.count, 3);
	assert_int_equal(list.purpose_count, 3);
	assert_int_equal(list.calls[0].arguments[1], 20);
	assert_int_equal(list.calls[0].arguments[2], 0);
	assert_int_equal(list.calls[2].arguments[5], 6);
	calls_free(&list);
	assert_int_equal(list.count, 0);
	assert_null(list.calls);
}

static void bytes_are_aligned(void **state unused)
{
	struct call_list list;

	calls_init(&list, BASE);
	assert_int_equal(calls_bytes(&list, "abc", 3), BASE);
	assert_int_equal(calls_bytes(&list, "defg", 4), BASE + 16);
	assert_int_equal(calls_bytes(&list, NULL, 17), BASE + 32);
	assert_int_equal(calls_bytes(&list, NULL, 0), BASE + 64);
	assert_memory_equal(calls_at(&list, BASE), "abc\0\0\0\0\0\0\0\0\0\0\0\0\0defg", 20);
	assert_memory_equal(calls_at(&list, BASE + 32), "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 17);
	calls_free(&list);
}

/* Bytes of length 0, at the very beginning. */
static void no_bytes(void **state unused)
{
	struct call_list list;

	calls_init(&list, BASE);
	assert_int_equal(calls_bytes(&list, NULL, 0), BASE);
	assert_int_equal(calls_bytes(&list, "", 0), BASE);
	assert_int_equal(calls_bytes(&list, "a", 1), BASE);
	assert_non_null(calls_at(&list, BASE));
	calls_free(&list);
}

/* Bytes that were added before the list grew are still there afterwards. */
static void bytes_survive_growth(void **state unused)
{
	struct call_list list;
	autofree char *large = allocate(100000);

	memset(large, 'x', 100000);
	calls_init(&list, BASE);
	for (int i = 0; i < 2000; i++)
		assert_int_equal(calls_bytes(&list, &i, sizeof(i)), BASE + 16 * i);
	assert_int_equal(calls_bytes(&list, large, 100000), BASE + 32000);
	for (int i = 0; i < 2000; i++)
		assert_int_equal(*(int *)calls_at(&list, BASE + 16 * i), i);
	assert_memory_equal(calls_at(&list, BASE + 32000), large, 100000);
	assert_true(list.size <= list.capacity);
	calls_free(&list);
}

/* Calls with the same description, and calls that are added later, do not change which answer is found. */
static void answers(void **state unused)
{
	struct call_list list;
	call_handle first, twice[2], with_bytes;
	const int value = 7;

	calls_init(&list, BASE);
	assert_int_equal(calls_result(&list, 0), -ENOSYS);
	assert_null(calls_answer(&list, 0, 0));
	first = add_call(&list, "first", 1);
	twice[0] = add_call(&list, "twice", 2, 7);
	twice[1] = add_call(&list, "twice", 2, 8);
	with_bytes = add_call(&list, "with bytes", 3, 0, 0, calls_bytes(&list, &value, sizeof(value)));
	assert_int_not_equal(first, 0);
	for (size_t i = 0; i < list.count; i++)
		list.calls[i].result = 40 + i;
	assert_int_equal(calls_result(&list, first), 40);
	assert_int_equal(calls_result(&list, twice[0]), 41);
	assert_int_equal(calls_result(&list, twice[1]), 42);
	for (int i = 0; i < 1000; i++) /* so that the list is moved in memory */
		add_call(&list, "more", 4, calls_bytes(&list, NULL, 100));
	assert_int_equal(*(const int *)calls_answer(&list, with_bytes, 2), 7);
	assert_int_equal(calls_result(&list, first), 40);
	assert_int_equal(calls_result(&list, 0), -ENOSYS);
	calls_free(&list);
}

/* A list with call numbers of another ABI is refused before anything is written to the process. */
static void other_abi(void **state unused)
{
	struct victim victim = { .pid = 4711, .abi = CALL_ABI_64 };
	struct call_list list;

	calls_init(&list, BASE);
	assert_int_equal(calls_check_abi(list.abi, &victim), 0);
	list.abi = CALL_ABI_32;
	assert_int_equal(calls_make(&list, &victim, 0), -EINVAL);
	assert_string_equal(failure_text(), "it runs 64-bit code: 32-bit system calls cannot be made in it");
	failure_clear();
	calls_free(&list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(calls_and_arguments),
		cmocka_unit_test(bytes_are_aligned),
		cmocka_unit_test(no_bytes),
		cmocka_unit_test(bytes_survive_growth),
		cmocka_unit_test(answers),
		cmocka_unit_test(other_abi),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
