/*
 * image_test.c - images: what is written comes back, has the bytes of the format, and whatever is torn or forged is an
 * error that names the file.
 *
 * Messages are made from their descriptors, every field set, so a new kind of image is tested by being in the catalog.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "cgroup.pb-c.h"
#include "image/inventory.h"
#include "image/message.h"
#include "mm.pb-c.h"
#include "pagemap.pb-c.h"
#include "pipe-data.pb-c.h"
#include "pstree.pb-c.h"

/* Last: it makes a macro of fail(). */
#include <cmocka.h>

static char directory[] = "/tmp/image_test.XXXXXX";

static int prepare(void **state unused)
{
	error_init();
	log_level = 0; /* failures are what is tested here */
	strcpy(strrchr(directory, '.'), ".XXXXXX");
	return mkdtemp(directory) ? 0 : -1;
}

static int clean(void **state unused)
{
	autofree char *command = format_text("rm -rf %s", directory);

	return system(command);
}

static struct image_store *open_directory(bool for_writing)
{
	struct image_store *store;

	failure_clear();
	assert_int_equal(image_store_open_directory(&store, directory, for_writing), 0);
	return store;
}

static void assert_failure_says(const char *text)
{
	char report[4096];

	failure_report(report, sizeof(report), "test", NULL);
	if (!strstr(report, text))
		fail_msg("the report does not say \"%s\":\n%s", text, report);
	failure_clear();
}

static void put_file(const char *name, const void *bytes, size_t size)
{
	autofree char *path = format_text("%s/%s", directory, name);
	autoclose int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write_all(fd, bytes, size), 0);
}

static size_t get_file(const char *name, unsigned char *bytes, size_t room)
{
	autofree char *path = format_text("%s/%s", directory, name);
	autoclose int fd = open(path, O_RDONLY);
	ssize_t size = fd < 0 ? -1 : read(fd, bytes, room);

	assert_true(size >= 0);
	return size;
}

/* --- Messages with every field set ---------------------------------------------------------------------------------- */

static ProtobufCMessage *make_message(const ProtobufCMessageDescriptor *descriptor, unsigned depth);

static void make_value(const ProtobufCFieldDescriptor *field, void *place, unsigned depth)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_STRING:
		*(char **)place = copy_text("t\303\244xt \"\\\n");
		break;
	case PROTOBUF_C_TYPE_BYTES:
		*(ProtobufCBinaryData *)place = (ProtobufCBinaryData){ 5, copy_bytes("\0\1\xff\x80!", 5) };
		break;
	case PROTOBUF_C_TYPE_MESSAGE:
		*(ProtobufCMessage **)place = make_message(field->descriptor, depth + 1);
		break;
	case PROTOBUF_C_TYPE_ENUM: {
		const ProtobufCEnumDescriptor *names = field->descriptor;

		*(int *)place = names->values[names->n_values - 1].value;
		break;
	}
	case PROTOBUF_C_TYPE_BOOL:
		*(protobuf_c_boolean *)place = true;
		break;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		*(uint64_t *)place = 0xfedcba9876543210 + field->id;
		break;
	default:
		*(uint32_t *)place = 0xfedcba98 + field->id;
	}
}

static size_t value_size(const ProtobufCFieldDescriptor *field)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	case PROTOBUF_C_TYPE_ENUM:
	case PROTOBUF_C_TYPE_BOOL:
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		return 4;
	default:
		return 8;
	}
}

static void make_field(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field, unsigned depth)
{
	char *place = (char *)message + field->offset;
	unsigned *quantifier = (unsigned *)((char *)message + field->quantifier_offset);
	const unsigned count = 3;

	if (field->label == PROTOBUF_C_LABEL_REPEATED) {
		*(char **)place = allocate_array(count, value_size(field));
		*(size_t *)quantifier = count;
		for (unsigned i = 0; i < count; i++)
			make_value(field, *(char **)place + i * value_size(field), depth);
		return;
	}
	if (field->label == PROTOBUF_C_LABEL_OPTIONAL && field->quantifier_offset)
		*quantifier = true;
	make_value(field, place, depth);
}

static ProtobufCMessage *make_message(const ProtobufCMessageDescriptor *descriptor, unsigned depth)
{
	ProtobufCMessage *message = allocate(descriptor->sizeof_message);

	protobuf_c_message_init(descriptor, message);
	for (unsigned i = 0; i < descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
		bool is_recursion = field->type == PROTOBUF_C_TYPE_MESSAGE && field->descriptor == descriptor;

		if (!is_recursion || depth < 2)
			make_field(message, field, depth);
	}
	return message;
}

