/*
 * ghost_test.c - names that exist for a moment (passing_name.h), in a temporary directory, and the paths of deleted files.
 *
 * Needs no privileges.
 */
#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/io.h"
#include "base/memory.h"
#include "files/ghost.h"
#include "files/passing_name.h"

static char directory[] = "/tmp/criu-ghost-test-XXXXXX";
static int made; /* how often make() was called */

static int begin(void **state unused)
{
	strcpy(strrchr(directory, '-') + 1, "XXXXXX");
	made = 0;
	return mkdtemp(directory) ? 0 : -1;
}

/* Fails if a test has left anything that it has not removed itself. */
static int end(void **state unused)
{
	return rmdir(directory);
}

static int make(int parent, const char *name, const void *argument)
{
	made++;
	return mknodat(parent, name, *(const mode_t *)argument, 0);
}

static int make_directory(int parent, const char *name, const void *argument unused)
{
	made++;
	return mkdirat(parent, name, 0700);
}

/* Takes over the descriptor. It has the path that /proc shows for it, and no name. */
static void assert_link(int fd, const char *expected)
{
	autofree char *path = format_text("/proc/self/fd/%d", fd), *link = NULL;
	struct stat found;

	assert_true(fd >= 0);
	assert_true(read_link_at(AT_FDCWD, path, &link) > 0);
	assert_string_equal(link, expected);
	assert_int_equal(fstat(fd, &found), 0);
	assert_int_equal(found.st_nlink, 0);
	close(fd);
}

static int pass(const char *path, mode_t mode)
{
	return passing_name(path, make, &mode);
}

static void test_free_name(void **state unused)
{
	autofree char *path = format_text("%s/name", directory), *link = format_text("%s (deleted)", path);

	assert_link(pass(path, S_IFREG | 0600), link);
	assert_link(pass(path, S_IFIFO | 0600), link);
	assert_link(passing_name(path, make_directory, NULL), link);
	assert_int_equal(made, 3);
}

static void test_name_in_use(void **state unused)
{
	autofree char *path = format_text("%s/name", directory), *link = NULL, *proc = NULL, *shown = NULL;
	int fd, other = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	struct stat before, after;

	assert_int_equal(fstat(other, &before), 0);
	fd = pass(path, S_IFREG | 0600);
	proc = format_text("/proc/self/fd/%d", fd);
	assert_true(read_link_at(AT_FDCWD, proc, &link) > 0);
	assert_int_equal(strncmp(link, path, strlen(path)), 0);
	shown = nameless_path(link);
	assert_string_equal(shown, path); /* a further dump sees the name that it had at first */
	assert_int_equal(stat(path, &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	assert_int_equal(unlink(path), 0);
	close(fd);
	close(other);
}

static void test_missing_directories(void **state unused)
{
	autofree char *path = format_text("%s/a/b/c/name", directory),
		      *link = format_text("%s (deleted)", path);

	assert_link(pass(path, S_IFREG | 0600), link);
	assert_int_equal(passing_name_check(path), 0);
}

/* A directory has become a file: the nearest directory gets the name. */
static void test_no_directory(void **state unused)
{
	autofree char *file = format_text("%s/a", directory), *path = format_text("%s/b/name", file),
		      *link = format_text("%s/name (deleted)", directory);
	int fd = open(file, O_RDWR | O_CREAT, 0600);

	assert_link(pass(path, S_IFREG | 0600), link);
	assert_int_equal(unlink(file), 0);
	close(fd);
}

static int fail_to_make(int parent unused, const char *name unused, const void *argument unused)
{
	errno = ENOSPC;
	return -1;
}

static void test_failure(void **state unused)
{
	autofree char *path = format_text("%s/a/b/name", directory), *longer = NULL;
	char name[NAME_MAX + 2];
	mode_t mode = S_IFREG | 0600;
	int fd;

	assert_int_equal(passing_name(path, fail_to_make, NULL), -ENOSPC);
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	longer = format_text("%s/%s", directory, name);
	fd = passing_name(longer, make, &mode); /* such a name cannot be made: a shorter one can */
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(passing_name("/", make, &mode), -EINVAL);
}

static void test_paths(void **state unused)
{
	static const char *const paths[][2] = {
		{ "/a/b (deleted)", "/a/b" },
		{ "/a/b", "/a/b" },
		{ "/a (deleted) (deleted)", "/a (deleted)" },
		{ " (deleted)", " (deleted)" },
		{ "/a/b.criu-0123abcd (deleted)", "/a/b" },
		{ "/a/b.criu-0123abcg (deleted)", "/a/b.criu-0123abcg" },
		{ "/a/.criu-0123abcd (deleted)", "/a/.criu-0123abcd" },
	};

	for (size_t i = 0; i < array_size(paths); i++) {
		autofree char *path = nameless_path(paths[i][0]);

		assert_string_equal(path, paths[i][1]);
	}
}

static void test_types(void **state unused)
{
	assert_true(ghost_is_possible(S_IFREG | 0600, 0));
	assert_true(ghost_is_possible(S_IFDIR, 0));
	assert_true(ghost_is_possible(S_IFLNK, 0));
	assert_true(ghost_is_possible(S_IFIFO, 0));
	assert_true(ghost_is_possible(S_IFCHR, 0x103));
	assert_false(ghost_is_possible(S_IFCHR, 0x101));
	assert_false(ghost_is_possible(S_IFBLK, 0x103));
	assert_false(ghost_is_possible(S_IFSOCK, 0));
	assert_false(ghost_is_possible(0, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_free_name, begin, end),
		cmocka_unit_test_setup_teardown(test_name_in_use, begin, end),
		cmocka_unit_test_setup_teardown(test_missing_directories, begin, end),
		cmocka_unit_test_setup_teardown(test_no_directory, begin, end),
		cmocka_unit_test_setup_teardown(test_failure, begin, end),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_types),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
