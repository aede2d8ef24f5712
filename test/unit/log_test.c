/*
 * log_test.c - the form of the log's lines, in a file and on stderr: programs look for `Error` and `Warn` in it.
 */
#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"

#define TIME  "^\\([0-9]{2}\\.[0-9]{6}\\) "
#define HERE  " \\(test/unit/log_test\\.c:[0-9]+\\): "
#define ERROR "Error" HERE
#define WARN  "Warn " HERE

static char directory[] = "/tmp/log_test.XXXXXX";

static void write_all_levels(void)
{
	log_error("an error");
	log_warning("a warning");
	log_info("information");
	log_debug("everything");
}

static void fail_once(void)
{
	fail(ENOENT, "cannot open %s", "it");
}

static void fail_twice(void)
{
	fail_once();
	fail(0, "another");
}

static void refuse_two(void)
{
	refuse("file 3: a kvm");
	refuse("file %d: a dri", 4);
}

static void fail_in_places(void)
{
	fail_in(fail(ENOENT, "cannot open %s", "it"), "process 5");
	failure_log();
	failure_log();
}

static void fail_before_the_log(void)
{
	failure_log();
}

static void name_with_controls(void)
{
	fail(0, "process 5 (%s)", "a\033[31m\nError (x.c:1): b");
}

/* What is written at which level, and a pattern for each line, with NULL at the end. */
struct expectation {
	void (*act)(void);
	int level;
	const char *lines[8];
};

static void compare(const struct expectation *expected, char *text)
{
	size_t line = 0;

	for (char *at; (at = strsep(&text, "\n")) && *at; line++) {
		regex_t pattern;

		if (!expected->lines[line])
			fail_msg("level %d: an unexpected line: %s", expected->level, at);
		assert_int_equal(regcomp(&pattern, expected->lines[line], REG_EXTENDED | REG_NOSUB), 0);
		if (regexec(&pattern, at, 0, NULL, 0))
			fail_msg("level %d: %s\n  is not  %s", expected->level, at, expected->lines[line]);
		regfree(&pattern);
	}
	if (expected->lines[line])
		fail_msg("level %d: there is no line  %s", expected->level, expected->lines[line]);
}

static void in_a_file(void **state unused)
{
	static const struct expectation expected[] = {
		{ write_all_levels, 0, { NULL } },
		{ write_all_levels, 1, { TIME ERROR "an error$" } },
		{ write_all_levels, 2, { TIME ERROR "an error$", TIME WARN "a warning$" } },
		{ write_all_levels,
		  3,
		  { TIME ERROR "an error$", TIME WARN "a warning$", TIME "information$" } },
		{ write_all_levels,
		  4,
		  { TIME ERROR "an error$", TIME WARN "a warning$", TIME "information$",
		    TIME "everything$" } },
		{ fail_once, 0, { NULL } },
		{ fail_once, 1, { TIME ERROR "cannot open it: No such file or directory$" } },
		{ fail_twice, 1, { TIME ERROR "cannot open it: No such", TIME ERROR "another$" } },
		{ name_with_controls, 1, { TIME ERROR "process 5 \\(a\\?\\[31m Error \\(x.c:1\\): b\\)$" } },
		{ refuse_two, 1, { TIME ERROR "file 3: a kvm$", TIME ERROR "file 4: a dri$" } },
		{ fail_in_places,
		  1,
		  { TIME ERROR "cannot open it: No such", TIME ERROR "process 5: cannot open it: No such" } },
	};
	autofree char *path = format_text("%s/log", directory);

	for (size_t i = 0; i < array_size(expected); i++) {
		autofree char *text = NULL;

		failure_clear();
		log_level = expected[i].level;
		assert_int_equal(log_open(AT_FDCWD, path), 0);
		assert_true(log_is_file());
		expected[i].act();
		log_close();
		assert_true(read_text_at(AT_FDCWD, path, &text) >= 0);
		compare(&expected[i], text);
	}
}