static void assert_equal_messages(const ProtobufCMessage *one, const ProtobufCMessage *other)
{
	size_t size = protobuf_c_message_get_packed_size(one);
	autofree uint8_t *a = allocate(size), *b = allocate(size);

	assert_ptr_equal(one->descriptor, other->descriptor);
	assert_int_equal(protobuf_c_message_get_packed_size(other), size);
	protobuf_c_message_pack(one, a);
	protobuf_c_message_pack(other, b);
	assert_memory_equal(a, b, size);
}

/* --- What is written comes back ------------------------------------------------------------------------------------- */

static void round_trip(struct image_store *store, enum image_kind kind, unsigned long id)
{
	const struct image_type *type = &image_types[kind];
	const ProtobufCMessageDescriptor *following = type->following ? type->following : type->descriptor;
	ProtobufCMessage *first = make_message(type->descriptor, 0), *second = make_message(following, 0), *read;
	struct image *image;

	assert_int_equal(image_create(store, &image, kind, id), 0);
	assert_int_equal(image_write(image, first), 0);
	assert_int_equal(image_write_bytes(image, "behind", 6), 0);
	assert_int_equal(image_write(image, second), 0);
	assert_int_equal(image_close(image), 0);

	assert_int_equal(image_open(store, &image, kind, id), 0);
	assert_int_equal(image_read(image, type->descriptor, &read), 1);
	assert_equal_messages(first, read);
	protobuf_c_message_free_unpacked(read, NULL);
	assert_int_equal(image_skip_bytes(image, 6), 0);
	assert_int_equal(image_read(image, following, &read), 1);
	assert_equal_messages(second, read);
	protobuf_c_message_free_unpacked(read, NULL);
	assert_int_equal(image_read(image, following, &read), 0);
	assert_null(read);
	assert_int_equal(image_position(image), image_size(image));
	assert_int_equal(image_close(image), 0);
	protobuf_c_message_free_unpacked(first, NULL);
	protobuf_c_message_free_unpacked(second, NULL);
}

static void round_trip_inventory(struct image_store *store)
{
	InventoryEntry *written = inventory_new(), *read;

	assert_int_equal(image_store_begin(store), 0);
	assert_int_equal(image_store_commit(store, &written->base), 0);
	assert_int_equal(inventory_read(store, &read), 0);
	assert_equal_messages(&written->base, &read->base);
	image_free(written);
	image_free(read);
}

static void round_trip_everything(struct image_store *store)
{
	for (enum image_kind kind = 0; kind < IMAGE_KINDS; kind++)
		if (kind != IMAGE_INVENTORY && image_types[kind].descriptor)
			round_trip(store, kind, kind);
	round_trip_inventory(store);
	assert_false(has_failed());
	image_store_close(store);
}

static void every_kind_in_memory(void **state unused)
{
	struct image_store *store;

	failure_clear();
	assert_int_equal(image_store_open_memory(&store), 0);
	round_trip_everything(store);
}

static void every_kind_in_a_directory(void **state unused)
{
	round_trip_everything(open_directory(true));
}

static void a_single_record(void **state unused)
{
	struct image_store *store = open_directory(true);
	PstreeEntry *written = message_new(PstreeEntry, pstree_entry);
	ProtobufCMessage *read;
	struct image *image;

	written->pid = 4711;
	assert_int_equal(image_write_single(store, IMAGE_PSTREE, 0, &written->base), 0);
	assert_int_equal(image_read_single(store, IMAGE_PSTREE, 0, &read), 0);
	assert_equal_messages(&written->base, read);
	protobuf_c_message_free_unpacked(read, NULL);

	assert_int_equal(image_create(store, &image, IMAGE_PSTREE, 0), 0);
	assert_int_equal(image_close(image), 0);
	assert_int_equal(image_read_single(store, IMAGE_PSTREE, 0, &read), -EINVAL);
	assert_failure_says("pstree.img: is torn: it holds no record");

	assert_int_equal(image_create(store, &image, IMAGE_PSTREE, 0), 0);
	assert_int_equal(image_write(image, &written->base), 0);
	assert_int_equal(image_write(image, &written->base), 0);
	assert_int_equal(image_close(image), 0);
	assert_int_equal(image_read_single(store, IMAGE_PSTREE, 0, &read), -EINVAL);
	assert_null(read);
	assert_failure_says("more than its one record");
	image_free(written);
	image_store_close(store);
}

