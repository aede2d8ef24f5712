/*
 * mapping_watch_test.c - which calls the kernel is told to count. test/live/mapping_watch_test.c tests whether it
 * does.
 */
#include "unit.h"
#include <string.h>
#include <sys/syscall.h>
#include "base/memory.h"
#include "kernel/mapping_watch.h"

static bool has_call(const char *filter, int number)
{
	autofree char *term = format_text("id == %d ", number), *terms = format_text("%s ", filter);

	return strstr(terms, term);
}

static void filter(void **state unused)
{
	static const int wanted[] = { SYS_madvise, SYS_mmap,   SYS_munmap, SYS_brk,
				      SYS_mlock,   SYS_execve, SYS_clone3 };
	static const int unwanted[] = { SYS_read, SYS_write, SYS_futex, SYS_getrandom };
	autofree char *text = mapping_watch_filter();

	assert_true(strlen(text) < PAGE_SIZE); /* the kernel accepts no longer filter */
	assert_null(strstr(text, "|| ||"));
	for (size_t i = 0; i < array_size(wanted); i++)
		assert_true(has_call(text, wanted[i]));
	for (size_t i = 0; i < array_size(unwanted); i++)
		assert_false(has_call(text, unwanted[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(filter),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
