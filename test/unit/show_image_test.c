/*
 * show_image_test.c - `criu show IMAGE`: one file, record by record, for people and as JSON.
 */
#include "images.h"
#include "cli/commands.h"
#include "cli/show.h"
#include "memory/packed.h"
#include "pagemap.pb-c.h"
#include "stats.pb-c.h"

static char *shown(const char *name, bool as_json, int expected)
{
	autofree char *path = format_text("%s/%s", directory, name);
	char *text;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	assert_int_equal(show_image(out, path, as_json), expected);
	fclose(out);
	return text;
}

static void write_pipes(const char *content)
{
	struct image_store *store = open_directory(true);
	PipeDataEntry entry = PIPE_DATA_ENTRY__INIT;
	struct image *image;

	assert_int_equal(image_create(store, &image, IMAGE_PIPES_DATA, 0), 0);
	for (uint32_t id = 7; id < 9; id++) {
		entry.pipe_id = id;
		entry.bytes = strlen(content);
		assert_int_equal(image_write(image, &entry.base), 0);
		assert_int_equal(image_write_bytes(image, content, entry.bytes), 0);
	}
	assert_int_equal(image_close(image), 0);
	image_store_close(store);
}

/* Raw bytes stand between the records. */
static void bytes_behind_a_record(void **state unused)
{
	write_pipes("what is in the pipe");
	autofree char *text = shown("pipes-data.img", false, 0), *json = shown("pipes-data.img", true, 0);

	assert_string_equal(text, "pipes-data.img: PIPES_DATA\n"
				  "pipe_id: 7\nbytes: 19\n(19 bytes follow)\n\n"
				  "pipe_id: 8\nbytes: 19\n(19 bytes follow)\n\n");
	assert_string_equal(
		json,
		"{\n  \"magic\": \"PIPES_DATA\",\n  \"entries\": [\n"
		"    {\n      \"pipe_id\": 7,\n      \"bytes\": 19,\n      \"bytes_behind\": 19\n    },\n"
		"    {\n      \"pipe_id\": 8,\n      \"bytes\": 19,\n      \"bytes_behind\": 19\n    }\n"
		"  ]\n}\n");
}

/* The first record of a pagemap has another type than the others. An address is shown in both ways. */
static void a_pagemap(void **state unused)
{
	struct image_store *store = open_directory(true);
	PagemapHead head = PAGEMAP_HEAD__INIT;
	PagemapEntry entry = PAGEMAP_ENTRY__INIT;
	struct image *image;

	head.pages_id = 3;
	entry.vaddr = 0x7f0000001000;
	entry.compat_nr_pages = 2;
	message_set(&entry, in_parent, true);
	assert_int_equal(image_create(store, &image, IMAGE_PAGEMAP, 5), 0);
	assert_int_equal(image_write(image, &head.base), 0);
	assert_int_equal(image_write(image, &entry.base), 0);
	assert_int_equal(image_close(image), 0);
	assert_int_equal(image_create(store, &image, IMAGE_PAGES, 3), 0);
	assert_int_equal(image_close(image), 0);
	image_store_close(store);
	autofree char *text = shown("pagemap-5.img", false, 0), *pages = shown("pages-3.img", false, 0),
		      *json = shown("pages-3.img", true, 0);

	assert_string_equal(
		text, "pagemap-5.img: PAGEMAP\npages_id: 3\n\n"
		      "vaddr: 139637976731648 (0x7f0000001000)\ncompat_nr_pages: 2\nin_parent: yes\n\n");
	assert_string_equal(pages, "pages-3.img: PAGES\n0 pages\n\n");
	assert_string_equal(json, "{\n  \"magic\": \"PAGES\",\n  \"pages\": 0,\n  \"entries\": []\n}\n");
}