/* Records and bytes that are larger than the buffer, in turn with small ones. */
static void large_records_and_bytes(void **state unused)
{
	struct image_store *store = open_directory(true);
	const size_t size = 300000;
	autofree unsigned char *bytes = allocate(size), *again = allocate(size);
	MmEntry *mm = message_new(MmEntry, mm_entry);
	ProtobufCMessage *read;
	struct image *image;

	for (size_t i = 0; i < size; i++)
		bytes[i] = i * 7 >> 3;
	message_array(mm, mm_saved_auxv, 50000);
	assert_int_equal(image_create(store, &image, IMAGE_MM, 1), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(image_write(image, &mm->base), 0);
		assert_int_equal(image_write_bytes(image, bytes, i == 1 ? 5 : size), 0);
	}
	uint64_t end = image_position(image);
	assert_int_equal(image_close(image), 0);

	assert_int_equal(image_open(store, &image, IMAGE_MM, 1), 0);
	assert_int_equal(image_size(image), end);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(image_read(image, &mm_entry__descriptor, &read), 1);
		assert_equal_messages(&mm->base, read);
		protobuf_c_message_free_unpacked(read, NULL);
		assert_int_equal(image_read_bytes(image, again, i == 1 ? 5 : size), 0);
		assert_memory_equal(bytes, again, i == 1 ? 5 : size);
	}
	assert_int_equal(image_read(image, &mm_entry__descriptor, &read), 0);
	image_close(image);
	image_free(mm);
	image_store_close(store);
}

static void a_raw_image_by_its_descriptor(void **state unused)
{
	struct image_store *store = open_directory(true);
	struct image *image;
	char bytes[8];

	assert_int_equal(image_create(store, &image, IMAGE_PAGES, 3), 0);
	assert_int_equal(image_write_bytes(image, "abc", 3), 0);
	assert_int_equal(image_flush(image), 0);
	assert_int_equal(write_all(image_fd(image), "defg", 4), 0);
	assert_int_equal(image_position(image), 7);
	assert_int_equal(image_write_bytes(image, "h", 1), 0);
	assert_int_equal(image_close(image), 0);
	assert_int_equal(image_open(store, &image, IMAGE_PAGES, 3), 0);
	assert_string_equal(image_name(image), "pages-3.img");
	assert_int_equal(read_all_at(image_fd(image), bytes, 8, 0), 0);
	assert_memory_equal(bytes, "abcdefgh", 8);
	assert_int_equal(image_close(image), 0);
	image_store_close(store);
}

/* --- The bytes of the format ---------------------------------------------------------------------------------------- */

static const struct fact {
	enum image_kind kind;
	unsigned long id;
	const char *file;
	uint32_t header[2];
} facts[] = {
	{ IMAGE_FDINFO, 2, "fdinfo-2.img", { 0x54564319, 0x56213732 } },
	{ IMAGE_PAGEMAP, 77, "pagemap-77.img", { 0x54564319, 0x56084025 } },
	{ IMAGE_SHMEM_PAGEMAP, 5000000000, "pagemap-shmem-5000000000.img", { 0x54564319, 0x56084025 } },
	{ IMAGE_CORE, 77, "core-77.img", { 0x54564319, 0x55053847 } },
	{ IMAGE_IDS, 77, "ids-77.img", { 0x54564319, 0x54432030 } },
	{ IMAGE_MM, 77, "mm-77.img", { 0x54564319, 0x57492820 } },
	{ IMAGE_PIPES_DATA, 0, "pipes-data.img", { 0x54564319, 0x56453709 } },
	{ IMAGE_FIFO_DATA, 0, "fifo-data.img", { 0x54564319, 0x59333054 } },
	{ IMAGE_PSTREE, 0, "pstree.img", { 0x54564319, 0x50273030 } },
	{ IMAGE_FS, 77, "fs-77.img", { 0x54564319, 0x51403912 } },
	{ IMAGE_FILES, 0, "files.img", { 0x54564319, 0x56303138 } },
	{ IMAGE_REMAP_FPATH, 0, "remap-fpath.img", { 0x54564319, 0x59133954 } },
	{ IMAGE_GHOST_FILE, 26, "ghost-file-1a.img", { 0x54564319, 0x52583605 } },
	{ IMAGE_MEMFD_INODE, 0, "memfd.img", { 0x54564319, 0x48453499 } },
	{ IMAGE_TTY_INFO, 0, "tty-info.img", { 0x54564319, 0x59453036 } },
	{ IMAGE_TTY_DATA, 0, "tty-data.img", { 0x54564319, 0x59413026 } },
	{ IMAGE_FILE_LOCKS, 0, "filelocks.img", { 0x54564319, 0x54323616 } },
	{ IMAGE_PAGES, 1, "pages-1.img", { 0, 0 } },
	{ IMAGE_SECCOMP, 0, "seccomp.img", { 0x54564319, 0x64413049 } },
	{ IMAGE_CGROUP, 0, "cgroup.img", { 0x54564319, 0x59383330 } },
	{ IMAGE_UTSNS, 11, "utsns-11.img", { 0x54564319, 0x54473203 } },
	{ IMAGE_TIMENS, 0, "timens-0.img", { 0x54564319, 0x43114433 } },
	{ IMAGE_CPUINFO, 0, "cpuinfo.img", { 0x54564319, 0x61404013 } },
	{ IMAGE_STATS, 0, "stats-dump", { 0x55105940, 0x57093306 } },
	{ IMAGE_STATS, 1, "stats-restore", { 0x55105940, 0x57093306 } },
};

