/*
 * chain_test.c - follows `parent`: where it may lead, and which chains are refused.
 */
#include "unit.h"
#include "chains.h"

static void assert_length(unsigned layer, size_t length)
{
	struct image_store *store = layer_open(layer, false);
	struct page_chain *chain;

	assert_int_equal(page_chain_open(&chain, store), 0);
	assert_int_equal(page_chain_length(chain), length);
	assert_ptr_equal(page_chain_store(chain, 0), store);
	for (size_t i = 0; i < length; i++)
		assert_int_equal(page_chain_snapshot(chain, i), layer + i + 1);
	page_chain_close(chain);
	image_store_close(store);
}

static void assert_no_chain(const char *words)
{
	struct image_store *store = layer_open(0, false);
	struct page_chain *chain;

	assert_true(page_chain_open(&chain, store) < 0);
	assert_null(chain);
	assert_failure_says(words);
	image_store_close(store);
}

static void make_chain(unsigned layers)
{
	for (unsigned number = layers; number--;)
		make_layer(number, number + 1 < layers, NULL, 0);
}

static void lengths(void **state unused)
{
	make_chain(30);
	assert_length(0, 30);
	assert_length(28, 2);
	assert_length(29, 1);
}

static void links_to_any_place(void **state unused)
{
	autofree char *absolute = layer_path(1), *path = layer_path(2),
		      *link = format_text("%s/link", directory);

	make_chain(3);
	set_parent(0, absolute);
	assert_length(0, 3);
	assert_int_equal(symlink("2", link), 0);
	set_parent(1, "../link");
	assert_length(0, 3);
	/* Relative to the directory that it is in, not to the current one. */
	assert_int_equal(chdir(path), 0);
	set_parent(0, "../0/../1");
	assert_length(0, 3);
	assert_int_equal(chdir("/"), 0);
}

static void loops(void **state unused)
{
	make_chain(3);
	set_parent(2, "../0");
	assert_no_chain("/0, which builds on it");
	set_parent(2, ".");
	assert_no_chain("/2, which builds on it");
	set_parent(0, "../0");
	assert_no_chain("/0, which builds on it");
	set_parent(0, "parent");
	assert_no_chain("Too many levels");
}

static void missing(void **state unused)
{
	autofree char *inventory = format_text("%s/1/inventory.img", directory);

	make_chain(2);
	set_parent(0, "../elsewhere");
	assert_no_chain("/0 is missing: there is no ");
	set_parent(0, "/nowhere/at/all");
	assert_no_chain("there is no /nowhere/at/all");
	set_parent(0, "inventory.img");
	assert_no_chain("Not a directory");
	set_parent(0, "../1");
	assert_length(0, 2);
	assert_int_equal(unlink(inventory), 0);
	assert_no_chain("is not a complete snapshot");
	put_file("1/inventory.img", "\x16\x31\x31\x58", 4);
	assert_no_chain("1/inventory.img");
}

/* The newest snapshot may be incomplete. */
static void not_complete(void **state unused)
{
	autofree char *inventory = format_text("%s/0/inventory.img", directory);
	struct image_store *store;
	struct page_chain *chain;

	make_chain(2);
	assert_int_equal(unlink(inventory), 0);
	store = layer_open(0, false);
	assert_int_equal(page_chain_open(&chain, store), 0);
	assert_int_equal(page_chain_length(chain), 2);
	assert_int_equal(page_chain_snapshot(chain, 0), 0);
	assert_false(page_chain_is_complete(chain));
	page_chain_close(chain);
	image_store_close(store);
}

static void set_inventory(unsigned layer, uint64_t snapshot, uint64_t parent, int64_t freed_for)
{
	struct image_store *store = layer_open(layer, true);
	InventoryEntry *inventory = inventory_new();

	message_set(inventory, snapshot_id, snapshot);
	inventory->has_snapshot_id = snapshot != 0;
	message_set(inventory, parent_id, parent);
	inventory->has_parent_id = parent != 0;
	if (freed_for >= 0)
		message_set(inventory, freed_for, freed_for);
	assert_int_equal(image_store_commit(store, &inventory->base), 0);
	image_free(inventory);
	image_store_close(store);
}

