/*
 * replace_test.c - a dump into a directory that holds an older one: whatever fails, and wherever criu dies, one of
 * the two is there, complete. And two dumps cannot be made there at the same time.
 *
 * The test counts the calls that change names, and ends the process before number N. Then another process opens the
 * directory.
 */
#include "images.h"
#include <dirent.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define DIED 7

static int calls_left; /* 0: no limit */

static void may_die_here(void)
{
	if (calls_left && !--calls_left)
		_exit(DIED);
}

int renameat(int from, const char *old, int to, const char *new)
{
	may_die_here();
	return syscall(SYS_renameat2, from, old, to, new, 0);
}

int unlinkat(int at, const char *name, int flags)
{
	may_die_here();
	return syscall(SYS_unlinkat, at, name, flags);
}

int mkdirat(int at, const char *name, mode_t mode)
{
	may_die_here();
	return syscall(SYS_mkdirat, at, name, mode);
}

/* ---- two different dumps ---- */

/* The images of each dump: some are in both, some only in one. */
static const unsigned long tasks[2][4] = { { 1, 2, 3, 0 }, { 2, 4, 5, 0 } };

static void make_images(struct image_store *store, int which)
{
	for (const unsigned long *task = tasks[which]; *task; task++) {
		struct image *image;

		assert_int_equal(image_create(store, &image, IMAGE_PAGES, *task), 0);
		assert_int_equal(image_write_bytes(image, which ? "new" : "old", 3), 0);
		assert_int_equal(image_close(image), 0);
	}
}

static int commit(struct image_store *store, int which)
{
	InventoryEntry *inventory = inventory_new();
	int result;

	inventory->snapshot_id = which + 1;
	result = image_store_commit(store, &inventory->base);
	image_free(inventory);
	return result;
}

static const char *const parents[2] = { "../zero", "../one" };

static struct image_store *open_for_dump(void)
{
	struct image_store *store = open_directory(true);

	assert_int_equal(image_store_lock(store, IMAGES_ARE_WRITTEN), 0);
	return store;
}

static void make_old(void)
{
	struct image_store *store = open_for_dump();

	assert_int_equal(image_store_begin(store, parents[0]), 0);
	make_images(store, 0);
	assert_int_equal(commit(store, 0), 0);
	image_store_settle(store);
	image_store_close(store);
	put_file("dump.log", "of the user", 11);
}

static size_t count_entries(bool is_hidden)
{
	DIR *opened = opendir(directory);
	const struct dirent *entry;
	size_t count = 0;

	assert_non_null(opened);
	while ((entry = readdir(opened)))
		count += (entry->d_name[0] == '.') == is_hidden;
	closedir(opened);
	return is_hidden ? count - 2 : count;
}

static void assert_images(int which)
{
	unsigned char bytes[8];
	size_t images = 0;

	for (const unsigned long *task = tasks[which]; *task; task++, images++) {
		autofree char *name = format_text("pages-%lu.img", *task);

		assert_int_equal(get_file(name, bytes, sizeof(bytes)), 3);
		assert_memory_equal(bytes, which ? "new" : "old", 3);
	}
	/* inventory.img, parent, dump.log */
	assert_int_equal(count_entries(false), images + 3);
}

/* Returns which dump a reader finds, and checks that it is complete and alone. The next writer removes hidden files. */
static int look(void)
{
	struct image_store *store = open_directory(false);
	autofree char *target = NULL;
	InventoryEntry *inventory;
	int which;

	assert_int_equal(image_store_lock(store, IMAGES_ARE_READ), 0);
	assert_int_equal(inventory_read(store, &inventory), 0);
	which = inventory->snapshot_id - 1;
	image_free(inventory);
	assert_true(read_link_at(image_store_directory(store), "parent", &target) > 0);
	assert_string_equal(target, parents[which]);
	assert_images(which);
	image_store_close(store);
	return which;
}

/* ---- tests ---- */

enum way { SUCCEEDS, IS_WITHDRAWN, FAILS_BEFORE };

static void dump_over(enum way way)
{
	struct image_store *store = open_for_dump();

	assert_int_equal(image_store_begin(store, parents[1]), 0);
	make_images(store, 1);
	if (way != FAILS_BEFORE)
		assert_int_equal(commit(store, 1), 0);
	way == SUCCEEDS ? image_store_settle(store) : image_store_withdraw(store);
	image_store_close(store);
}

static void one_is_replaced(void **state unused)
{
	make_old();
	dump_over(SUCCEEDS);
	assert_int_equal(look(), 1);
}

static void one_that_fails(void **state unused)
{
	make_old();
	dump_over(FAILS_BEFORE);
	assert_int_equal(look(), 0);
	dump_over(IS_WITHDRAWN);
	assert_int_equal(look(), 0);
}

/* If the directory had no dump before, it has only foreign files afterwards. */
static void one_that_fails_alone(void **state unused)
{
	put_file("dump.log", "of the user", 11);
	put_file("pages-9.img", "left by a crash", 15);
	dump_over(FAILS_BEFORE);
	assert_int_equal(count_entries(false) + count_entries(true), 1);
	dump_over(IS_WITHDRAWN);
	assert_int_equal(count_entries(false) + count_entries(true), 1);
}