/*
 * The report goes to stderr, too, so failures are not written twice. Lines that the report lacks are written at once.
 */
static void on_stderr(void **state unused)
{
	static const struct expectation expected[] = {
		{ write_all_levels, 1, { "^" ERROR "an error$" } },
		{ write_all_levels, 2, { "^" ERROR "an error$", "^" WARN "a warning$" } },
		{ write_all_levels,
		  3,
		  { TIME ERROR "an error$", TIME WARN "a warning$", TIME "information$" } },
		{ fail_once, 2, { NULL } },
		{ fail_once, 3, { TIME ERROR "cannot open it: No such" } },
		{ fail_twice, 2, { "^" ERROR "another$" } },
		{ refuse_two, 2, { NULL } },
		{ refuse_two, 3, { TIME ERROR "file 3: a kvm$", TIME ERROR "file 4: a dri$" } },
		{ fail_in_places, 2, { NULL } },
	};
	autofree char *path = format_text("%s/stderr", directory);
	int terminal = dup(STDERR_FILENO);

	for (size_t i = 0; i < array_size(expected); i++) {
		autoclose int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		autofree char *text = NULL;

		failure_clear();
		log_level = expected[i].level;
		assert_int_equal(log_open(AT_FDCWD, NULL), 0);
		assert_false(log_is_file());
		dup2(file, STDERR_FILENO);
		expected[i].act();
		dup2(terminal, STDERR_FILENO);
		assert_true(read_text_at(AT_FDCWD, path, &text) >= 0);
		compare(&expected[i], text);
	}
	close(terminal);
}

/* An option is refused before the log is open: when the log is opened later, the failure is written to it, once. */
static void failure_older_than_the_log(void **state unused)
{
	static const struct expectation expected = {
		fail_before_the_log, 1, { TIME ERROR "log: cannot open it: No such file or directory$" }
	};
	autofree char *path = format_text("%s/log", directory), *text = NULL;

	failure_clear();
	log_level = 0;
	fail_in(fail(ENOENT, "cannot open it"), "log");
	log_level = 1;
	failure_log(); /* not to stderr */
	assert_int_equal(log_open(AT_FDCWD, path), 0);
	failure_log();
	failure_log();
	log_close();
	assert_true(read_text_at(AT_FDCWD, path, &text) >= 0);
	compare(&expected, text);
}

/* If a log cannot be opened, the current one stays. */
static void no_log(void **state unused)
{
	autofree char *path = format_text("%s/missing/log", directory);

	failure_clear();
	log_level = 0;
	assert_int_equal(log_open(AT_FDCWD, NULL), 0);
	assert_int_equal(log_open(AT_FDCWD, path), -ENOENT);
	assert_false(log_is_file());
	assert_int_equal(log_descriptor(), STDERR_FILENO);
}

static void long_lines(void **state unused)
{
	autofree char *path = format_text("%s/log", directory), *text = NULL;
	char words[8192];

	memset(words, 'x', sizeof(words) - 1);
	words[sizeof(words) - 1] = '\0';
	failure_clear();
	log_level = 1;
	assert_int_equal(log_open(AT_FDCWD, path), 0);
	log_error("%s", words);
	log_error("next");
	log_close();
	assert_true(read_text_at(AT_FDCWD, path, &text) > 4000);
	assert_non_null(strstr(text, "xx\n(00."));
}

static int make_directory(void **state unused)
{
	return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state unused)
{
	autofree char *log = format_text("%s/log", directory), *other = format_text("%s/stderr", directory);

	unlink(log);
	unlink(other);
	return rmdir(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_a_file),
		cmocka_unit_test(on_stderr),
		cmocka_unit_test(failure_older_than_the_log),
		cmocka_unit_test(no_log),
		cmocka_unit_test(long_lines),
	};

	error_init();
	return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