/* The size of the file says nothing about the number of pages. */
static void compressed_pages(void **state unused)
{
	autofree char *path = format_text("%s/pages-lz4-3.img", directory), *zeros = allocate(40 * PAGE_SIZE);
	struct packer_statistics statistics = { 0 };
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
	struct packer *packer = packer_open(fd, false);
	struct stat status;

	assert_int_equal(packer_write(packer, zeros, 40 * PAGE_SIZE), 0);
	assert_int_equal(packer_close(packer, 0, &statistics), 0);
	autofree char *text = shown("pages-lz4-3.img", false, 0), *json = shown("pages-lz4-3.img", true, 0);

	assert_non_null(strstr(text, "\n40 pages\n"));
	assert_non_null(strstr(json, "\"pages\": 40,"));
	assert_int_equal(fstat(fd, &status) ?: ftruncate(fd, status.st_size - 1), 0);
	free(shown("pages-lz4-3.img", false, -EINVAL));
	assert_failure_says("pages-lz4-3.img is damaged");
	free(shown("pages-lz4-3.img", true, -EINVAL));
	close(fd);
}

/* Every kind with records, with every field set: all are shown, and the brackets of JSON match. */
static void every_kind(void **state unused)
{
	for (enum image_kind kind = 0; kind < IMAGE_KINDS; kind++) {
		const ProtobufCMessageDescriptor *descriptor = image_types[kind].descriptor;
		char name[IMAGE_NAME_SIZE];
		ProtobufCMessage *message;
		struct image_store *store;
		struct image *image;
		int depth = 0;

		if (!descriptor || kind == IMAGE_INVENTORY || kind == IMAGE_PIPES_DATA ||
		    kind == IMAGE_FIFO_DATA || kind == IMAGE_BPFMAP_DATA || kind == IMAGE_IPCNS_SEM ||
		    kind == IMAGE_IPCNS_MSG || kind == IMAGE_SK_QUEUES)
			continue; /* bytes follow */
		store = open_directory(true);
		message = make_message(descriptor, 0);
		assert_int_equal(image_create(store, &image, kind, 1), 0);
		assert_int_equal(image_write(image, message), 0);
		assert_int_equal(image_close(image), 0);
		image_store_close(store);
		protobuf_c_message_free_unpacked(message, NULL);
		image_file_name(name, kind, 1);
		autofree char *text = shown(name, false, 0), *json = shown(name, true, 0);

		for (unsigned i = 0; i < descriptor->n_fields; i++) {
			autofree char *line = format_text("%s:", descriptor->fields[i].name);
			autofree char *key = format_text("\"%s\": ", descriptor->fields[i].name);

			assert_non_null(strstr(text, line));
			assert_non_null(strstr(json, key));
		}
		for (const char *at = json; *at; at++)
			depth += *at == '{' || *at == '[' ? 1 : *at == '}' || *at == ']' ? -1 : 0;
		assert_int_equal(depth, 0);
	}
}

static void files_that_are_no_images(void **state unused)
{
	unsigned char bytes[512];

	free(shown("notes.txt", false, -EINVAL));
	assert_failure_says("notes.txt is not the name of an image that can be shown");
	free(shown("core-5.img", false, -ENOENT));
	assert_failure_says("cannot open /tmp/criu_test.");
	write_pipes("content");
	put_file("pipes-data.img", bytes, get_file("pipes-data.img", bytes, sizeof(bytes)) - 1);
	free(shown("pipes-data.img", false, -EINVAL));
	assert_failure_says("pipes-data.img is torn");
	put_file("core-5.img", bytes, 12);
	free(shown("core-5.img", true, -EINVAL));
	assert_failure_says("core-5.img is not an image of type CORE");
}

/* An argument is a path or, if there is no such file, a name in the directory of images. */
static void the_command(void **state unused)
{
	char *arguments[] = { "pipes-data.img" };
	struct options options = { .arguments = arguments, .argument_count = 1, .images_dir = directory };
	int out = dup(STDOUT_FILENO);

	write_pipes("content");
	fflush(stdout);
	assert_non_null(freopen("/dev/null", "w", stdout));
	assert_int_equal(command_show(&options), 0);
	fflush(stdout);
	dup2(out, STDOUT_FILENO);
	close(out);
	arguments[0] = "nothing.img";
	failure_clear();
	assert_int_equal(command_show(&options), -ENOENT);
	assert_failure_says("cannot show /tmp/criu_test.");
}

int main(void)
{
#define test(function) cmocka_unit_test_setup_teardown(function, prepare, clean)
	const struct CMUnitTest tests[] = {
		test(bytes_behind_a_record),	test(a_pagemap),   test(every_kind),
		test(files_that_are_no_images), test(the_command), test(compressed_pages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