static void headers(void **state unused)
{
	struct image_store *store = open_directory(true);
	bool is_known[IMAGE_KINDS] = { [IMAGE_INVENTORY] = true };
	unsigned char bytes[16];
	struct image *image;

	for (size_t i = 0; i < array_size(facts); i++) {
		const struct fact *fact = &facts[i];
		size_t size = fact->header[0] ? 8 : 0;

		assert_int_equal(image_create(store, &image, fact->kind, fact->id), 0);
		assert_string_equal(image_name(image), fact->file);
		assert_int_equal(image_close(image), 0);
		assert_int_equal(get_file(fact->file, bytes, sizeof(bytes)), size);
		assert_memory_equal(bytes, fact->header, size); /* little-endian, as every machine we run on */
		is_known[fact->kind] = true;
	}
	for (enum image_kind kind = 0; kind < IMAGE_KINDS; kind++)
		assert_true(is_known[kind]);
	image_store_close(store);
}

static void a_record_byte_by_byte(void **state unused)
{
	static const unsigned char expected[] = {
		0x19, 0x43, 0x56, 0x54, 0x30, 0x30, 0x27, 0x50, /* header */
		0x0e, 0x00, 0x00, 0x00,				/* 14 bytes follow */
		0x08, 0xe7, 0x24,				/* pid 4711 */
		0x10, 0x01, 0x18, 0x02, 0x20, 0x03,		/* ppid, pgid, sid */
		0x28, 0xe7, 0x24, 0x28, 0x07,			/* threads */
	};
	uint32_t threads[] = { 4711, 7 };
	PstreeEntry entry = PSTREE_ENTRY__INIT;
	struct image_store *store = open_directory(true);
	unsigned char bytes[64];

	entry.pid = 4711;
	entry.ppid = 1;
	entry.pgid = 2;
	entry.sid = 3;
	entry.n_threads = 2;
	entry.threads = threads;
	assert_int_equal(image_write_single(store, IMAGE_PSTREE, 0, &entry.base), 0);
	assert_int_equal(get_file("pstree.img", bytes, sizeof(bytes)), sizeof(expected));
	assert_memory_equal(bytes, expected, sizeof(expected));
	image_store_close(store);
}

static void inventory_is_bare(void **state unused)
{
	struct image_store *store = open_directory(true);
	unsigned char bytes[256];
	uint32_t words[2];

	round_trip_inventory(store);
	size_t size = get_file("inventory.img", bytes, sizeof(bytes));
	memcpy(words, bytes, sizeof(words));
	assert_int_equal(words[0], 0x58313116);
	assert_int_equal(words[1], size - 8);
	assert_memory_equal(bytes + 8, "\x08\x02\x10\x01\x20\x01", 6); /* version 2, fdinfo_per_id, ns_per_id */
	image_store_close(store);
}

/* --- Torn and forged ------------------------------------------------------------------------------------------------ */

