/*
 * objects_test.c - objects that tasks share: which task is the leader, and that an object is freed with its last user
 * (the address sanitizer checks that).
 */
#include "unit.h"
#include "base/memory.h"
#include "image/message.h"
#include "model/snapshot.h"

static void each_has_its_own(void **state unused)
{
	struct snapshot snapshot;
	struct task *root, *child;

	snapshot_init(&snapshot);
	root = snapshot_add_task(&snapshot, NULL, 10);
	child = snapshot_add_task(&snapshot, root, 11);
	for (enum object_kind kind = 0; kind < OBJECT_KINDS; kind++) {
		assert_true(task_leads(root, kind) && task_leads(child, kind));
		assert_false(tasks_share(root, child, kind));
	}
	snapshot_free(&snapshot);
}

static void three_share(void **state unused)
{
	struct snapshot snapshot;
	struct task *root, *tasks[3], *task;
	size_t leaders = 0;

	snapshot_init(&snapshot);
	root = snapshot_add_task(&snapshot, NULL, 10);
	for (int i = 0; i < 3; i++)
		tasks[i] = snapshot_add_task(&snapshot, root, 11 + i);
	tasks[0]->directories->fs = message_new(FsEntry, fs_entry);
	tasks[0]->space->mm = message_new(MmEntry, mm_entry);
	tasks[0]->table->items = allocate_array(2, sizeof(*tasks[0]->table->items));
	for (enum object_kind kind = 0; kind < OBJECT_KINDS; kind++)
		for (int i = 1; i < 3; i++)
			task_share_object(tasks[i], kind, tasks[i - 1]);
	assert_ptr_equal(tasks[2]->space->mm, tasks[0]->space->mm);
	for (enum object_kind kind = 0; kind < OBJECT_KINDS; kind++) {
		assert_true(tasks_share(tasks[0], tasks[2], kind));
		assert_false(tasks_share(root, tasks[2], kind));
		assert_true(task_leads(tasks[0], kind));
		assert_false(task_leads(tasks[1], kind) || task_leads(tasks[2], kind));
		assert_int_equal(task_object(tasks[1], kind)->user_count, 3);
	}
	for_each_leader (task, &snapshot, OBJECT_DESCRIPTORS)
		leaders++;
	assert_int_equal(leaders, 2);
	snapshot_free(&snapshot);
}

static void ids(void **state unused)
{
	TaskKobjIdsEntry *ids = message_new(TaskKobjIdsEntry, task_kobj_ids_entry);

	for (enum object_kind kind = 0; kind < OBJECT_KINDS; kind++)
		*ids_object(ids, kind) = 5 + kind;
	assert_int_equal(ids->vm_id, 5 + OBJECT_MEMORY);
	assert_int_equal(ids->files_id, 5 + OBJECT_DESCRIPTORS);
	assert_int_equal(ids->fs_id, 5 + OBJECT_DIRECTORIES);
	assert_int_equal(ids->sighand_id, 5 + OBJECT_ACTIONS);
	image_free(ids);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_has_its_own),
		cmocka_unit_test(three_share),
		cmocka_unit_test(ids),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