static void dies(enum way way, int calls)
{
	int status;
	pid_t child = fork();

	if (!child) {
		calls_left = calls;
		dump_over(way);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == DIED || !WEXITSTATUS(status)));
	calls_left = WEXITSTATUS(status) ? -1 : 0;
}

/* Counts the deaths, and after how many of them the new dump is found. */
static void die_everywhere(enum way way, int *deaths, int *renewed)
{
	*deaths = *renewed = 0;
	for (int calls = 1;; calls++) {
		bool has_died;

		make_old();
		assert_int_equal(look(), 0);
		dies(way, calls);
		has_died = calls_left < 0;
		calls_left = 0;
		if (!has_died)
			break;
		++*deaths;
		*renewed += look();
		/* Afterwards another dump can be made. */
		look();
		dump_over(SUCCEEDS);
		assert_int_equal(look(), 1);
		assert_int_equal(count_entries(true), 0);
		assert_int_equal(clean(NULL) ?: prepare(NULL), 0);
	}
	assert_int_equal(look(), way == SUCCEEDS);
}

static void deaths(void **state unused)
{
	int deaths, renewed, without_undo;

	die_everywhere(SUCCEEDS, &deaths, &renewed);
	without_undo = deaths;
	assert_true(deaths > 20);
	assert_in_range(renewed, 15, deaths - 3);
	assert_int_equal(clean(NULL) ?: prepare(NULL), 0);
	die_everywhere(IS_WITHDRAWN, &deaths, &renewed);
	assert_true(deaths > without_undo + 5);
	assert_int_equal(clean(NULL) ?: prepare(NULL), 0);
	die_everywhere(FAILS_BEFORE, &deaths, &renewed);
	assert_true(deaths > 3);
	assert_int_equal(renewed, 0);
}

/* ---- locks ---- */

static int try_lock(enum image_use use)
{
	struct image_store *store = open_directory(true);
	int result = image_store_lock(store, use);

	image_store_close(store);
	return result;
}

static void locks(void **state unused)
{
	struct image_store *store = open_for_dump();
	autofree char *says = format_text("is being written to by process %d", getpid());

	assert_int_equal(try_lock(IMAGES_ARE_WRITTEN), -EBUSY);
	assert_failure_says(says);
	assert_int_equal(try_lock(IMAGES_ARE_READ), -EBUSY);
	assert_failure_says(says);
	/* A writer may read, and stays a writer. */
	assert_int_equal(image_store_lock(store, IMAGES_ARE_READ), 0);
	assert_int_equal(try_lock(IMAGES_ARE_READ), -EBUSY);
	image_store_close(store);

	store = open_directory(false);
	assert_int_equal(image_store_lock(store, IMAGES_ARE_READ), 0);
	assert_int_equal(try_lock(IMAGES_ARE_READ), 0);
	assert_int_equal(try_lock(IMAGES_ARE_WRITTEN), -EBUSY);
	assert_failure_says("is being read by process");
	assert_int_equal(image_store_lock(store, IMAGES_ARE_WRITTEN), 0);
	assert_int_equal(try_lock(IMAGES_ARE_READ), -EBUSY);
	failure_clear();
	image_store_unlock(store);
	assert_int_equal(try_lock(IMAGES_ARE_WRITTEN), 0);
	image_store_close(store);
}

/* A child that keeps the descriptor does not keep the lock. */
static void locks_and_children(void **state unused)
{
	struct image_store *store = open_for_dump();
	pid_t child = fork();

	if (!child) {
		pause();
		_exit(0);
	}
	image_store_close(store);
	assert_int_equal(try_lock(IMAGES_ARE_WRITTEN), 0);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

/* While a dump replaces another one, no process takes its files for leftovers of a crash. */
static void one_at_work(void **state unused)
{
	struct image_store *store;

	make_old();
	store = open_for_dump();
	assert_int_equal(image_store_begin(store, parents[1]), 0);
	make_images(store, 1);
	assert_int_equal(try_lock(IMAGES_ARE_READ), -EBUSY);
	assert_failure_says("is being written to by process");
	assert_int_equal(commit(store, 1), 0);
	image_store_settle(store);
	image_store_close(store);
	assert_int_equal(look(), 1);
}

static void no_parent_link(void **state unused)
{
	struct image_store *store = open_for_dump();
	autofree char *path = format_text("%s/parent", directory);

	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(image_store_begin(store, NULL), -EEXIST);
	assert_failure_says("parent is in the way");
	image_store_withdraw(store);
	assert_int_equal(access(path, F_OK), 0);
	image_store_close(store);
}

int main(void)
{
#define test(function) cmocka_unit_test_setup_teardown(function, prepare, clean)
	const struct CMUnitTest tests[] = {
		test(one_is_replaced), test(one_that_fails), test(one_that_fails_alone),
		test(deaths),	       test(locks),	     test(locks_and_children),
		test(one_at_work),     test(no_parent_link),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
