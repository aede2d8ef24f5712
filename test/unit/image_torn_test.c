/*
 * image_torn_test.c - torn or forged images: reading them gives an error that names the file, or ends cleanly.
 */
#include "images.h"
#include "cgroup.pb-c.h"
#include "mm.pb-c.h"
#include "pstree.pb-c.h"

/* The number of whole records with their bytes, or -errno. */
static int count_pipes(struct image_store *store)
{
	PipeDataEntry *entry;
	struct image *image;
	char bytes[6];
	int result = image_open(store, &image, IMAGE_PIPES_DATA, 0), count = 0;

	if (result < 0)
		return result;
	while ((result = image_read_as(image, pipe_data_entry, &entry)) > 0) {
		assert_int_equal(entry->bytes, 6);
		image_free(entry);
		result = image_read_bytes(image, bytes, 6);
		if (result < 0)
			break;
		count++;
	}
	image_close_read(image);
	return result < 0 ? result : count;
}

static void torn_at_every_byte(void **state unused)
{
	struct image_store *store = open_directory(true);
	unsigned char bytes[256];

	a_pipe_image(store);
	size_t size = get_file("pipes-data.img", bytes, sizeof(bytes)), record = (size - 8) / 2;
	assert_int_equal(count_pipes(store), 2);
	for (size_t cut = 0; cut < size; cut++) {
		failure_clear();
		put_file("pipes-data.img", bytes, cut);
		int count = count_pipes(store);

		if (cut >= 8 && (cut - 8) % record == 0) {
			assert_int_equal(count, (cut - 8) / record);
			assert_false(has_failed());
		} else {
			assert_int_equal(count, -EINVAL);
			assert_failure_says("pipes-data.img is torn: ");
		}
	}
	image_store_close(store);
}

static void every_byte_changed(void **state unused)
{
	struct image_store *store = open_directory(true);
	ProtobufCMessage *mm = make_message(&mm_entry__descriptor, 0), *read;
	unsigned char bytes[4096], value;

	assert_int_equal(image_write_single(store, IMAGE_MM, 9, mm), 0);
	size_t size = get_file("mm-9.img", bytes, sizeof(bytes));
	for (size_t i = 0; i < size; i++) {
		value = bytes[i];
		for (unsigned bit = 0; bit < 8; bit++) {
			failure_clear();
			bytes[i] = value ^ 1 << bit;
			put_file("mm-9.img", bytes, size);
			int result = image_read_single(store, IMAGE_MM, 9, &read);

			assert_true(result == 0 || (result == -EINVAL && has_failed()));
			if (result == 0)
				protobuf_c_message_free_unpacked(read, NULL);
		}
		bytes[i] = value;
	}
	failure_clear();
	protobuf_c_message_free_unpacked(mm, NULL);
	image_store_close(store);
}

static void forged_lengths(void **state unused)
{
	/* clang-format off */
	static const struct {
		uint32_t words[4];
		size_t size;
		const char *says;
	} cases[] = {
		{ { 0x54564319, 0x50273030, 0xffffffff, 8 }, 16, "8 has 4294967295 bytes, but only 4 are left" },
		{ { 0x54564319, 0x50273030, 0x80000000 },    12, "8 has 2147483648 bytes, but only 0" },
		{ { 0x54564319, 0x50273030, 5, 8 },          16, "8 has 5 bytes, but only 4 are left" },
		{ { 0x54564319, 0x50273030, 4, 0xffffffff }, 16, "at offset 8 is not a valid pstree_entry" },
		{ { 0x54564319, 0x50273030, 0 },             12, "at offset 8 is not a valid pstree_entry" },
		{ { 0x54564319, 0x55053847 },                 8, "not an image of type PSTREE: it begins with" },
		{ { 0x55105940, 0x50273030 },                 8, "not an image of type PSTREE" },
		{ { 0 },                                      0, "is torn" },
	};
	/* clang-format on */
	struct image_store *store = open_directory(true);
	ProtobufCMessage *read;

	for (size_t i = 0; i < array_size(cases); i++) {
		put_file("pstree.img", cases[i].words, cases[i].size);
		assert_int_equal(image_read_single(store, IMAGE_PSTREE, 0, &read), -EINVAL);
		assert_null(read);
		assert_failure_says(cases[i].says);
	}
	image_store_close(store);
}

