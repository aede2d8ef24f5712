/*
 * terminal_test.c - tty-info.img and tty-data.img, in a store in memory: valid entries are loaded, and every invalid
 * one is an error that names the image.
 */
#include "unit.h"
#include <string.h>
#include "base/error.h"
#include "base/log.h"
#include "files/kinds/terminal.h"

static struct snapshot snapshot;

static int begin(void **state unused)
{
	failure_clear();
	log_level = 0;
	snapshot_init(&snapshot);
	return image_store_open_memory(&snapshot.images);
}

static int end(void **state unused)
{
	struct image_store *images = snapshot.images;

	terminals_close(&snapshot);
	snapshot_free(&snapshot);
	image_store_close(images);
	return 0;
}

static TtyInfoEntry possible(uint32_t id, TtyPtyEntry *pty)
{
	TtyInfoEntry entry = TTY_INFO_ENTRY__INIT;

	entry.id = id;
	entry.type = TTY_TYPE__PTY;
	entry.rdev = id % 2 ? PTMX_DEVICE : makedev(PTS_MAJOR, id / 2);
	pty->index = id / 2;
	entry.pty = pty;
	return entry;
}

static int load(const TtyInfoEntry *entries, size_t count)
{
	struct image *image;

	assert_int_equal(image_create(snapshot.images, &image, IMAGE_TTY_INFO, 0), 0);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(image_write(image, &entries[i].base), 0);
	assert_int_equal(image_close(image), 0);
	return terminals_load(&snapshot);
}

static void is_refused(const TtyInfoEntry *entries, size_t count, const char *word)
{
	char text[1000];

	assert_true(load(entries, count) < 0);
	failure_report(text, sizeof(text), NULL, NULL);
	assert_non_null(strstr(text, "tty-info.img"));
	assert_non_null(strstr(text, word));
}

static void loaded(void **state unused)
{
	TtyPtyEntry pty[] = { TTY_PTY_ENTRY__INIT, TTY_PTY_ENTRY__INIT };
	TtyInfoEntry entries[] = { possible(14, &pty[0]), possible(15, &pty[1]) };
	TtyDataEntry data = TTY_DATA_ENTRY__INIT;
	struct image *image;

	data.tty_id = 14;
	data.data = (ProtobufCBinaryData){ 5, (uint8_t *)"typed" };
	assert_int_equal(image_create(snapshot.images, &image, IMAGE_TTY_DATA, 0), 0);
	assert_int_equal(image_write(image, &data.base), 0);
	assert_int_equal(image_close(image), 0);
	assert_int_equal(load(entries, 2), 0);
	assert_int_equal(terminal_find(&snapshot, 14)->pty->index, 7);
	assert_ptr_equal(terminal_find_master(&snapshot, 7), terminal_find(&snapshot, 15));
	assert_null(terminal_find_master(&snapshot, 8));
	assert_null(terminal_find(&snapshot, 7));
	assert_int_equal(terminals_of(&snapshot)->data_count, 1);
	assert_int_equal(file_kind_terminal.keeps(&snapshot), 5);
}

/* Without terminals the image may be missing. */
static void none(void **state unused)
{
	assert_int_equal(terminals_load(&snapshot), 0);
	assert_int_equal(file_kind_terminal.keeps(&snapshot), 0);
}

static void twice(void **state unused)
{
	TtyPtyEntry pty = TTY_PTY_ENTRY__INIT;
	TtyInfoEntry entries[] = { possible(14, &pty), possible(14, &pty) };

	is_refused(entries, 2, "twice");
}

static void without_number(void **state unused)
{
	TtyPtyEntry pty = TTY_PTY_ENTRY__INIT;
	TtyInfoEntry entry = possible(14, &pty);

	entry.pty = NULL;
	is_refused(&entry, 1, "number");
}

static void impossible_number(void **state unused)
{
	TtyPtyEntry pty = TTY_PTY_ENTRY__INIT;
	TtyInfoEntry entry = possible(14, &pty);

	pty.index = MOST_TERMINALS;
	is_refused(&entry, 1, "number");
}

/* Only one of the same devpts is the master of a slave. */
static void other_devpts(void **state unused)
{
	TtyPtyEntry pty[] = { TTY_PTY_ENTRY__INIT, TTY_PTY_ENTRY__INIT, TTY_PTY_ENTRY__INIT };
	TtyInfoEntry entries[] = { possible(14, &pty[0]), possible(15, &pty[1]), possible(14, &pty[2]) };
	TermiosEntry termios = TERMIOS_ENTRY__INIT;

	entries[2].id = 16;
	for (int i = 0; i < 3; i++) {
		entries[i].termios = &termios; /* without settings it would be one that was hung up */
		entries[i].has_dev = true;
		entries[i].dev = i == 2 ? 24 : 25;
	}
	entries[1].has_devpts = true;
	entries[1].devpts = 25;
	assert_int_equal(load(entries, 3), 0);
	assert_ptr_equal(terminal_master_of(&snapshot, terminal_find(&snapshot, 14)),
			 terminal_find(&snapshot, 15));
	assert_null(terminal_master_of(&snapshot, terminal_find(&snapshot, 16)));
}

static void hung_up(void **state unused)
{
	TtyPtyEntry pty = TTY_PTY_ENTRY__INIT;
	TtyInfoEntry entry = possible(14, &pty);

	assert_int_equal(load(&entry, 1), 0);
	assert_true(terminal_find(&snapshot, 14)->hung_up);
}

/* An end of file is in the data, and they come in order. */
static void wrong_ends(void **state unused)
{
	uint32_t ends[] = { 3, 2 };
	TtyDataEntry data = TTY_DATA_ENTRY__INIT;
	struct image *image;
	char text[1000];

	data.tty_id = 14;
	data.data = (ProtobufCBinaryData){ 5, (uint8_t *)"typed" };
	data.ends = ends;
	data.n_ends = 2;
	assert_int_equal(image_create(snapshot.images, &image, IMAGE_TTY_DATA, 0), 0);
	assert_int_equal(image_write(image, &data.base), 0);
	assert_int_equal(image_close(image), 0);
	assert_true(load(NULL, 0) < 0);
	failure_report(text, sizeof(text), NULL, NULL);
	assert_non_null(strstr(text, "tty-data.img"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(loaded, begin, end),
		cmocka_unit_test_setup_teardown(none, begin, end),
		cmocka_unit_test_setup_teardown(twice, begin, end),
		cmocka_unit_test_setup_teardown(without_number, begin, end),
		cmocka_unit_test_setup_teardown(impossible_number, begin, end),
		cmocka_unit_test_setup_teardown(other_devpts, begin, end),
		cmocka_unit_test_setup_teardown(hung_up, begin, end),
		cmocka_unit_test_setup_teardown(wrong_ends, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
