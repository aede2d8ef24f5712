/*
 * image_store_test.c - the directory of images: what it refuses, its permissions, and when it is complete.
 */
#include "images.h"
#include "image/store.h"

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
	/* An older file may be readable by all users, so it is replaced, not overwritten. */
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
	autofree char *link = format_text("%s/pstree.img", directory),
		      *pipe = format_text("%s/files.img", directory);
	autofree char *target = format_text("%s/target", directory),
		      *folder = format_text("%s/mm-1.img", directory);
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
	/* Writing replaces the link, not the file that it points to. */
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

	assert_int_equal(image_store_begin(store, NULL), 0);
	round_trip_inventory(store);
	assert_int_equal(access(old, F_OK), 0);
	assert_int_equal(access(new, F_OK), -1);
	image_store_close(store);

	/* Files of an interrupted dump do not become part of the next one. */
	assert_int_equal(unlink(old), 0);
	put_file("inventory.img.new", "", 0);
	store = open_directory(true);
	assert_int_equal(image_store_begin(store, NULL), 0);
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

/* A file is gone when it should be synced: then there is no inventory. */
static void a_commit_that_fails(void **state unused)
{
	struct image_store *store = open_directory(true);
	autofree char *pipes = format_text("%s/pipes-data.img", directory);
	autofree char *path = format_text("%s/inventory.img", directory);
	InventoryEntry *inventory = inventory_new();

	assert_int_equal(image_store_begin(store, NULL), 0);
	a_pipe_image(store);
	assert_int_equal(unlink(pipes), 0);
	assert_int_equal(image_store_commit(store, &inventory->base), -ENOENT);
	assert_failure_says("pipes-data.img");
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
	assert_int_equal(image_store_begin(store, NULL), 0);
	round_trip_inventory(store);
	image_store_close(store);
}

static void formats_of_other_versions(void **state unused)
{
	static const struct {
		unsigned version;
		bool has_new_layout;
		const char *says; /* the error; NULL: it can be read */
	} cases[] = {
		{ 1, true, NULL },	 { 2, true, NULL },
		{ 3, true, NULL },	 { 4, true, "format 4 (made by criu 9.9), but this criu" },
		{ 0, true, "format 0" }, { 2, false, "old layout (descriptors by pid)" },
	};
	struct image_store *store = open_directory(true);

	for (size_t i = 0; i < array_size(cases); i++) {
		InventoryEntry *inventory = inventory_new(), *read = NULL;

		inventory->img_version = cases[i].version;
		inventory->has_fdinfo_per_id = inventory->fdinfo_per_id = cases[i].has_new_layout;
		free(inventory->made_by);
		inventory->made_by = copy_text("criu 9.9");
		assert_int_equal(image_store_begin(store, NULL), 0);
		assert_int_equal(image_store_commit(store, &inventory->base), 0);
		image_store_settle(store);
		assert_int_equal(inventory_read(store, &read), cases[i].says ? -EINVAL : 0);
		if (cases[i].says)
			assert_failure_says(cases[i].says);
		image_free(read);
		image_free(inventory);
	}
	image_store_close(store);
}

/* Images of an incomplete dump do not become part of the next one. Files that are no images stay. */
static void is_cleared(void **state unused)
{
	static const char *const old[] = { "core-1.img",     "pages-7.img",  "pagemap-shmem-5.img",
					   "filelocks.img",  "memfd.img",    "hashes-7.img",
					   "pagemap-12.img", "tty-data.img", "pagemap-3.img.new" };
	static const char *const other[] = { "stats-dump", "dump.log", "notes.img", "core-x.img" };
	struct image_store *store = open_directory(true);

	for (size_t i = 0; i < array_size(old); i++)
		put_file(old[i], "old", 3);
	for (size_t i = 0; i < array_size(other); i++)
		put_file(other[i], "other", 5);
	assert_int_equal(image_store_begin(store, NULL), 0);
	for (size_t i = 0; i < array_size(old); i++)
		assert_int_equal(faccessat(image_store_directory(store), old[i], F_OK, 0), -1);
	for (size_t i = 0; i < array_size(other); i++)
		assert_int_equal(faccessat(image_store_directory(store), other[i], F_OK, 0), 0);
	image_store_close(store);
}

static size_t begun, begun_open, synced;

static void count_begin(struct image_store *store unused, const char *name unused)
{
	begun++;
}

static void count_begin_open(int fd)
{
	struct stat status;

	assert_int_equal(fstat(fd, &status), 0);
	assert_true(status.st_size > 0); /* it is complete */
	__atomic_fetch_add(&begun_open, 1, __ATOMIC_SEQ_CST);
}

static int count_sync(struct image_store *store unused, const char *name unused)
{
	__atomic_fetch_add(&synced, 1, __ATOMIC_SEQ_CST);
	return 0;
}

/* Each image is synced once, and its writeback begins once before; that of many small ones while others are created. */
static void many_are_synced(void **state unused)
{
	enum { MANY = 500, LARGE = 1 << 20 };
	struct image_store *store = open_directory(true);
	struct image_store_ops ops = *store->ops;
	autofree char *bytes = allocate(LARGE);
	InventoryEntry *inventory = inventory_new();
	struct image *image;

	ops.begin_sync = count_begin;
	ops.begin_sync_open = count_begin_open;
	ops.sync_file = count_sync;
	store->ops = &ops;
	assert_int_equal(image_store_begin(store, NULL), 0);
	for (unsigned long i = 1; i <= MANY; i++) {
		assert_int_equal(image_create(store, &image, IMAGE_PAGES, i), 0);
		assert_int_equal(image_write_bytes(image, bytes, i == MANY ? LARGE : 100), 0);
		assert_int_equal(image_close(image), 0);
	}
	assert_int_equal(image_store_commit(store, &inventory->base), 0);
	assert_int_equal(synced, MANY + 1); /* and inventory.img */
	assert_int_equal(begun + begun_open, synced);
	assert_true(begun_open > 0 && begun > 0);
	image_free(inventory);
	image_store_close(store);
}

int main(void)
{
#define test(function) cmocka_unit_test_setup_teardown(function, prepare, clean)
	const struct CMUnitTest tests[] = {
		test(modes),
		test(links_and_pipes_are_refused),
		test(a_dump_is_complete_or_visibly_not),
		test(a_commit_that_fails),
		test(no_directory),
		test(a_store_by_descriptor),
		test(formats_of_other_versions),
		test(is_cleared),
		test(many_are_synced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
