/*
 * flatten_test.c - turns a chain into one directory: the memory is the same, nothing is left of the chain, and after
 * every step there is something that can be restored.
 */
#include "unit.h"
#include "chains.h"
#include <sys/wait.h>
#include "image/store.h"
#include "memory/flatten.h"
#include "memory/pages_image.h"

static struct image_store *open_named(const char *name, bool for_writing)
{
	autofree char *path = format_text("%s/%s", directory, name);
	struct image_store *store;

	assert_int_equal(image_store_open_directory(&store, path, for_writing), 0);
	return store;
}

/* All pages are those of the model, from whatever layer they are read. */
static void assert_memory(struct image_store *store, unsigned long id, const int *owner, unsigned pages,
			  size_t layers)
{
	char expected[PAGE_SIZE], found[PAGE_SIZE];
	struct page_chain *chain;
	struct page_stack stack;

	assert_int_equal(page_chain_open(&chain, store), 0);
	assert_true(!layers || page_chain_length(chain) == layers);
	assert_int_equal(page_stack_open(&stack, chain, IMAGE_PAGEMAP, id), 0);
	for (unsigned page = 0; page < pages; page++) {
		size_t index = page_runs_find(&stack.runs, PAGES(page));
		const struct page_run *run = &stack.runs.items[index];
		bool is_there = index < stack.runs.count && run->start <= PAGES(page);

		assert_int_equal(is_there, owner[page] != NOBODY);
		if (!is_there)
			continue;
		fill_page(expected, owner[page], page);
		assert_int_equal(
			page_stack_read(&stack, run->layer, found, 1, run->offset + PAGES(page) - run->start),
			0);
		assert_string_equal(found, expected);
		assert_memory_equal(found, expected, PAGE_SIZE);
	}
	page_stack_close(&stack);
	page_chain_close(chain);
}

static void assert_flat(struct image_store *store, const int *owner, unsigned pages, uint32_t version)
{
	InventoryEntry *inventory;

	assert_memory(store, ID, owner, pages, 1);
	assert_int_equal(inventory_read_memory(store, &inventory), 0);
	assert_int_equal(inventory->snapshot_id, 1);
	assert_false(inventory->has_parent_id);
	assert_int_equal(inventory->img_version, version);
	image_free(inventory);
}

static size_t count_images(struct image_store *store, const char *beginning)
{
	struct image_names names;
	size_t count = 0;

	assert_int_equal(image_store_list(store, &names), 0);
	for (size_t i = 0; i < names.count; i++)
		count += !strncmp(names.items[i], beginning, strlen(beginning));
	image_names_free(&names);
	return count;
}

static bool is_packed_by_chance(unsigned seed, int layer)
{
	return seed >> (1 + layer % 4) & 1;
}

/* Some layers are compressed, or none. Returns whether one is that has visible pages. */
static bool pack_by_chance(unsigned seed, unsigned layers, const int *owner)
{
	bool is_visible = false;

	for (unsigned i = 0; i < layers; i++)
		if (is_packed_by_chance(seed, i))
			pack_layer(i);
	for (unsigned page = 0; page < MOST_PAGES; page++)
		is_visible |= owner[page] != NOBODY && is_packed_by_chance(seed, owner[page]);
	return is_visible;
}

static void in_place(void **state unused)
{
	for (unsigned seed = 1; seed <= 20; seed++) {
		unsigned layers = 1 + seed % 12, pages = 1 + seed * 37 % MOST_PAGES;
		struct flatten_statistics statistics;
		struct image_store *store;
		int owner[MOST_PAGES];
		bool is_packed;

		make_chain_by_chance(seed, layers, pages, owner);
		is_packed = pack_by_chance(seed, layers, owner);
		put_file("0/hashes-1.img", "old", 3);
		put_file("0/pages-99.img", "left by a crash", 15);
		store = layer_open(0, false);
		assert_int_equal(flatten_in_place(store, &statistics), 0);
		assert_int_equal(count_images(store, "pages-lz4-"), is_packed);
		assert_int_equal(statistics.layers, layers);
		assert_flat(store, owner, pages, is_packed ? 3 : 2);
		assert_int_equal(count_images(store, "pages-"), 1);
		assert_int_equal(count_images(store, "parent"), 0);
		/* The directory is flat already. */
		assert_int_equal(flatten_in_place(store, &statistics), 0);
		assert_int_equal(statistics.pages, 0);
		assert_flat(store, owner, pages, is_packed ? 3 : 2);
		image_store_close(store);
		assert_int_equal(clean(NULL) ?: prepare(NULL), 0);
	}
}