static void of_another_tree(void **state unused)
{
	make_chain(3);
	set_inventory(1, 77, 3, -1);
	assert_no_chain("/1, the parent of ");
	set_inventory(0, 1, 77, -1);
	set_inventory(1, 77, 3, -1);
	close_stack((struct opened[]){ open_stack(0) });
	/* Snapshots of the peer have no ids, neither their own nor their parent's. */
	set_inventory(1, 0, 3, -1);
	assert_no_chain("/1, the parent of ");
	set_inventory(0, 0, 0, -1);
	close_stack((struct opened[]){ open_stack(0) });
	set_inventory(0, 1, 0, -1);
	set_inventory(1, 2, 3, -1);
	close_stack((struct opened[]){ open_stack(0) });
}

static void has_freed_pages(void **state unused)
{
	make_chain(3);
	set_inventory(2, 3, 0, 2); /* for layer 1 */
	assert_length(0, 3);
	assert_length(1, 2);
	set_inventory(2, 3, 0, 1); /* for layer 0 */
	assert_length(0, 3);
	set_inventory(2, 3, 0, 99); /* for a snapshot that is not in the chain */
	assert_no_chain("/2 that a later snapshot replaces");
	set_inventory(2, 3, 0, 0); /* for a snapshot without an id */
	assert_no_chain("/2 that a later snapshot replaces");
	set_inventory(1, 0, 0, -1);
	set_inventory(0, 1, 0, -1);
	close_stack((struct opened[]){ open_stack(0) });
	set_inventory(0, 1, 2, 0); /* no snapshot here builds on it */
	assert_no_chain("/0 that a later snapshot replaces");
	set_inventory(0, 1, 2, 1);
	assert_no_chain("/0 that a later snapshot replaces");
}

/* An open chain can be checked for changes. */
static void changes_meanwhile(void **state unused)
{
	struct opened opened;

	make_chain(3);
	opened = open_stack(0);
	assert_int_equal(page_chain_check(opened.chain), 0);
	set_inventory(2, 3, 0, 1); /* pages were freed for the snapshot that is open */
	assert_int_equal(page_chain_check(opened.chain), 0);
	set_inventory(2, 3, 0, 99); /* … for another one */
	assert_int_not_equal(page_chain_check(opened.chain), 0);
	assert_failure_says("/2 was changed meanwhile");
	set_inventory(2, 77, 0, -1); /* another dump */
	assert_int_not_equal(page_chain_check(opened.chain), 0);
	assert_failure_says("/2 was changed meanwhile");
	set_inventory(2, 3, 0, -1);
	set_inventory(1, 2, 0, -1); /* flattened: its pages are the same */
	assert_int_equal(page_chain_check(opened.chain), 0);
	image_store_close(layer_open(0, true));
	assert_int_equal(page_chain_check(opened.chain), 0);
	assert_int_equal(image_store_remove(opened.store, "inventory.img"), 0);
	assert_int_not_equal(page_chain_check(opened.chain), 0);
	assert_failure_says("/0 was changed meanwhile");
	close_stack(&opened);
}

static void finds_itself(void **state unused)
{
	struct image_store *store;
	struct opened opened;
	size_t layer;

	make_chain(4);
	opened = open_stack(1);
	store = layer_open(3, false);
	assert_int_equal(page_chain_find(opened.chain, store, &layer), 1);
	assert_int_equal(layer, 2);
	image_store_close(store);
	store = layer_open(0, false);
	assert_int_equal(page_chain_find(opened.chain, store, &layer), 0);
	image_store_close(store);
	close_stack(&opened);
}

int main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, prepare, clean)
	const struct CMUnitTest tests[] = {
		test(lengths),	       test(links_to_any_place), test(loops),
		test(missing),	       test(not_complete),	 test(of_another_tree),
		test(has_freed_pages), test(changes_meanwhile),	 test(finds_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
