/*
 * external_test.c - the table of resources outside of the tree: options, keys, questions, and what a warning names.
 */
#include "unit.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/external.h"

static struct externals externals;
static int open_fd;

static int begin(void **state unused)
{
	failure_clear();
	log_level = 0;
	open_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	return open_fd < 0;
}

static int end(void **state unused)
{
	externals_free(&externals);
	return close(open_fd);
}

static int add(enum external_option option, const char *format)
{
	autofree char *text = format_text(format, open_fd);

	return externals_add(&externals, option, text);
}

static struct external *find(enum external_option option, const char *text)
{
	struct external_key key;

	assert_true(external_key_parse(text, &key));
	return externals_find(&externals, option, &key);
}

/* Each key has many spellings, and is written in one way. */
static void keys(void **state unused)
{
	static const char *const good[][2] = {
		{ "file[1b:a7]", "file[1b:a7]" },
		{ "file[01B:0xA7]", "file[1b:a7]" },
		{ "tty[8803:1a]", "tty[8803:1a]" },
		{ "pipe:[4711]", "pipe:[4711]" },
		{ "pipe[4711]", "pipe:[4711]" },
		{ "socket:[4711]", "socket:[4711]" },
		{ "socket[4711]", "socket:[4711]" },
		{ "unix[4711]", "unix[4711]" },
		{ "/var/log/a", "/var/log/a" },
		{ "var/log/a", "/var/log/a" },
		{ "//a[1]", "/a[1]" },
		{ "tmp/a[1]", "/tmp/a[1]" },
		{ "file[ffffffffffffffff:0]", "file[ffffffffffffffff:0]" },
	};
	static const char *const bad[] = {
		"",	     "/",	   "file[]",
		"file[1]",   "file[1:]",   "file[:1]",
		"file[1:2",  "file[1:2]x", "file[1:2]:x",
		"file[g:1]", "tty[ 1:2]",  "tty[-1:2]",
		"pipe:[]",   "pipe:[a]",   "pipe:[1",
		"pipe:[1]x", "pipe[1:2]",  "unix[1a]",
		"unix:[1]",  "socket:[]",  "file[1ffffffffffffffff:0]",
		"/memfd:x",  "memfd:x",	   "net[]",
		"bla[1]",
	};
	struct external_key key;

	for (size_t i = 0; i < array_size(good); i++) {
		autofree char *text = NULL;

		assert_true(external_key_parse(good[i][0], &key));
		text = external_key_text(&key);
		assert_string_equal(text, good[i][1]);
	}
	for (size_t i = 0; i < array_size(bad); i++)
		if (external_key_parse(bad[i], &key))
			fail_msg("'%s' is taken for a key", bad[i]);
}

static void is_refused(enum external_option option, const char *format, const char *words)
{
	char text[1000];

	assert_true(add(option, format) < 0);
	failure_report(text, sizeof(text), NULL, NULL);
	if (!strstr(text, words))
		fail_msg("%s: %s", format, text);
	failure_clear();
}

static void bad_options(void **state unused)
{
	is_refused(EXTERNAL_SAVED, "unix[x]", "--external unix[x]: 'unix[x]' is not the name of a resource");
	is_refused(EXTERNAL_SAVED, "socket:[5]", "'socket:[5]' is not the name of a resource");
	is_refused(EXTERNAL_INHERITED, "fd[%d]:unix[5]", "'unix[5]' is not the name of a resource");
	is_refused(EXTERNAL_SAVED, "mnt[/a]:b", "a resource of type mnt is not supported yet");
	is_refused(EXTERNAL_SAVED, "mnt[]", "a resource of type mnt is not supported yet");
	is_refused(EXTERNAL_SAVED, "dev[1/2]:x", "a resource of type dev is not supported yet");
	is_refused(EXTERNAL_SAVED, "bla[5]", "'bla[5]' is not the name of a resource");
	is_refused(EXTERNAL_SAVED, "pipe:[5]", "'pipe:[5]' is not the name of a resource");
	is_refused(EXTERNAL_SAVED, "/tmp/a", "'/tmp/a' is not the name of a resource");
	is_refused(EXTERNAL_SAVED, "", "'' is not the name of a resource");
	is_refused(EXTERNAL_INHERITED, "fd[%d]:", "'' is not the name of a resource");
	is_refused(EXTERNAL_INHERITED, "fd[%d]:/memfd:a", "a memfd is not supported yet");
	is_refused(EXTERNAL_INHERITED, "fd[%d]", "does not begin with fd[N]:");
	is_refused(EXTERNAL_INHERITED, "fd[]:/a", "does not begin with fd[N]:");
	is_refused(EXTERNAL_INHERITED, "fd[-1]:/a", "does not begin with fd[N]:");
	is_refused(EXTERNAL_INHERITED, "fd[a]:/a", "does not begin with fd[N]:");
	is_refused(EXTERNAL_INHERITED, "fd[99999999999]:/a", "descriptor 99999999999 is not open");
	is_refused(EXTERNAL_INHERITED, "fd[1000]:/a",
		   "--inherit-fd fd[1000]:/a: descriptor 1000 is not open");
	is_refused(EXTERNAL_INHERITED, "/a", "does not begin with fd[N]:");
	assert_int_equal(externals.count, 0);
}

