/*
 * plugins_test.c - the names of plugins that images need. Live tests load plugins (test/live/tables/plugins.py).
 */
#include "unit.h"
#include <errno.h>
#include "base/error.h"
#include "criu-plugin.h"
#include "plugins/plugins.h"

static void a_dump_notes_each_plugin_once(void **state unused)
{
	assert_int_equal(plugins_needed()->count, 0);
	assert_int_equal(add_inventory_plugin("one"), 0);
	assert_int_equal(add_inventory_plugin("two"), 0);
	assert_int_equal(add_inventory_plugin("one"), 0);
	assert_int_equal(plugins_needed()->count, 2);
	assert_string_equal(plugins_needed()->items[1], "two");
	plugins_end(0, -1);
	assert_int_equal(plugins_needed()->count, 0);
}

static void a_restore_needs_all_of_them(void **state unused)
{
	char *names[] = { "one", "two", "one" };

	plugins_expect(names, array_size(names));
	assert_int_equal(check_and_remove_inventory_plugin("on", 2), 0);
	assert_int_equal(check_and_remove_inventory_plugin("one more", 3), 1); /* the length counts */
	assert_int_equal(check_and_remove_inventory_plugin("one", 3), 0);
	assert_true(attempted(plugins_check_expected()));
	assert_int_equal(check_and_remove_inventory_plugin("two", 3), 1);
	assert_int_equal(plugins_check_expected(), 0);
	plugins_end(0, -1);
}

static void without_plugins_nothing_happens(void **state unused)
{
	uint64_t offset = 4096;
	int fd = -1;

	assert_false(plugins_have(CR_PLUGIN_HOOK__DUMP_EXT_FILE));
	assert_false(plugins_have(CR_PLUGIN_HOOK__MAX));
	assert_int_equal(plugins_dump_file(0, 1), -ENOTSUP);
	assert_int_equal(plugins_tell_process(CR_PLUGIN_HOOK__PAUSE_DEVICES, 1), 0);
	assert_int_equal(plugins_update_mapping("/dev/null", 0, &offset, &fd), 0);
	assert_int_equal(offset, 4096);
	assert_int_equal(plugins_sync(), 0);
	assert_int_equal(criu_get_image_dir(), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_dump_notes_each_plugin_once),
		cmocka_unit_test(a_restore_needs_all_of_them),
		cmocka_unit_test(without_plugins_nothing_happens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