static void a_pipe_image(struct image_store *store)
{
	PipeDataEntry entry = PIPE_DATA_ENTRY__INIT;
	struct image *image;

	entry.pipe_id = 300;
	entry.bytes = 6;
	assert_int_equal(image_create(store, &image, IMAGE_PIPES_DATA, 0), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(image_write(image, &entry.base), 0);
		assert_int_equal(image_write_bytes(image, "behind", 6), 0);
	}
	assert_int_equal(image_close(image), 0);
}

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
	image_close(image);
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
			assert_failure_says("pipes-data.img: is torn: ");
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
	static const struct {
		uint32_t words[4];
		size_t size;
		const char *says;
	} cases[] = {
		{ { 0x54564319, 0x50273030, 0xffffffff, 8 }, 16, "record at offset 8 has 4294967295 bytes, but only 4 are left" },
		{ { 0x54564319, 0x50273030, 0x80000000, 8 }, 12, "record at offset 8 has 2147483648 bytes, but only 0" },
		{ { 0x54564319, 0x50273030, 5, 8 }, 16, "record at offset 8 has 5 bytes, but only 4 are left" },
		{ { 0x54564319, 0x50273030, 4, 0xffffffff }, 16, "record at offset 8 is not a valid pstree_entry" },
		{ { 0x54564319, 0x50273030, 0 }, 12, "record at offset 8 is not a valid pstree_entry" }, /* no pid */
		{ { 0x54564319, 0x55053847 }, 8, "is not an image of type PSTREE: it begins with 0x55053847" },
		{ { 0x55105940, 0x50273030 }, 8, "is not an image of type PSTREE" },
		{ { 0 }, 0, "is torn" },
	};
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

/* A cgroup in a cgroup in a cgroup: a few bytes a level, which protobuf-c would follow until the stack ends. */
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
	assert_failure_says("pages-1.img: is torn: at offset 8");
	assert_int_equal(image_read_bytes(image, &byte, 1), -EINVAL);
	image_close(image);
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

/* --- The directory -------------------------------------------------------------------------------------------------- */

static void modes(void **state unused)
{
	autofree char *path = format_text("%s/new", directory);
	autofree char *image_path = format_text("%s/new/pages-1.img", directory);
	struct image_store *store;
	struct image *image;
	struct stat status;
	mode_t mask = umask(0);

	assert_int_equal(image_store_open_directory(&store, path, true), 0);
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_mode & 07777, 0700);
	/* An older file may be readable to all: it is not written into. */
	close(open(image_path, O_CREAT | O_WRONLY, 0666));
	assert_int_equal(image_create(store, &image, IMAGE_PAGES, 1), 0);
	assert_int_equal(image_close(image), 0);
	assert_int_equal(stat(image_path, &status), 0);
	assert_int_equal(status.st_mode & 07777, 0600);
	image_store_close(store);
	umask(mask);
}

static void links_and_pipes_are_refused(void **state unused)
{
	struct image_store *store = open_directory(true);
	autofree char *link = format_text("%s/pstree.img", directory), *pipe = format_text("%s/files.img", directory);
	autofree char *target = format_text("%s/target", directory), *folder = format_text("%s/mm-1.img", directory);
	struct image *image;
	struct stat status;

	put_file("target", "untouched", 9);
	assert_int_equal(symlink("target", link), 0);
	assert_int_equal(mkfifo(pipe, 0600), 0);
	assert_int_equal(mkdir(folder, 0700), 0);
	assert_int_equal(image_open(store, &image, IMAGE_PSTREE, 0), -EINVAL);
	assert_failure_says("pstree.img is a symbolic link");
	assert_int_equal(image_open(store, &image, IMAGE_FILES, 0), -EINVAL);
	assert_failure_says("files.img is not a regular file");
	assert_int_equal(image_open(store, &image, IMAGE_MM, 1), -EISDIR);
	assert_failure_says("mm-1.img");
	assert_int_equal(image_create(store, &image, IMAGE_MM, 1), -EISDIR);
	assert_failure_says("cannot create");
	/* Writing replaces the link, and not what it points to. */
	assert_int_equal(image_create(store, &image, IMAGE_PSTREE, 0), 0);
	assert_int_equal(image_close(image), 0);
	assert_int_equal(stat(target, &status), 0);
	assert_int_equal(status.st_size, 9);
	assert_int_equal(image_open(store, &image, IMAGE_CORE, 12), -ENOENT);
	assert_false(has_failed());
	image_store_close(store);
}

