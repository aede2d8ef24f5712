/*
 * error_test.c - the failure record: causes, places, refusals, advice, and who wins when several processes fail.
 */
#include "unit.h"
#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"

static int start_clean(void **state unused)
{
	failure_clear();
	log_level = 0;
	return 0;
}

static void assert_report(const char *headline, const char *log, const char *expected)
{
	char text[4096];

	failure_report(text, sizeof(text), headline, log);
	assert_string_equal(text, expected);
}

static void nothing_failed(void **state unused)
{
	assert_false(has_failed());
	assert_int_equal(failure_errno(), 0);
	assert_int_equal(refusals(), 0);
	assert_report("cannot dump", "log", "");
}

static void cause(void **state unused)
{
	assert_int_equal(fail(ENOENT, "cannot open %s", "a"), -ENOENT);
	assert_true(has_failed());
	assert_int_equal(failure_errno(), ENOENT);
	assert_report("cannot dump", NULL, "criu: cannot dump\n  cannot open a: No such file or directory\n");
}

/* EINVAL says nothing to a person, and 0 stands for it. */
static void cause_without_errno(void **state unused)
{
	assert_int_equal(fail(0, "no command"), -EINVAL);
	assert_int_equal(failure_errno(), EINVAL);
	assert_report(NULL, NULL, "criu: no command\n");
	failure_clear();
	assert_int_equal(fail(EINVAL, "no command"), -EINVAL);
	assert_report(NULL, NULL, "criu: no command\n");
}

static void places(void **state unused)
{
	int result = fail(EPERM, "cannot read it");

	result = fail_in(result, "file %d", 12);
	result = fail_in(result, "process 7 (sh)");
	assert_int_equal(result, -EPERM);
	assert_report(
		"cannot dump", NULL,
		"criu: cannot dump\n  process 7 (sh): file 12: cannot read it: Operation not permitted\n");
}

static void first_one_wins(void **state unused)
{
	fail(ENOENT, "the first");
	assert_int_equal(fail(EPERM, "the second"), -EPERM);
	assert_int_equal(failure_errno(), ENOENT);
	assert_report("cannot dump", NULL, "criu: cannot dump\n  the first: No such file or directory\n");
}

static void advice_and_log(void **state unused)
{
	fail_advice("too early: nothing has failed"); /* must not crash, nor be kept for the next failure */
	failure_clear();
	fail(0, "no path found");
	fail_advice("--%s", "force-irmap");
	fail_advice("another");
	assert_report("cannot dump", "/img/dump.log",
		      "criu: cannot dump\n  no path found\n  try: --force-irmap\n  log: /img/dump.log\n");
}

static void all_refusals_are_told(void **state unused)
{
	assert_int_equal(refuse("file 3: a kvm"), -REFUSED);
	refuse("file %d: a dri", 4);
	assert_int_equal(refusals(), 2);
	assert_int_equal(failure_errno(), EOPNOTSUPP);
	assert_report("cannot dump", NULL, "criu: cannot dump\n  file 3: a kvm\n  file 4: a dri\n");
}

/* What the kernel cannot do is no refusal of ours, whatever errno it has; a refusal has no words from strerror(). */
static void refusal_is_no_errno(void **state unused)
{
	for (int error = 1; error < 4096; error++)
		assert_int_equal(unless_refused(-error), -error);
	assert_int_equal(unless_refused(0), 0);
	assert_int_equal(unless_refused(7), 7);
	assert_int_equal(unless_refused(fail(EOPNOTSUPP, "cannot clone")), -EOPNOTSUPP);
	assert_report("cannot dump", NULL, "criu: cannot dump\n  cannot clone: Operation not supported\n");
	failure_clear();
	assert_int_equal(unless_refused(refuse("file 3: a kvm")), 0);
	failure_clear();
	assert_int_equal(fail(REFUSED, "given up"), -REFUSED);
	assert_report("cannot dump", NULL, "criu: cannot dump\n  given up\n");
}

/* More than there is room for is counted, though not all told; the text ends in time. */
static void too_many_refusals(void **state unused)
{
	char text[32768];

	for (int i = 0; i < 1000; i++)
		refuse("file %d is of a kind that nobody has heard of", i);
	assert_int_equal(refusals(), 1000);
	failure_report(text, sizeof(text), "cannot dump", NULL);
	assert_non_null(strstr(text, "file 0 is"));
	assert_true(strlen(text) < sizeof(text));
}

static void small_room(void **state unused)
{
	char text[8];

	fail(0, "a sentence that does not fit");
	failure_report(text, sizeof(text), "cannot dump", NULL);
	assert_string_equal(text, "criu: c");
}

static void long_texts(void **state unused)
{
	char words[8192], text[16384];
	int result;

	memset(words, 'x', sizeof(words) - 1);
	words[sizeof(words) - 1] = '\0';
	result = fail(EIO, "%s", words);
	for (int i = 0; i < 20; i++)
		result = fail_in(result, "%s", words);
	fail_advice("%s", words);
	assert_int_equal(result, -EIO);
	failure_report(text, sizeof(text), "cannot dump", NULL);
	assert_true(strlen(text) < 4096);
}

/* A child's failure is seen by its parent; the parent's later one does not replace it, nor add places to it. */
static void failure_of_a_child(void **state unused)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		fail_in(fail(EBUSY, "the child's"), "process %d", 5);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(has_failed());
	assert_int_equal(failure_errno(), EBUSY);
	fail_in(fail(EPERM, "the parent's"), "elsewhere");
	assert_report("cannot restore", NULL,
		      "criu: cannot restore\n  process 5: the child's: Device or resource busy\n");
}

int main(void)
{
#define clean(test) cmocka_unit_test_setup(test, start_clean)
	const struct CMUnitTest tests[] = {
		clean(nothing_failed),
		clean(cause),
		clean(cause_without_errno),
		clean(places),
		clean(first_one_wins),
		clean(advice_and_log),
		clean(all_refusals_are_told),
		clean(refusal_is_no_errno),
		clean(too_many_refusals),
		clean(small_room),
		clean(long_texts),
		clean(failure_of_a_child),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
