/*
 * watched_test.c - what fdinfo tells of a watched inode, and events of an image that may be forged.
 */
#include "unit.h"
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>
#include "base/memory.h"
#include "files/kinds/inotify.h"
#include "files/watched.h"
#include "image/image.h"

static void fdinfo_tells_device_inode_and_handle(void **state unused)
{
	struct watched watched = { 0 };

	assert_true(
		watched_parse(
			"2 ino:a72352 sdev:fe00000 mask:100 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 "
			"f_handle:5223a700520d5956",
			&watched) == 0);
	assert_true(watched.inode == 0xa72352 && watched.device == 0xfe00000);
	assert_true(watched.handle->bytes == 8 && watched.handle->type == 1);
	assert_true(watched.handle->handle[0] == 0x56590d5200a72352ULL);
	assert_true(!watched_why_invalid(NULL, watched.handle));
	image_free(watched.handle);
}

static int parse(const char *text)
{
	struct watched watched = { 0 };
	int result = watched_parse(text, &watched);

	image_free(watched.handle);
	return result;
}

static void a_file_system_may_have_no_handles(void **state unused)
{
	assert_true(parse("1 ino:1 sdev:14 mask:100 ignored_mask:0 ") == 0);
}

static void a_strange_fdinfo_is_an_error(void **state unused)
{
	assert_true(parse("1 sdev:14 mask:100") < 0);
	assert_true(parse("1 ino:1 sdev:14 fhandle-bytes:81 fhandle-type:1 f_handle:00") < 0);
	assert_true(parse("1 ino:1 sdev:14 fhandle-bytes:8 fhandle-type:1 f_handle:0011") < 0);
	assert_true(parse("1 ino:1 sdev:14 fhandle-bytes:8") < 0);
}

static void handles_of_an_image_are_checked(void **state unused)
{
	uint64_t words[16] = { 0 };
	FhEntry entry = FH_ENTRY__INIT;

	entry.handle = words;
	assert_true(watched_why_invalid(NULL, &entry)); /* neither a handle nor a path */
	entry.path = "etc";
	assert_true(watched_why_invalid(NULL, &entry));
	entry.path = "/etc";
	assert_true(!watched_why_invalid(NULL, &entry));
	entry.bytes = 9;
	entry.n_handle = 1;
	assert_true(watched_why_invalid(NULL, &entry));
	entry.n_handle = 2;
	assert_true(!watched_why_invalid(NULL, &entry));
	entry.bytes = UINT32_MAX;
	assert_true(watched_why_invalid(NULL, &entry));
}

static const char *why(const char *name, size_t length, size_t size)
{
	char bytes[256] = "";
	struct inotify_event event = { .wd = 1, .mask = IN_CREATE, .len = length };

	memcpy(bytes, &event, sizeof(event));
	memcpy(bytes + sizeof(event), name, strlen(name));
	return events_why_invalid(&(struct events){ bytes, size });
}

static void events_of_an_image_are_checked(void **state unused)
{
	const size_t size = sizeof(struct inotify_event);

	assert_true(!events_why_invalid(&(struct events){ 0 }));
	assert_true(!why("", 0, size));
	assert_true(!why("name", 16, size + 16));
	assert_true(why("name", 16, size + 15));
	assert_true(why("name", 16, size - 1));
	assert_true(why("name", 15, size + 15));
	assert_true(why("", 16, size + 16));
	assert_true(why("a/b", 16, size + 16));
	assert_true(why("..", 16, size + 16));
	assert_true(why("0123456789abcdef", 16, size + 16)); /* not terminated */
	assert_true(why("name", UINT32_MAX - 15, size + 16));
}

static void events_are_taken_and_put_back(void **state unused)
{
	static const char name[16] = "name";
	int inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	struct inotify_event event = { .wd = 7, .mask = IN_CREATE, .len = sizeof(name) };
	struct events put = { allocate(sizeof(event) + sizeof(name)), sizeof(event) + sizeof(name) };
	struct events taken = { 0 };
	struct inotify_event found;

	memcpy(put.bytes, &event, sizeof(event));
	memcpy(put.bytes + sizeof(event), name, sizeof(name));
	assert_true(inotify >= 0);
	assert_true(events_put(inotify, &put) == 0);
	/* Without privileges there is only IN_Q_OVERFLOW. */
	if (events_take(inotify, put.size, &taken) == 0 && taken.size == put.size)
		assert_true(!memcmp(taken.bytes, put.bytes, put.size));
	memcpy(&found, taken.bytes, sizeof(found));
	assert_true(found.mask == IN_CREATE || found.mask == IN_Q_OVERFLOW);
	close(inotify);
	free(put.bytes);
	free(taken.bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fdinfo_tells_device_inode_and_handle),
		cmocka_unit_test(a_file_system_may_have_no_handles),
		cmocka_unit_test(a_strange_fdinfo_is_an_error),
		cmocka_unit_test(handles_of_an_image_are_checked),
		cmocka_unit_test(events_of_an_image_are_checked),
		cmocka_unit_test(events_are_taken_and_put_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
