/*
 * pipe_content_test.c - pipes-data.img, in a store in memory: valid entries are loaded, and every invalid one is an
 * error that names the image.
 */
#include "unit.h"
#include <string.h>
#include "base/error.h"
#include "base/log.h"
#include "files/kinds/pipe_content.h"

static struct image_store *store;
static struct held_pipes pipes;

static int begin(void **state unused)
{
	failure_clear();
	log_level = 0;
	return image_store_open_memory(&store);
}

static int end(void **state unused)
{
	held_pipes_close(&pipes);
	image_store_close(store);
	return 0;
}

static PipeDataEntry possible(uint32_t id)
{
	PipeDataEntry entry = PIPE_DATA_ENTRY__INIT;

	entry.pipe_id = id;
	entry.bytes = 5;
	entry.has_uid = entry.has_gid = entry.has_mode = true;
	entry.uid = 1234;
	entry.gid = 4321;
	entry.mode = 04640;
	return entry;
}

static int load(const PipeDataEntry *entries, size_t count)
{
	struct image *image;

	assert_int_equal(image_create(store, &image, IMAGE_PIPES_DATA, 0), 0);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(image_write(image, &entries[i].base), 0);
		assert_int_equal(image_write_bytes(image, "bytes", 5), 0);
	}
	assert_int_equal(image_close(image), 0);
	return held_pipes_load(store, IMAGE_PIPES_DATA, &pipes);
}

static void is_refused(const PipeDataEntry *entries, size_t count, const char *word)
{
	char text[1000];

	assert_true(load(entries, count) < 0);
	failure_report(text, sizeof(text), NULL, NULL);
	assert_non_null(strstr(text, "pipes-data.img"));
	assert_non_null(strstr(text, word));
	held_pipes_close(&pipes);
	failure_clear();
}

static void loaded(void **state unused)
{
	PipeDataEntry entries[] = { possible(1), possible(2) };
	uint32_t packets[] = { 2, 3 };
	const struct held_pipe *pipe;

	entries[0].packets = packets;
	entries[0].n_packets = 2;
	entries[1].has_uid = entries[1].has_gid = entries[1].has_mode = false; /* as criu 4.2.1 */
	assert_int_equal(load(entries, array_size(entries)), 0);
	pipe = held_pipe_find(&pipes, 1);
	assert_memory_equal(pipe->content, "bytes", 5);
	assert_int_equal(pipe->packet_count, 2);
	assert_int_equal(pipe->packets[1], 3);
	assert_int_equal(pipe->record->uid, 1234);
	assert_int_equal(pipe->record->mode, 04640);
	assert_false(held_pipe_find(&pipes, 2)->record->has_uid);
	assert_null(held_pipe_find(&pipes, 3)->record);
}

static void forged(void **state unused)
{
	InodeTimesEntry late = INODE_TIMES_ENTRY__INIT;
	PipeDataEntry entry, twice[] = { possible(1), possible(1) };
	uint32_t packets[] = { 2, 4 };

	late.accessed_ns = 1000000000;
#define refused(field, value, word)          \
	do {                                 \
		entry = possible(1);         \
		entry.field = value;         \
		is_refused(&entry, 1, word); \
	} while (0)
	refused(uid, UINT32_MAX, "owner");
	refused(gid, UINT32_MAX, "owner");
	refused(has_gid, false, "owner");
	refused(mode, 0100640, "mode");
	refused(times, &late, "time");
	refused(bytes, UINT32_MAX, "torn");
	entry = possible(1);
	entry.packets = packets;
	entry.n_packets = 2;
	is_refused(&entry, 1, "packets");
	is_refused(twice, 2, "twice");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(loaded, begin, end),
		cmocka_unit_test_setup_teardown(forged, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
