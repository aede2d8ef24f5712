/*
 * steps_test.c - tables of steps: their order, which are undone and in which order, injected faults.
 */
#include "unit.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/log.h"
#include "base/steps.h"
#include "compiler.h"

/* What has happened, one letter for each: a b c have run, A B C were undone. */
struct course {
	char text[32];
	char fails; /* the step that fails */
};

static int note(struct course *course, char letter)
{
	course->text[strlen(course->text)] = letter;
	return course->fails == letter ? fail(EIO, "step %c", letter) : 0;
}

#define runs(letter)                              \
	static int run_##letter(void *context)    \
	{                                         \
		return note(context, #letter[0]); \
	}
#define undoes(letter, capital)                  \
	static void undo_##letter(void *context) \
	{                                        \
		note(context, #capital[0]);      \
	}

runs(a);
runs(b);
runs(c);
runs(d);
undoes(a, A);
undoes(b, B);
undoes(d, D);

static const struct step steps[] = {
	{ "a", run_a, undo_a, false },
	{ "b", run_b, undo_b, false },
	{ "c", run_c, NULL, false },
	{ "d", run_d, undo_d, true },
};

static int start_clean(void **state unused)
{
	failure_clear();
	unsetenv("CRIU_FAULT");
	log_level = 0;
	return 0;
}

static void assert_course(const char *fault, char fails, const char *expected, int result)
{
	struct course course = { .fails = fails };

	failure_clear();
	if (fault)
		setenv("CRIU_FAULT", fault, 1);
	assert_int_equal(steps_run("test", steps, array_size(steps), &course, NULL), result);
	assert_string_equal(course.text, expected);
	assert_int_equal(has_failed(), result != 0);
	unsetenv("CRIU_FAULT");
}

static void all_well(void **state unused)
{
	assert_course(NULL, 0, "abcd", 0);
	assert_int_equal(steps_run("test", steps, 0, NULL, NULL), 0);
}

/* The step that has failed is undone, too. The first reason counts. */
static void failures(void **state unused)
{
	assert_course(NULL, 'a', "aA", -EIO);
	assert_course(NULL, 'b', "abBA", -EIO);
	assert_course(NULL, 'c', "abcBA", -EIO);
	assert_course(NULL, 'd', "abcdDBA", -EIO);
	assert_int_equal(failure_errno(), EIO);
}

/* A step fails after its work; a final step, which cannot be undone, before it. */
static void faults(void **state unused)
{
	assert_course("test:a", 0, "aA", -EINVAL);
	assert_course("test:b", 0, "abBA", -EINVAL);
	assert_course("test:c", 0, "abcBA", -EINVAL);
	assert_course("test:d", 0, "abcDBA", -EINVAL);
}

static void faults_elsewhere(void **state unused)
{
	static const char *const others[] = { "test", "tes:a", "testing:a", "dump:a", "", ":a" };

	for (size_t i = 0; i < array_size(others); i++)
		assert_course(others[i], 0, "abcd", 0);
}

/* No step runs if the name is wrong, and the error lists the names. */
static void faults_nowhere(void **state unused)
{
	static const char *const names[] = { "test:x", "test:", "test:1", "test:aa", "test:A" };

	for (size_t i = 0; i < array_size(names); i++) {
		assert_course(names[i], 0, "", -EINVAL);
		assert_non_null(strstr(failure_text(), "its steps are: a, b, c, d"));
	}
}

/* Every step that has begun has its time; they follow each other, within the time of the journey. */
static void times(void **state unused)
{
	static const char fails[] = { 0, 'b' };

	for (size_t i = 0; i < array_size(fails); i++) {
		struct course course = { .fails = fails[i] };
		struct step_times times;
		uint64_t last;

		failure_clear();
		assert_int_equal(!steps_run("test", steps, array_size(steps), &course, &times), !fails[i]);
		assert_int_equal(times.count, fails[i] ? 2 : 4);
		last = times.began;
		for (size_t j = 0; j < times.count; j++) {
			assert_string_equal(times.items[j].name, steps[j].name);
			assert_true(times.items[j].began >= last);
			last = times.items[j].ended;
			assert_true(last >= times.items[j].began);
		}
		assert_true(last <= times.ended);
		step_times_free(&times);
		assert_null(times.items);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(all_well, start_clean),
		cmocka_unit_test_setup(failures, start_clean),
		cmocka_unit_test_setup(faults, start_clean),
		cmocka_unit_test_setup(faults_elsewhere, start_clean),
		cmocka_unit_test_setup(faults_nowhere, start_clean),
		cmocka_unit_test_setup(times, start_clean),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
