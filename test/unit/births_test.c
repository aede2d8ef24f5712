/*
 * births_test.c - which task creates which: tasks that share objects are created by their parent or a sibling, with the
 * right clone flags. Sharing that no clone() can have made is an error.
 */
#include "unit.h"
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "base/memory.h"
#include "image/message.h"
#include "model/births.h"

static struct snapshot snapshot;
static struct task *root;

static struct task *add(struct task *parent, pid_t pid)
{
	struct task *task = snapshot_add_task(&snapshot, parent, pid);

	task_make_threads(task, 1);
	task->cores = allocate(sizeof(*task->cores));
	task->cores[0] = message_new(CoreEntry, core_entry);
	task->cores[0]->tc = message_new(TaskCoreEntry, task_core_entry);
	task->cores[0]->tc->comm = copy_text("test");
	return task;
}

static int set_up(void **state unused)
{
	snapshot_init(&snapshot);
	root = add(NULL, 10);
	return 0;
}

static int tear_down(void **state unused)
{
	snapshot_free(&snapshot);
	return 0;
}

static void alone(void **state unused)
{
	struct task *child = add(root, 11), *grandchild = add(child, 12);

	births_plan(&snapshot);
	assert_null(root->creator);
	assert_ptr_equal(child->creator, root);
	assert_ptr_equal(grandchild->creator, child);
	assert_int_equal(births_flags(child), 0);
	assert_null(births_obstacle(&snapshot, root));
	assert_null(births_obstacle(&snapshot, grandchild));
}

static void by_the_parent(void **state unused)
{
	struct task *child = add(root, 11);

	task_share_object(child, OBJECT_DESCRIPTORS, root);
	task_share_object(child, OBJECT_DIRECTORIES, root);
	births_plan(&snapshot);
	assert_ptr_equal(child->creator, root);
	assert_int_equal(births_flags(child), CLONE_FILES | CLONE_FS);
}

/* Three children: the third shares its files with the first, and its directories with both others. */
static void by_a_sibling(void **state unused)
{
	struct task *first = add(root, 11), *second = add(root, 12), *third = add(root, 13), *created;
	pid_t order[2];
	size_t count = 0;

	task_share_object(second, OBJECT_DIRECTORIES, first);
	task_share_object(third, OBJECT_DIRECTORIES, first);
	task_share_object(third, OBJECT_DESCRIPTORS, first);
	births_plan(&snapshot);
	assert_ptr_equal(first->creator, root);
	assert_ptr_equal(second->creator, first);
	assert_ptr_equal(third->creator, first);
	assert_int_equal(births_flags(second), CLONE_PARENT | CLONE_FS);
	assert_int_equal(births_flags(third), CLONE_PARENT | CLONE_FS | CLONE_FILES);
	list_for_each (created, &first->created, creation)
		order[count++] = created->pid;
	assert_int_equal(count, 2);
	assert_true(order[0] == 12 && order[1] == 13);
}

static void by_nobody(void **state unused)
{
	struct task *first = add(root, 11), *second = add(root, 12), *nephew = add(second, 13);
	char *obstacle;

	task_share_object(nephew, OBJECT_DESCRIPTORS, first);
	births_plan(&snapshot);
	assert_null(nephew->creator);
	obstacle = births_obstacle(&snapshot, nephew);
	assert_non_null(strstr(obstacle, "process 13"));
	assert_non_null(strstr(obstacle, "process 11"));
	free(obstacle);
}

/* A task that is created with CLONE_PARENT has the exit signal of its creator. */
static void exit_signals(void **state unused)
{
	struct task *first = add(root, 11), *second = add(root, 12);
	char *obstacle;

	message_set(second->cores[0]->tc, exit_signal, SIGUSR1);
	task_share_object(second, OBJECT_DESCRIPTORS, first);
	births_plan(&snapshot);
	obstacle = births_obstacle(&snapshot, second);
	assert_non_null(obstacle);
	free(obstacle);
	message_set(first->cores[0]->tc, exit_signal, SIGUSR1);
	births_plan(&snapshot);
	assert_ptr_equal(second->creator, first);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(alone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(by_the_parent, set_up, tear_down),
		cmocka_unit_test_setup_teardown(by_a_sibling, set_up, tear_down),
		cmocka_unit_test_setup_teardown(by_nobody, set_up, tear_down),
		cmocka_unit_test_setup_teardown(exit_signals, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
