/*
 * namespaces_test.c - namespaces in images: which task is in which, and which host names are valid.
 */
#include "unit.h"
#include <sched.h>
#include <string.h>
#include "base/error.h"
#include "base/memory.h"
#include "image/message.h"
#include "image/image.h"
#include "namespaces/kind.h"
#include "utsns.pb-c.h"

#define OWN 4

static struct snapshot snapshot;

static struct task *add(struct task *parent, pid_t pid, uint32_t id)
{
	struct task *task = snapshot_add_task(&snapshot, parent, pid);

	task->ids = message_new(TaskKobjIdsEntry, task_kobj_ids_entry);
	message_set(task->ids, uts_ns_id, id);
	return task;
}

static void write_names(uint32_t id, size_t length)
{
	UtsnsEntry entry = UTSNS_ENTRY__INIT;
	char name[80] = "";

	memset(name, 'x', length);
	entry.nodename = name;
	entry.domainname = "domain";
	assert_int_equal(image_write_single(snapshot.images, IMAGE_UTSNS, id, &entry.base), 0);
}

static int set_up(void **state unused)
{
	failure_clear();
	snapshot_init(&snapshot);
	assert_int_equal(image_store_open_memory(&snapshot.images), 0);
	return 0;
}

static int tear_down(void **state unused)
{
	image_store_close(snapshot.images);
	snapshot_free(&snapshot);
	return 0;
}

static int load(void)
{
	TaskKobjIdsEntry *ours = message_new(TaskKobjIdsEntry, task_kobj_ids_entry);
	int result;

	message_set(ours, uts_ns_id, OWN);
	result = namespaces_load(&snapshot, ours);
	image_free(ours);
	return result;
}

/* The root is born in its own; whoever shares them with it has nothing to join, and all others are made. */
static void born_in_its_own(void **state unused)
{
	struct task *root = add(NULL, 10, 9), *same = add(root, 11, 9);

	add(root, 12, OWN);
	add(root, 13, 10);
	write_names(9, 3);
	write_names(10, 3);
	assert_int_equal(load(), 0);
	assert_int_equal(namespaces_of_birth(&snapshot), CLONE_NEWUTS);
	/* Nothing is joined: no descriptor is open. */
	same->creator = root;
	assert_int_equal(namespaces_join(&snapshot, root), 0);
	assert_int_equal(namespaces_join(&snapshot, same), 0);
}

static void born_in_criu_s(void **state unused)
{
	struct task *root = add(NULL, 10, OWN);

	add(root, 11, 9);
	write_names(9, 3);
	assert_int_equal(load(), 0);
	assert_int_equal(namespaces_of_birth(&snapshot), 0);
	assert_int_equal(namespaces_join(&snapshot, root), 0);
}

/* Once in criu, and then in the root. */
static void passed_on(void **state unused)
{
	struct letter written = { 0 }, read;

	add(add(NULL, 10, OWN), 11, 9);
	write_names(9, 3);
	assert_int_equal(load(), 0);
	snapshot.namespaces[0]->fd = 1007;
	snapshot.own_namespaces[NAMESPACE_UTS] = 1008;
	namespaces_pass(&snapshot, &written);
	snapshot.namespaces[0]->fd = snapshot.own_namespaces[NAMESPACE_UTS] = -1;
	read = (struct letter){ .bytes = written.bytes, .size = written.size, .is_read = true };
	namespaces_pass(&snapshot, &read);
	assert_int_equal(snapshot.namespaces[0]->fd, 1007);
	assert_int_equal(snapshot.own_namespaces[NAMESPACE_UTS], 1008);
	letter_free(&written);
}

static void namespaces_of_tasks(void **state unused)
{
	struct task *root = add(NULL, 10, OWN), *one = add(root, 11, 9), *other = add(one, 12, 9),
		    *third = add(root, 13, 10);

	write_names(9, 64);
	write_names(10, 0);
	assert_int_equal(load(), 0);
	assert_int_equal(snapshot.namespace_count, 2);
	assert_null(root->namespaces[NAMESPACE_UTS]);
	assert_non_null(one->namespaces[NAMESPACE_UTS]);
	assert_ptr_equal(other->namespaces[NAMESPACE_UTS], one->namespaces[NAMESPACE_UTS]);
	assert_ptr_not_equal(third->namespaces[NAMESPACE_UTS], one->namespaces[NAMESPACE_UTS]);
	namespaces_add_ids(other, root->ids);
	assert_int_equal(root->ids->uts_ns_id, 9);
	namespaces_add_ids(NULL, root->ids);
	assert_int_equal(root->ids->uts_ns_id, OWN);
}

static void image_is_missing(void **state unused)
{
	add(NULL, 10, 9);
	assert_int_not_equal(load(), 0);
	assert_true(has_failed());
}

static void name_is_too_long(void **state unused)
{
	add(NULL, 10, 9);
	write_names(9, 65);
	assert_int_not_equal(load(), 0);
	assert_true(has_failed());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(namespaces_of_tasks, set_up, tear_down),
		cmocka_unit_test_setup_teardown(born_in_its_own, set_up, tear_down),
		cmocka_unit_test_setup_teardown(born_in_criu_s, set_up, tear_down),
		cmocka_unit_test_setup_teardown(passed_on, set_up, tear_down),
		cmocka_unit_test_setup_teardown(image_is_missing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(name_is_too_long, set_up, tear_down),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