static void twice(void **state unused)
{
	assert_int_equal(add(EXTERNAL_SAVED, "file[1:2]"), 0);
	assert_int_equal(add(EXTERNAL_SAVED, "file[01:02]"),
			 0); /* a configuration file, and the command line */
	assert_int_equal(externals.count, 1);
	assert_int_equal(add(EXTERNAL_INHERITED, "fd[%d]:pipe:[5]"), 0);
	is_refused(EXTERNAL_INHERITED, "fd[%d]:pipe[5]", "this resource was already given by fd[");
	assert_int_equal(add(EXTERNAL_INHERITED, "fd[%d]:pipe:[6]"), 0);
	assert_int_equal(externals.count, 3);
}

static void questions(void **state unused)
{
	struct external *found;

	assert_int_equal(add(EXTERNAL_SAVED, "file[1b:2]"), 0);
	assert_int_equal(add(EXTERNAL_SAVED, "tty[1b:2]"), 0);
	assert_int_equal(add(EXTERNAL_INHERITED, "fd[%d]:file[1b:2]"), 0);
	assert_int_equal(add(EXTERNAL_INHERITED, "fd[%d]:/b"), 0);
	found = find(EXTERNAL_SAVED, "file[1B:2]");
	assert_ptr_equal(found, externals.items[0]);
	assert_true(found->is_used);
	assert_int_equal(found->fd, -1);
	assert_false(externals.items[1]->is_used);
	assert_ptr_equal(find(EXTERNAL_INHERITED, "file[1b:2]"), externals.items[2]);
	assert_int_equal(externals.items[2]->fd, open_fd);
	assert_ptr_equal(find(EXTERNAL_INHERITED, "b"), externals.items[3]);
	assert_null(find(EXTERNAL_INHERITED, "tty[1b:2]"));
	assert_null(find(EXTERNAL_SAVED, "file[2:1b]"));
	assert_null(find(EXTERNAL_INHERITED, "/bb"));
	assert_null(externals_find(NULL, EXTERNAL_SAVED, &found->key));
}

/* Many entries, with keys that are close to each other. */
static void many(void **state unused)
{
	for (unsigned i = 0; i < 5000; i++) {
		autofree char *text = format_text("file[%x:%x]", i % 50, i / 50);

		assert_int_equal(externals_add(&externals, EXTERNAL_SAVED, text), 0);
	}
	for (unsigned i = 0; i < 5000; i++) {
		autofree char *text = format_text("file[%x:%x]", i % 50, i / 50);

		assert_ptr_equal(find(EXTERNAL_SAVED, text), externals.items[i]);
	}
	assert_null(find(EXTERNAL_SAVED, "file[32:0]"));
}

static void nearest_are(size_t entry, const char *expected)
{
	autofree char *text = externals_nearest(&externals, externals.items[entry]);

	if (!expected)
		assert_null(text);
	else
		assert_string_equal(text, expected);
}

static void candidates(void **state unused)
{
	static const char *const asked[] = { "file[1b:77777]", "file[1b:12]",  "file[1b:125]",
					     "file[1b:1234]",  "file[1b:125]", "tty[8801:1a]",
					     "file[1b:999]" };

	assert_int_equal(add(EXTERNAL_SAVED, "file[1b:123]"), 0);
	assert_int_equal(add(EXTERNAL_SAVED, "tty[8803:1a]"), 0);
	assert_int_equal(add(EXTERNAL_INHERITED, "fd[%d]:/b"), 0);
	nearest_are(0, NULL);
	for (size_t i = 0; i < array_size(asked); i++)
		assert_null(find(EXTERNAL_SAVED, asked[i]));
	nearest_are(0, "file[1b:12], file[1b:125], file[1b:1234]");
	nearest_are(1, "tty[8801:1a]");
	nearest_are(2, NULL);
}

static void closed(void **state unused)
{
	int fd = fcntl(open_fd, F_DUPFD_CLOEXEC, 200);
	autofree char *one = format_text("fd[%d]:/a", fd), *other = format_text("fd[%d]:/b", fd);

	assert_int_equal(externals_add(&externals, EXTERNAL_INHERITED, one), 0);
	assert_int_equal(externals_add(&externals, EXTERNAL_INHERITED, other), 0);
	assert_int_equal(externals_add(&externals, EXTERNAL_INHERITED, "fd[1]:/c"), 0);
	externals_close_descriptors(&externals);
	assert_true(fcntl(fd, F_GETFD) < 0);
	assert_true(fcntl(1, F_GETFD) >= 0);
	assert_int_equal(externals.items[0]->fd, -1);
	externals_close_descriptors(NULL);
}

#define test(function) cmocka_unit_test_setup_teardown(function, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(keys), test(bad_options), test(twice),  test(questions),
		test(many), test(candidates),  test(closed),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
