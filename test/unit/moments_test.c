/*
 * moments_test.c - which receivers are called at a moment, in which order, and what happens when one stops the journey;
 * action scripts as receivers.
 */
#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/moments.h"
#include "base/scripts.h"
#include "base/steps.h"

/* What has happened, one letter for each: 1 2 3 are receivers, b e are steps, B is the undo of b. */
struct course {
	char text[32];
	struct moments moments;
	enum moment moment;
	struct news last;
};

struct tester {
	struct course *course;
	char letter;
	int answer;
	const char *reason; /* NULL: it gives none */
};

static int note(struct course *course, char letter)
{
	course->text[strlen(course->text)] = letter;
	return 0;
}

static int hear(void *context, const struct news *news)
{
	struct tester *tester = context;

	tester->course->last = *news;
	note(tester->course, tester->letter);
	return tester->reason ? fail(-tester->answer, "%s", tester->reason) : tester->answer;
}

static int begin(void *course)
{
	return note(course, 'b');
}

static void undo(void *course)
{
	note(course, 'B');
}

static int send(void *context)
{
	struct course *course = context;

	return moments_send(&course->moments, course->moment, 17);
}

static int end(void *course)
{
	return note(course, 'e');
}

static const struct step steps[] = {
	{ "begin", begin, undo, false },
	{ "tell", send, NULL, false },
	{ "end", end, NULL, true },
};

static int start_clean(void **state unused)
{
	failure_clear();
	unsetenv("CRIU_FAULT");
	log_level = 0;
	return 0;
}

/* Three receivers; the second returns `answer`. */
static void assert_course(enum moment moment, int answer, const char *reason, int result,
			  const char *expected, const char *failure)
{
	struct course course = { .moment = moment };
	struct tester testers[] = { { &course, '1', 0, NULL },
				    { &course, '2', answer, reason },
				    { &course, '3', 0, NULL } };

	failure_clear();
	for (size_t i = 0; i < array_size(testers); i++)
		moments_add(&course.moments, &(struct receiver){ "the second", hear, &testers[i] });
	assert_int_equal(steps_run("test", steps, array_size(steps), &course, NULL), result);
	assert_string_equal(course.text, expected);
	assert_string_equal(failure_text(), failure);
	assert_int_equal(course.last.moment, moment);
	assert_int_equal(course.last.root, 17);
	moments_free(&course.moments);
}

static void order_and_veto(void **state unused)
{
	assert_course(MOMENT_PRE_DUMP, 0, NULL, 0, "b123e", "");
	/* The step fails: no later receiver is called, no later step runs, and the earlier steps are undone. */
	assert_course(MOMENT_PRE_DUMP, -EPERM, "not now", -EPERM, "b12B", "not now: Operation not permitted");
	assert_course(MOMENT_POST_DUMP, -EINVAL, "never", -EINVAL, "b12B", "never");
	assert_course(MOMENT_PRE_RESUME, -EBUSY, NULL, -EBUSY, "b12B",
		      "the second failed at pre-resume: Device or resource busy");
	assert_course(MOMENT_POST_RESTORE, 5, NULL, -EINVAL, "b12B", "the second at post-restore returned 5");
}

/* All receivers are called, and the failure does not fail the journey. */
static void too_late(void **state unused)
{
	assert_course(MOMENT_POST_RESUME, -EPERM, "not now", 0, "b123e", "");
	assert_course(MOMENT_POST_RESUME, -EPERM, NULL, 0, "b123e", "");
}

static void names(void **state unused)
{
	static const char *const expected[] = { "pre-dump",	"post-dump",  "pre-restore",
						"post-restore", "pre-resume", "post-resume" };
	struct course course = { .moment = 0 };
	struct tester tester = { .course = &course, .letter = '1' };

	assert_int_equal(array_size(expected), MOMENTS);
	moments_add(&course.moments, &(struct receiver){ "it", hear, &tester });
	for (enum moment moment = 0; moment < MOMENTS; moment++) {
		assert_int_equal(moments_send(&course.moments, moment, 0), 0);
		assert_string_equal(course.last.name, expected[moment]);
		assert_int_equal(course.last.root, 0);
	}
	moments_free(&course.moments);
	assert_int_equal(moments_send(&course.moments, MOMENT_PRE_DUMP, 1), 0); /* there is no receiver */
}

/* --- Action scripts ---------------------------------------------------------------------------------------------- */

static void write_script(const char *path, const char *body)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	fprintf(file, "#!/bin/sh\n%s\n", body);
	fclose(file);
	assert_int_equal(chmod(path, 0700), 0);
}

static void scripts_say_no(void **state unused)
{
	char directory[] = "/tmp/moments-test.XXXXXX";
	autofree char *first = NULL, *second = NULL, *said = NULL;
	struct scripts scripts;
	struct moments moments = { 0 };

	assert_non_null(mkdtemp(directory));
	first = format_text("%s/first", directory);
	second = format_text("%s/second", directory);
	write_script(first, "echo \"$CRTOOLS_SCRIPT_ACTION ${CRTOOLS_INIT_PID-none}\" >> said\n"
			    "[ $CRTOOLS_SCRIPT_ACTION != post-dump ] || exit 3");
	write_script(second, "test -f \"$CRTOOLS_IMAGE_DIR/first\" && echo second >> said");
	scripts = (struct scripts){
		.paths = { (const char *[]){ first, second }, 2 },
		.images = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
		.work = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
	};
	descriptors_unlimit(&scripts.descriptors);
	moments_add(&moments, &(struct receiver){ "the action scripts", scripts_receive, &scripts });
	assert_int_equal(moments_send(&moments, MOMENT_PRE_RESTORE, 0), 0);
	assert_int_equal(moments_send(&moments, MOMENT_POST_DUMP, 17), -EINVAL);
	assert_non_null(strstr(failure_text(), "/first ended with status 3 at post-dump"));
	assert_true(read_text_at(scripts.work, "said", &said) > 0);
	assert_string_equal(said, "pre-restore none\nsecond\npost-dump 17\n");
	moments_free(&moments);
	unlinkat(scripts.work, "first", 0);
	unlinkat(scripts.work, "second", 0);
	unlinkat(scripts.work, "said", 0);
	close(scripts.images);
	close(scripts.work);
	assert_int_equal(rmdir(directory), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(order_and_veto, start_clean),
		cmocka_unit_test_setup(too_late, start_clean),
		cmocka_unit_test_setup(names, start_clean),
		cmocka_unit_test_setup(scripts_say_no, start_clean),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