static void a_dump_is_complete_or_visibly_not(void **state unused)
{
	struct image_store *store = open_directory(true);
	autofree char *old = format_text("%s/inventory.img", directory), *new = format_text("%s.new", old);
	InventoryEntry *inventory;

	round_trip_inventory(store);
	assert_int_equal(access(old, F_OK), 0);
	assert_int_equal(access(new, F_OK), -1);
	/* The next dump into the same directory is aborted. */
	put_file("inventory.img.new", "", 0);
	assert_int_equal(image_store_begin(store), 0);
	a_pipe_image(store);
	image_store_close(store);
	assert_int_equal(access(old, F_OK), -1);
	assert_int_equal(access(new, F_OK), -1);

	store = open_directory(false);
	assert_int_equal(inventory_read(store, &inventory), -ENOENT);
	assert_failure_says("is not a complete image directory: it has no inventory.img "
			    "(the dump was interrupted or is still going on)");
	image_store_close(store);
}

/* A file that is gone when it should be brought to the disk: no inventory then. */
static void a_commit_that_fails(void **state unused)
{
	struct image_store *store = open_directory(true);
	autofree char *pipes = format_text("%s/pipes-data.img", directory);
	autofree char *path = format_text("%s/inventory.img", directory);
	InventoryEntry *inventory = inventory_new();

	assert_int_equal(image_store_begin(store), 0);
	a_pipe_image(store);
	assert_int_equal(unlink(pipes), 0);
	assert_int_equal(image_store_commit(store, &inventory->base), -ENOENT);
	assert_failure_says("pipes-data.img to the disk");
	assert_int_equal(access(path, F_OK), -1);
	image_free(inventory);
	image_store_close(store);
}

static void no_directory(void **state unused)
{
	autofree char *path = format_text("%s/nowhere", directory), *file = format_text("%s/file", directory);
	struct image_store *store;

	put_file("file", "", 0);
	assert_int_equal(image_store_open_directory(&store, path, false), -ENOENT);
	assert_failure_says("no such directory: ");
	assert_int_equal(image_store_open_directory(&store, file, false), -ENOTDIR);
	assert_failure_says("Not a directory");
	assert_int_equal(image_store_open_fd(&store, 999, false), -EBADF);
	failure_clear();
}

static void a_store_by_descriptor(void **state unused)
{
	autoclose int fd = open(directory, O_RDONLY | O_DIRECTORY);
	struct image_store *store;

	failure_clear();
	assert_int_equal(image_store_open_fd(&store, fd, true), 0);
	assert_true(image_store_directory(store) >= 0 && image_store_directory(store) != fd);
	assert_string_equal(image_store_name(store), directory);
	round_trip_everything(store);
}

static void formats_of_other_versions(void **state unused)
{
	static const struct {
		unsigned version;
		bool has_new_layout;
		const char *says; /* NULL: read */
	} cases[] = {
		{ 1, true, NULL },
		{ 2, true, NULL },
		{ 3, true, "format 3, made by criu 9.9; this criu" },
		{ 0, true, "format 0" },
		{ 2, false, "old layout (descriptors by pid)" },
	};
	struct image_store *store = open_directory(true);

	for (size_t i = 0; i < array_size(cases); i++) {
		InventoryEntry *inventory = inventory_new(), *read = NULL;

		inventory->img_version = cases[i].version;
		inventory->has_fdinfo_per_id = inventory->fdinfo_per_id = cases[i].has_new_layout;
		free(inventory->made_by);
		inventory->made_by = copy_text("criu 9.9");
		assert_int_equal(image_store_begin(store), 0);
		assert_int_equal(image_store_commit(store, &inventory->base), 0);
		assert_int_equal(inventory_read(store, &read), cases[i].says ? -EINVAL : 0);
		if (cases[i].says)
			assert_failure_says(cases[i].says);
		image_free(read);
		image_free(inventory);
	}
	image_store_close(store);
}

int main(void)
{
#define test(function) cmocka_unit_test_setup_teardown(function, prepare, clean)
	const struct CMUnitTest tests[] = {
		test(every_kind_in_memory),
		test(every_kind_in_a_directory),
		test(a_single_record),
		test(large_records_and_bytes),
		test(a_raw_image_by_its_descriptor),
		test(headers),
		test(a_record_byte_by_byte),
		test(inventory_is_bare),
		test(torn_at_every_byte),
		test(every_byte_changed),
		test(forged_lengths),
		test(forged_depth),
		test(skipping_past_the_end),
		test(format_1_has_no_first_word),
		test(modes),
		test(links_and_pipes_are_refused),
		test(a_dump_is_complete_or_visibly_not),
		test(a_commit_that_fails),
		test(no_directory),
		test(a_store_by_descriptor),
		test(formats_of_other_versions),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