/* Puts `before` in front of the packed message at *start, makes a field 2 of both, and moves *start to it. */
static void wrap(const unsigned char *end, unsigned char **start, const char *before, size_t size)
{
	unsigned char prefix[8] = { 0x12 };
	size_t at = 1;

	*start -= size;
	memcpy(*start, before, size);
	for (size_t rest = end - *start; at == 1 || rest; rest >>= 7)
		prefix[at++] = (rest & 0x7f) | (rest >> 7 ? 0x80 : 0);
	*start -= at;
	memcpy(*start, prefix, at);
}

/*
 * A cgroup in a cgroup in a cgroup: few bytes for each level, which protobuf-c would follow until the stack is used
 * up.
 */
static int read_nested_cgroups(struct image_store *store, size_t size, unsigned levels)
{
	autofree unsigned char *bytes = allocate(size);
	unsigned char *end = bytes + size, *start = end;
	uint32_t header[] = { 0x54564319, 0x59383330, 0 };
	ProtobufCMessage *read;

	while (levels-- && start > bytes + 64)
		wrap(end, &start, "\x0a\x00", 2); /* children of a directory, with their dir_name */
	wrap(end, &start, "", 0);		  /* dirs of a controller */
	header[2] = end - start;
	start -= sizeof(header);
	memcpy(start, header, sizeof(header));
	put_file("cgroup.img", start, end - start);
	int result = image_read_single(store, IMAGE_CGROUP, 0, &read);

	if (read)
		protobuf_c_message_free_unpacked(read, NULL);
	return result;
}

static void forged_depth(void **state unused)
{
	struct image_store *store = open_directory(true);

	assert_int_equal(read_nested_cgroups(store, 4096, 50), 0);
	assert_int_equal(read_nested_cgroups(store, 4 << 20, UINT32_MAX), -EINVAL);
	assert_failure_says("not a valid cgroup_entry");
	image_store_close(store);
}

static void skipping_past_the_end(void **state unused)
{
	struct image_store *store = open_directory(true);
	struct image *image;
	char byte;

	put_file("pages-1.img", "12345678", 8);
	assert_int_equal(image_open(store, &image, IMAGE_PAGES, 1), 0);
	assert_int_equal(image_skip_bytes(image, 7), 0);
	assert_int_equal(image_read_bytes(image, &byte, 1), 0);
	assert_int_equal(byte, '8');
	assert_int_equal(image_skip_bytes(image, UINT64_MAX), -EINVAL);
	assert_failure_says("pages-1.img is torn: at offset 8");
	assert_int_equal(image_read_bytes(image, &byte, 1), -EINVAL);
	image_close_read(image);
	failure_clear();
	image_store_close(store);
}

static void format_1_has_no_first_word(void **state unused)
{
	static const unsigned char old[] = { 0x30, 0x30, 0x27, 0x50, 8, 0, 0, 0, 8, 1, 16, 0, 24, 1, 32, 1 };
	struct image_store *store = open_directory(true);
	ProtobufCMessage *read;

	put_file("pstree.img", old, sizeof(old));
	assert_int_equal(image_read_single(store, IMAGE_PSTREE, 0, &read), 0);
	assert_int_equal(((PstreeEntry *)read)->pid, 1);
	protobuf_c_message_free_unpacked(read, NULL);
	image_store_close(store);
}

int main(void)
{
#define test(function) cmocka_unit_test_setup_teardown(function, prepare, clean)
	const struct CMUnitTest tests[] = {
		test(torn_at_every_byte), test(every_byte_changed),    test(forged_lengths),
		test(forged_depth),	  test(skipping_past_the_end), test(format_1_has_no_first_word),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
