/*
 * error_test.c - the failure record: causes, places, refusals, advice, which failure counts when several processes
 * fail, and attempts that do not count.
 */
#include "unit.h"
#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/helper_thread.h"
#include "base/error.h"
#include "base/log.h"
#include "base/thread.h"

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

/* EINVAL does not help a user, so it is not shown; neither is 0. */
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
	fail_advice(
		"too early: nothing has failed"); /* must neither crash nor be kept for the next failure */
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

/* A failed call of the kernel is no refusal, whatever its errno. A refusal has no text of strerror(). */
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

static void failure_after_refusal(void **state unused)
{
	refuse("file 3: a kvm");
	assert_int_equal(fail_in(fail(EIO, "cannot read"), "process %d", 4), -EIO);
	assert_int_equal(fail(EPERM, "cannot undo"), -EPERM);
	assert_string_equal(failure_text(), "process 4: cannot read: Input/output error");
	assert_int_equal(failure_errno(), EIO);
	assert_report("cannot dump", NULL,
		      "criu: cannot dump\n  process 4: cannot read: Input/output error\n  file 3: a kvm\n");
}

/* A refusal is of a place already. */
static void refusal_without_place(void **state unused)
{
	assert_int_equal(fail_in(refuse("file 3: a kvm"), "process %d", 4), -REFUSED);
	assert_string_equal(failure_text(), "");
}

/* All refusals are counted, but only as many are shown as fit into the text. */
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

/* The parent sees a failure of its child. A later failure of the parent neither replaces it nor adds places to it. */
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

/* A failure in an attempt is visible only in the attempt, and gone when the attempt has ended. */
static void attempt_that_does_not_count(void **state unused)
{
	struct attempt attempt;

	attempt_begin(&attempt);
	assert_false(has_failed());
	assert_int_equal(fail_in(fail(EIO, "the cause"), "image %d", 7), -EIO);
	fail_advice("another disk");
	assert_true(has_failed());
	assert_int_equal(failure_errno(), EIO);
	assert_string_equal(failure_text(), "image 7: the cause: Input/output error");
	attempt_forget(&attempt);
	nothing_failed(NULL);
	fail(EPERM, "the real one");
	assert_report("cannot dump", NULL, "criu: cannot dump\n  the real one: Operation not permitted\n");
}

/* The earlier failure stays the first. The attempt adds no places and no advice to it. */
static void attempt_after_a_failure(void **state unused)
{
	struct attempt attempt;

	fail(ENOENT, "the first");
	attempt_begin(&attempt);
	assert_false(has_failed());
	fail_in(fail(EIO, "the second"), "elsewhere");
	fail_advice("nothing");
	refuse("file 3: a kvm");
	attempt_forget(&attempt);
	assert_int_equal(refusals(), 0);
	assert_report("cannot dump", NULL, "criu: cannot dump\n  the first: No such file or directory\n");
}

static void attempt_that_counts(void **state unused)
{
	struct attempt attempt;

	attempt_begin(&attempt);
	attempt_count(&attempt);
	assert_false(has_failed());
	attempt_begin(&attempt);
	fail_in(fail(EMFILE, "the cause"), "file %d", 3);
	attempt_count(&attempt);
	fail_in(-EMFILE, "process %d", 5);
	assert_int_equal(failure_errno(), EMFILE);
	assert_report("cannot dump", NULL,
		      "criu: cannot dump\n  process 5: file 3: the cause: Too many open files\n"
		      "  try: a higher limit of open files (ulimit -n)\n");
}

static void refusals_of_an_attempt(void **state unused)
{
	struct attempt attempt;

	refuse("file 2: a dri");
	attempt_begin(&attempt);
	assert_int_equal(refuse("file 3: a kvm"), -REFUSED);
	assert_int_equal(refusals(), 1);
	attempt_forget(&attempt);
	assert_int_equal(refusals(), 1);
	attempt_begin(&attempt);
	refuse("file 4: a tun");
	refuse("file 5: a tap");
	attempt_count(&attempt);
	assert_int_equal(refusals(), 3);
	assert_int_equal(failure_errno(), EOPNOTSUPP);
	assert_report("cannot dump", NULL,
		      "criu: cannot dump\n  file 2: a dri\n  file 4: a tun\n  file 5: a tap\n");
	attempt_begin(&attempt);
	for (int i = 0; i < 1000; i++)
		refuse("file %d is of a kind that nobody has heard of", i);
	attempt_count(&attempt);
	assert_int_equal(refusals(), 1003);
}