static void into_another(void **state unused)
{
	struct flatten_statistics statistics;
	struct image_store *store, *out;
	int owner[MOST_PAGES];

	make_chain_by_chance(7, 9, MOST_PAGES, owner);
	put_file("0/core-4711.img", "whatever it is", 14);
	put_file("0/tmpfs-dev-12.tar.gz.img", "of a peer", 9);
	put_file("0/hashes-1.img", "old", 3);
	put_file("0/dump.log", "no image", 8);
	put_file("0/tracking.img", "of another place", 16);
	store = layer_open(0, false);
	out = open_named("out", true);
	assert_int_equal(flatten_into(store, out, &statistics), 0);
	assert_flat(out, owner, MOST_PAGES, 2);
	assert_int_equal(count_images(out, "core-4711.img"), 1);
	assert_int_equal(count_images(out, "tmpfs-dev-12.tar.gz.img"), 1);
	assert_int_equal(count_images(out, "hashes-"), 0);
	assert_int_equal(count_images(out, "dump.log"), 0);
	assert_int_equal(count_images(out, "tracking.img"), 0);
	assert_int_equal(count_images(out, "pages-"), 1);
	/* The old directory has not changed. */
	close_stack((struct opened[]){ open_stack(0) });
	assert_int_equal(count_images(store, "parent"), 1);
	/* Existing images are not overwritten, neither its own nor others. */
	assert_true(flatten_into(store, out, &statistics) < 0);
	assert_failure_says("already contains images");
	assert_true(flatten_into(store, store, &statistics) < 0);
	assert_failure_says("already contains images");
	close_stack((struct opened[]){ open_stack(0) });
	image_store_close(out);
	image_store_close(store);
}

static void set_inventory(unsigned layer, uint32_t version)
{
	struct image_store *store = layer_open(layer, true);
	InventoryEntry *inventory;

	assert_int_equal(inventory_read_memory(store, &inventory), 0);
	inventory->img_version = version;
	if (!version)
		message_set(inventory, pre_dump_mode, 1);
	assert_int_equal(inventory_replace(store, inventory), 0);
	image_free(inventory);
	image_store_close(store);
}

/* The second page of layer 2 is not visible. */
static void make_three_layers(int *owner, uint32_t version)
{
	memset(owner, 0xff, MOST_PAGES * sizeof(*owner));
	layer(2, false, { 1, 1, HERE });
	layer(1, true, { 2, 2, HERE });
	layer(0, true, { 2, 1, PARENT }, { 3, 1, HERE });
	owner[2] = 1;
	owner[3] = 0;
	set_inventory(0, version);
}

/* It does not matter what the newest snapshot says or is, but which pages it needs. */
static void packed_only_if_needed(void **state unused)
{
	const uint32_t versions[] = { 0, 2, 3 };

	for (size_t i = 0; i < 2 * 4 * array_size(versions); i++) {
		uint32_t version = versions[i / 8];
		unsigned packed = i % 4;
		bool is_packed = packed < 2, into = i & 4;
		struct flatten_statistics statistics;
		struct image_store *store, *out;
		int owner[MOST_PAGES];

		make_three_layers(owner, version);
		if (packed < 3)
			pack_layer(packed);
		store = layer_open(0, false);
		out = into ? open_named("out", true) : store;
		assert_int_equal(into ? flatten_into(store, out, &statistics) :
					flatten_in_place(store, &statistics),
				 0);
		assert_flat(out, owner, 5, !version ? 0 : is_packed ? 3 : 2);
		assert_int_equal(count_images(out, "pages-lz4-"), is_packed);
		if (into)
			image_store_close(out);
		image_store_close(store);
		assert_int_equal(clean(NULL) ?: prepare(NULL), 0);
	}
}

static void chains_that_cannot_be_flattened(void **state unused)
{
	struct flatten_statistics statistics;
	struct image_store *store;
	struct opened opened;

	layer(1, false, { 1, 5, HERE });
	layer(0, true, { 1, 6, PARENT });
	store = layer_open(0, false);
	assert_true(flatten_in_place(store, &statistics) < 0);
	assert_failure_says("leaves the page at 0x6000 to its parent");
	assert_int_equal(count_images(store, "pages-"), 1);
	layer(0, true, { 1, 5, PARENT });
	put_file("0/pages-4294967295.img", "", 0);
	assert_true(flatten_in_place(store, &statistics) < 0);
	assert_failure_says("no free numbers");
	opened = open_stack(0);
	assert_pages(&opened.stack, &opened.stack.runs);
	close_stack(&opened);
	image_store_close(store);
}

