/*
 * devices_test.c - which devices are opened again, by their numbers, and what is said of the others.
 */
#include "unit.h"
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>
#include "base/error.h"
#include "base/memory.h"
#include "base/proc_text.h"
#include "files/devices.h"

static struct stat device(mode_t type, unsigned major_number, unsigned minor_number)
{
	return (struct stat){ .st_mode = type | 0600, .st_rdev = makedev(major_number, minor_number) };
}

static void opened_again(void **state unused)
{
	static const struct {
		mode_t type;
		unsigned major, minor;
		bool can_read, can_write;
	} rows[] = {
		{ S_IFCHR, 1, 3, true, true },	     { S_IFCHR, 1, 9, true, true },
		{ S_IFCHR, 1, 11, false, true },     { S_IFCHR, 1, 99, false, false },
		{ S_IFCHR, 4, 1, false, false },     { S_IFCHR, 4000, 0, false, false },
		{ S_IFBLK, 7, 0, true, false },	     { S_IFBLK, 1, 3, true, false },
		{ S_IFCHR, 10, 4000, false, false },
	};

	for (size_t i = 0; i < array_size(rows); i++) {
		struct stat one = device(rows[i].type, rows[i].major, rows[i].minor);

		assert_int_equal(device_can_reopen(&one, O_RDONLY), rows[i].can_read);
		assert_int_equal(device_can_reopen(&one, O_WRONLY | O_APPEND), rows[i].can_write);
		assert_int_equal(device_can_reopen(&one, O_RDWR), rows[i].can_read && rows[i].can_write);
		assert_int_equal(device_can_reopen(&one, O_ACCMODE), rows[i].can_read && rows[i].can_write);
	}
}

static void words(void **state unused)
{
	struct stat log = device(S_IFCHR, 1, 11), disk = device(S_IFBLK, 8, 1),
		    unknown = device(S_IFCHR, 4000, 5);
	autofree char *log_words = device_in_words(&log), *disk_words = device_in_words(&disk),
		      *unknown_words = device_in_words(&unknown);

	assert_string_equal(log_words, "the kernel's log (character device 1:11)");
	assert_string_equal(disk_words, "the block device 8:1");
	assert_string_equal(unknown_words, "the character device 4000:5");
	assert_non_null(strstr(device_remedy(&disk), "does not write"));
	assert_null(device_remedy(&unknown));
}

static void paths(void **state unused)
{
	struct stat null = device(S_IFCHR, 1, 3), unknown = device(S_IFCHR, 4000, 5);
	autofree char *path = device_find_path(&null);

	if (path)
		assert_string_equal(path, "/dev/null");
	assert_null(device_find_path(&unknown));
}

static void dynamic_numbers(void **state unused)
{
	struct stat null = device(S_IFCHR, 1, 3), fuse = device(S_IFCHR, 10, 229),
		    vsock = device(S_IFCHR, 10, 258), rtc = device(S_IFCHR, 250, 0);

	assert_false(device_number_is_dynamic(&null));
	assert_false(device_number_is_dynamic(&fuse));
	assert_true(device_number_is_dynamic(&vsock));
	assert_true(device_number_is_dynamic(&rtc));
}

/* As mountinfo escapes them. */
static void escaped_words(void **state unused)
{
	char line[] = "36 /a\\040b\\012\\134x /plain last", *rest = line;

	assert_string_equal(proc_text_word(&rest), "36");
	assert_string_equal(proc_text_word(&rest), "/a b\n\\x");
	assert_string_equal(proc_text_word(&rest), "/plain");
	assert_string_equal(proc_text_word(&rest), "last");
	assert_null(proc_text_word(&rest));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opened_again),	   cmocka_unit_test(words),	    cmocka_unit_test(paths),
		cmocka_unit_test(dynamic_numbers), cmocka_unit_test(escaped_words),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
