/*
 * image_test.c - images: what was written can be read again, and has the bytes of the format.
 *
 * Messages are made from their descriptors, with every field set. So a new kind of image is tested as soon as it is in
 * the catalog.
 */
#include "images.h"
#include "mm.pb-c.h"
#include "pstree.pb-c.h"

/* --- What was written can be read ----------------------------------------------------------------------- */

static void round_trip(struct image_store *store, enum image_kind kind, unsigned long id)
{
	const struct image_type *type = &image_types[kind];
	const ProtobufCMessageDescriptor *following = type->following ? type->following : type->descriptor;
	ProtobufCMessage *first = make_message(type->descriptor, 0);
	ProtobufCMessage *second = make_message(following, 0), *read;
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

static void round_trip_everything(struct image_store *store)
{
	assert_int_equal(image_store_begin(store, NULL), 0);
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
	assert_failure_says("pstree.img is torn: it holds no record");

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

/* Records and bytes that are larger than the buffer alternate with small ones. */
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
	image_close_read(image);
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

/* --- The bytes of the format ---------------------------------------------------------------------------- */

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
	{ IMAGE_BPFMAP_DATA, 0, "bpfmap-data.img", { 0x54564319, 0x64324033 } },
	{ IMAGE_PSTREE, 0, "pstree.img", { 0x54564319, 0x50273030 } },
	{ IMAGE_FS, 77, "fs-77.img", { 0x54564319, 0x51403912 } },
	{ IMAGE_FILES, 0, "files.img", { 0x54564319, 0x56303138 } },
	{ IMAGE_REMAP_FPATH, 0, "remap-fpath.img", { 0x54564319, 0x59133954 } },
	{ IMAGE_GHOST_FILE, 26, "ghost-file-1a.img", { 0x54564319, 0x52583605 } },
	{ IMAGE_MEMFD_INODE, 0, "memfd.img", { 0x54564319, 0x48453499 } },
	{ IMAGE_TTY_INFO, 0, "tty-info.img", { 0x54564319, 0x59453036 } },
	{ IMAGE_TTY_DATA, 0, "tty-data.img", { 0x54564319, 0x59413026 } },
	{ IMAGE_TCP_STREAM, 0x10, "tcp-stream-10.img", { 0x54564319, 0x51465506 } },
	{ IMAGE_SK_QUEUES, 0, "sk-queues.img", { 0x54564319, 0x56264026 } },
	{ IMAGE_FILE_LOCKS, 0, "filelocks.img", { 0x54564319, 0x54323616 } },
	{ IMAGE_PAGES, 1, "pages-1.img", { 0, 0 } },
	{ IMAGE_PACKED_PAGES, 1, "pages-lz4-1.img", { 0, 0 } },
	{ IMAGE_SECCOMP, 0, "seccomp.img", { 0x54564319, 0x64413049 } },
	{ IMAGE_CGROUP, 0, "cgroup.img", { 0x54564319, 0x59383330 } },
	{ IMAGE_UTSNS, 11, "utsns-11.img", { 0x54564319, 0x54473203 } },
	{ IMAGE_IPCNS_SHM, 3, "ipcns-shm-3.img", { 0x54564319, 0x46283044 } },
	{ IMAGE_IPCNS_SEM, 3, "ipcns-sem-3.img", { 0x54564319, 0x59573019 } },
	{ IMAGE_IPCNS_MSG, 3, "ipcns-msg-3.img", { 0x54564319, 0x55453737 } },
	{ IMAGE_MQUEUE, 0, "mqueue.img", { 0x54564319, 0x4555514d } },
	{ IMAGE_TIMENS, 0, "timens-0.img", { 0x54564319, 0x43114433 } },
	{ IMAGE_CPUINFO, 0, "cpuinfo.img", { 0x54564319, 0x61404013 } },
	{ IMAGE_TRACKING, 0, "tracking.img", { 0x54564319, 0x4b415254 } },
	{ IMAGE_HASHES, 3, "hashes-3.img", { 0x54564319, 0x48534148 } },
	{ IMAGE_INOTIFY_EVENTS, 0, "inotify-events.img", { 0x54564319, 0x56454e49 } },
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
		assert_memory_equal(bytes, fact->header, size); /* this machine is little-endian */
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

	assert_int_equal(image_store_begin(store, NULL), 0);
	round_trip_inventory(store);
	size_t size = get_file("inventory.img", bytes, sizeof(bytes));
	memcpy(words, bytes, sizeof(words));
	assert_int_equal(words[0], 0x58313116);
	assert_int_equal(words[1], size - 8);
	/* version 2, fdinfo_per_id, ns_per_id */
	assert_memory_equal(bytes + 8, "\x08\x02\x10\x01\x20\x01", 6);
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