static void holes(void **state unused)
{
	autofree char *old = format_text("%s/1/pages-2.img", directory),
		      *new = format_text("%s/0/pages-2.img", directory);
	struct flatten_statistics statistics;
	struct image_store *store;
	struct stat status;
	int fd;

	layer(1, false, { 1, 1000, HERE });
	layer(0, true, { 1, 1000, PARENT });
	fd = open(old, O_WRONLY);
	assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGES(100), PAGES(800)),
			 0);
	close(fd);
	store = layer_open(0, false);
	assert_int_equal(flatten_in_place(store, &statistics), 0);
	assert_int_equal(statistics.pages, 1000);
	assert_int_equal(statistics.shared + statistics.copied, PAGES(200));
	assert_int_equal(stat(new, &status), 0);
	assert_int_equal(status.st_size, PAGES(1000));
	assert_true(status.st_blocks * 512 < (long)PAGES(300));
	image_store_close(store);
}

/* ---- in place, and killed: the process ends after a number of changes of names in the store ---- */

static int changes_left;
static struct image_store_ops ops_with_a_limit;

/* Half of the time after the change, otherwise before it. */
#define mortal(function, ...)                                                   \
	do {                                                                    \
		int result_made;                                                \
		if (changes_left-- == 0)                                        \
			_exit(77);                                              \
		result_made = directory_store_ops.function(store, __VA_ARGS__); \
		if (changes_left-- == 0)                                        \
			_exit(77);                                              \
		return result_made;                                             \
	} while (0)

static int open_write_within_limit(struct image_store *store, const char *name)
{
	mortal(open_write, name);
}

static int remove_within_limit(struct image_store *store, const char *name)
{
	mortal(remove, name);
}

static int rename_within_limit(struct image_store *store, const char *from, const char *to)
{
	mortal(rename, from, to);
}

/* Runs flatten in a process that ends after `changes` changes. Returns its exit status. */
static int flatten_for_a_while(int changes)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		struct image_store *store = layer_open(0, false);
		struct flatten_statistics statistics;

		changes_left = changes;
		ops_with_a_limit = directory_store_ops;
		ops_with_a_limit.open_write = open_write_within_limit;
		ops_with_a_limit.remove = remove_within_limit;
		ops_with_a_limit.rename = rename_within_limit;
		store->ops = &ops_with_a_limit;
		_exit(flatten_in_place(store, &statistics) ? 1 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* A second task with the same pages: when the first is flattened, the second still has to be. */
static void make_second_task(unsigned layers)
{
	for (unsigned layer = 0; layer < layers; layer++) {
		autofree char *command = format_text("cp %s/%u/pagemap-%d.img %s/%u/pagemap-12.img",
						     directory, layer, ID, directory, layer);

		assert_int_equal(system(command), 0);
	}
}

/* Whoever refuses compressed pages knows it before there are any. */
static void assert_announced(struct image_store *store, unsigned long id)
{
	struct pagemap pagemap = { 0 };
	InventoryEntry *inventory;

	assert_int_equal(inventory_read_memory(store, &inventory), 0);
	assert_int_equal(pagemap_read(&pagemap, store, IMAGE_PAGEMAP, id), 0);
	if (pages_image_is_packed(store, pagemap.pages_id))
		assert_int_equal(inventory->img_version, 3);
	image_free(inventory);
	pagemap_free(&pagemap);
}

static void be_killed(bool is_packed)
{
	enum { LAYERS = 5, SEED = 3 };
	int owner[MOST_PAGES], status = 77, changes;

	for (changes = 0; status == 77; changes++) {
		struct flatten_statistics statistics;
		struct image_store *store;

		make_chain_by_chance(SEED, LAYERS, MOST_PAGES, owner);
		make_second_task(LAYERS);
		for (unsigned i = 1; is_packed && i < LAYERS; i++)
			pack_layer(i);
		status = flatten_for_a_while(changes);
		store = layer_open(0, false);
		assert_announced(store, ID);
		assert_announced(store, 12);
		assert_memory(store, ID, owner, MOST_PAGES, 0);
		assert_memory(store, 12, owner, MOST_PAGES, 0);
		assert_int_equal(flatten_in_place(store, &statistics), 0);
		assert_flat(store, owner, MOST_PAGES, is_packed ? 3 : 2);
		assert_memory(store, 12, owner, MOST_PAGES, 1);
		assert_int_equal(count_images(store, "pages-"), 2);
		assert_int_equal(count_images(store, "inventory.img"), 1);
		image_store_close(store);
		assert_int_equal(clean(NULL) ?: prepare(NULL), 0);
	}
	assert_int_equal(status, 0);
	assert_true(changes > 10);
}

static void killed(void **state unused)
{
	be_killed(false);
	be_killed(true);
}

int main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, prepare, clean)
	const struct CMUnitTest tests[] = {
		test(in_place), test(into_another), test(chains_that_cannot_be_flattened),
		test(holes),	test(killed),	    test(packed_only_if_needed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