static void nested_attempts(void **state unused)
{
	struct attempt outer, inner;

	attempt_begin(&outer);
	attempt_begin(&inner);
	fail(EIO, "forgotten");
	attempt_forget(&inner);
	assert_false(has_failed());
	attempt_begin(&inner);
	fail(EIO, "counts");
	attempt_count(&inner);
	assert_string_equal(failure_text(), "counts: Input/output error");
	assert_int_equal(attempted(fail(EPERM, "a third")), -EPERM);
	assert_string_equal(failure_text(), "counts: Input/output error");
	attempt_forget(&outer);
	nothing_failed(NULL);
}

/*
 * Another process has a failure that counts while this one is in an attempt: it is reported, also after
 * attempt_forget().
 */
static void attempt_beside_a_failure_of_a_child(void **state unused)
{
	struct attempt attempt;
	int begins[2], status;
	pid_t child;
	char byte = 0;

	assert_int_equal(pipe(begins), 0);
	child = fork();
	if (child == 0) {
		if (read(begins[0], &byte, 1) == 1)
			fail_in(fail(EBUSY, "the child's"), "process %d", 5);
		_exit(0);
	}
	attempt_begin(&attempt);
	fail(EIO, "ours");
	assert_int_equal(write(begins[1], &byte, 1), 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_string_equal(failure_text(), "ours: Input/output error");
	attempt_forget(&attempt);
	assert_report("cannot restore", NULL,
		      "criu: cannot restore\n  process 5: the child's: Device or resource busy\n");
	close(begins[0]);
	close(begins[1]);
}

/* A child that is forked within an attempt is in it, and does not change what its parent records there. */
static void child_of_an_attempt(void **state unused)
{
	struct attempt attempt;
	int status;
	pid_t child;

	attempt_begin(&attempt);
	child = fork();
	if (child == 0) {
		fail(EBUSY, "the child's");
		attempt_forget(&attempt);
		_exit(has_failed());
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_false(has_failed());
	fail(EIO, "ours");
	assert_string_equal(failure_text(), "ours: Input/output error");
	attempt_forget(&attempt);
	nothing_failed(NULL);
}

static void fail_in_helper(void *context)
{
	fail(EIO, "%s", (const char *)context);
}

/* A helper thread is in the attempt of the thread that it works for. */
static void helper_thread_in_an_attempt(void **state unused)
{
	struct helper_thread *helper = helper_thread_start();
	struct attempt attempt;

	assert_non_null(helper);
	attempt_begin(&attempt);
	helper_thread_run(helper, fail_in_helper, "within");
	helper_thread_wait(helper);
	assert_string_equal(failure_text(), "within: Input/output error");
	attempt_forget(&attempt);
	nothing_failed(NULL);
	helper_thread_run(helper, fail_in_helper, "outside");
	helper_thread_wait(helper);
	assert_string_equal(failure_text(), "outside: Input/output error");
	helper_thread_end(helper);
}

static void *fail_often(void *context)
{
	for (int i = 0; i < 100; i++)
		fail(EIO, "a thread's");
	assert_int_equal(attempted(fail(EPERM, "its own")), -EPERM);
	return context;
}

/*
 * Threads that were started within an attempt record their failures in it; a thread that was started before does not.
 */
static void threads_of_an_attempt(void **state unused)
{
	struct attempt attempt;
	pthread_t threads[8];

	attempt_begin(&attempt);
	for (size_t i = 0; i < array_size(threads); i++)
		assert_int_equal(thread_start(&threads[i], fail_often, NULL), 0);
	for (size_t i = 0; i < array_size(threads); i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_string_equal(failure_text(), "a thread's: Input/output error");
	attempt_forget(&attempt);
	nothing_failed(NULL);
	attempt_begin(&attempt);
	assert_int_equal(pthread_create(&threads[0], NULL, fail_often, NULL), 0);
	assert_int_equal(pthread_join(threads[0], NULL), 0);
	assert_false(has_failed());
	attempt_forget(&attempt);
	assert_string_equal(failure_text(), "a thread's: Input/output error");
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
		clean(failure_after_refusal),
		clean(refusal_without_place),
		clean(refusal_is_no_errno),
		clean(too_many_refusals),
		clean(small_room),
		clean(long_texts),
		clean(failure_of_a_child),
		clean(attempt_that_does_not_count),
		clean(attempt_after_a_failure),
		clean(attempt_that_counts),
		clean(refusals_of_an_attempt),
		clean(nested_attempts),
		clean(attempt_beside_a_failure_of_a_child),
		clean(child_of_an_attempt),
		clean(helper_thread_in_an_attempt),
		clean(threads_of_an_attempt),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
