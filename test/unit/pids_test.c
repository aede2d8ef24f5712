/*
 * pids_test.c - the ids of tasks: the one here and the names are split as NSpid tells; what an image says of nested pid
 * namespaces is taken over or refused; with one namespace nothing is written.
 */
#include "unit.h"
#include <stdlib.h>
#include "base/memory.h"
#include "image/image.h"
#include "kernel/proc.h"
#include "model/snapshot.h"
#include "pstree.pb-c.h"

static struct snapshot snapshot;
static struct task *root, *inner;

static struct pid_levels levels_of(const char *text)
{
	autofree char *line = format_text("NSpid:\t%s\n", text);
	struct pid_levels levels;

	assert_int_equal(proc_parse_levels(line, "NSpid", &levels), 0);
	return levels;
}

static int name_thread(struct thread *thread, const char *text, size_t outside)
{
	struct pid_levels levels = levels_of(text);

	thread->here = levels.ids[0];
	return thread_set_names(thread, &levels, outside);
}

/* A container with pid 1, below it another with a process of two threads. */
static int set_up(void **state unused)
{
	snapshot_init(&snapshot);
	snapshot.levels_outside = 1;
	root = snapshot_add_task_here(&snapshot, NULL, 4711);
	inner = snapshot_add_task_here(&snapshot, root, 4722);
	task_make_threads(root, 1);
	task_make_threads(inner, 2);
	assert_int_equal(name_thread(&root->threads[0], "4711 1", 1), 0);
	assert_int_equal(name_thread(&inner->threads[0], "4722 9 3", 1), 0);
	assert_int_equal(name_thread(&inner->threads[1], "4723 10 4", 1), 0);
	snapshot_name_task(&snapshot, root, root->threads[0].tid);
	snapshot_name_task(&snapshot, inner, inner->threads[0].tid);
	return 0;
}

static int tear_down(void **state unused)
{
	snapshot_free(&snapshot);
	return 0;
}

static void names_are_split(void **state unused)
{
	assert_int_equal(root->here, 4711);
	assert_int_equal(root->pid, 1);
	assert_int_equal(root->threads[0].here, 4711);
	assert_int_equal(root->threads[0].nested_count, 0);
	assert_int_equal(thread_own_id(&root->threads[0]), 1);
	assert_int_equal(inner->pid, 9);
	assert_int_equal(inner->threads[1].tid, 10);
	assert_int_equal(inner->threads[1].nested_count, 1);
	assert_int_equal(thread_own_id(&inner->threads[1]), 4);
	/* The parent waits for it by the id that it has there. */
	assert_int_equal(thread_id_seen_by(&inner->threads[0], root), 9);
	assert_int_equal(thread_id_seen_by(&inner->threads[0], inner), 3);
	assert_int_equal(thread_id_seen_by(&root->threads[0], inner), 0); /* as getppid() says */
}

static void found_by_both(void **state unused)
{
	assert_ptr_equal(snapshot_find_task(&snapshot, 9), inner);
	assert_null(snapshot_find_task(&snapshot, 4722));
	assert_ptr_equal(snapshot_find_task_here(&snapshot, 4722), inner);
	assert_null(snapshot_find_task_here(&snapshot, 9));
	assert_ptr_equal(snapshot_find_thread(&snapshot, 10), inner);
	assert_ptr_equal(snapshot_find_thread_here(&snapshot, 4723), inner);
	assert_true(task_has_thread(inner, 4));
	assert_false(task_has_thread(inner, 10));
}

static void what_the_kernel_tells_gets_a_name(void **state unused)
{
	assert_int_equal(snapshot_name_of(&snapshot, 4711), 1);
	assert_int_equal(snapshot_name_of(&snapshot, 4723), 10);
	assert_int_equal(snapshot_name_of(&snapshot, 77), 0);
	snapshot.levels_outside = 0;
	assert_int_equal(snapshot_name_of(&snapshot, 77), 77);
}

static void outside_of_the_tree(void **state unused)
{
	struct thread thread = { 0 };

	assert_int_equal(name_thread(&thread, "4711", 1), -1);
	assert_int_equal(name_thread(&thread, "4711", 0), 0);
	assert_int_equal(thread.tid, 4711);
	assert_null(thread.nested);
}

static void clone_begins_with_the_innermost(void **state unused)
{
	pid_t ids[PID_LEVELS_MOST];

	assert_int_equal(thread_wanted_ids(&root->threads[0], ids), 1);
	assert_int_equal(ids[0], 1);
	assert_int_equal(thread_wanted_ids(&inner->threads[1], ids), 2);
	assert_int_equal(ids[0], 4);
	assert_int_equal(ids[1], 10);
}

static void as_deep_as_can_be(void **state unused)
{
	struct pid_levels deepest = { .count = 33 };
	struct thread thread = { 0 };
	pid_t ids[PID_LEVELS_MOST];

	for (int i = 0; i < 33; i++)
		deepest.ids[i] = 100 + i;
	assert_int_equal(thread_set_names(&thread, &deepest, 0), -1);
	assert_int_equal(thread_set_names(&thread, &deepest, 1), 0);
	assert_int_equal(thread_wanted_ids(&thread, ids), 32);
	assert_int_equal(ids[0], 132);
	assert_int_equal(ids[31], 101);
	free(thread.nested);
}

/* ---- images ---- */

static PstreeEntry *write_and_read(const struct task *task, size_t *size)
{
	struct image_store *store;
	uint32_t threads[] = { 1, 2 };
	PstreeEntry entry = PSTREE_ENTRY__INIT;
	ProtobufCMessage *read;

	entry.n_threads = task->thread_count;
	entry.threads = threads;
	entry.n_nested_ids = task_nested_ids(task, &entry.nested_ids);
	*size = protobuf_c_message_get_packed_size(&entry.base);
	assert_int_equal(image_store_open_memory(&store), 0);
	assert_int_equal(image_write_single(store, IMAGE_PSTREE, 0, &entry.base), 0);
	assert_int_equal(image_read_single(store, IMAGE_PSTREE, 0, &read), 0);
	image_store_close(store);
	free(entry.nested_ids);
	return (PstreeEntry *)read;
}

static void written_and_read(void **state unused)
{
	struct task task = { .parent = root };
	size_t size;
	PstreeEntry *read = write_and_read(inner, &size);

	assert_int_equal(read->n_nested_ids, 2);
	task_make_threads(&task, 2);
	assert_null(task_take_nested_ids(&task, read->nested_ids, read->n_nested_ids));
	for (int i = 0; i < 2; i++) {
		assert_int_equal(task.threads[i].nested_count, 1);
		assert_int_equal(task.threads[i].nested[0], 3 + i);
	}
	task_free_threads(&task);
	image_free(read);
}

static void nothing_for_one_namespace(void **state unused)
{
	size_t size;
	PstreeEntry *read = write_and_read(root, &size);

	assert_int_equal(read->n_nested_ids, 0);
	assert_int_equal(size, 4 * 2 + 2); /* pid, ppid, pgid, sid, and one thread */
	image_free(read);
}

static const char *taken(size_t threads, const uint32_t *ids, size_t count)
{
	struct task task = { .parent = inner };
	const char *why;

	task_make_threads(&task, threads);
	why = task_take_nested_ids(&task, ids, count);
	task_free_threads(&task);
	return why;
}

static void forged_ids_are_refused(void **state unused)
{
	static const uint32_t good[] = { 7, 8, 4194304 }, zero[] = { 7, 0 }, high[] = { 4194305, 7 },
			      negative[] = { 7, -1U };
	uint32_t many[PID_LEVELS_MOST];

	for (size_t i = 0; i < array_size(many); i++)
		many[i] = 7 + i;
	assert_null(taken(3, good, 3));
	assert_non_null(taken(2, good, 3));
	assert_non_null(taken(2, good, 1));
	assert_non_null(taken(2, good, 0)); /* its parent is in a nested one */
	assert_non_null(taken(2, zero, 2));
	assert_non_null(taken(2, high, 2));
	assert_non_null(taken(2, negative, 2));
	assert_null(taken(1, many, PID_LEVELS_MOST - 1));
	assert_non_null(taken(1, many, PID_LEVELS_MOST));
}

int main(void)
{
#define test(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		test(names_are_split),
		test(found_by_both),
		test(what_the_kernel_tells_gets_a_name),
		test(outside_of_the_tree),
		test(clone_begins_with_the_innermost),
		test(as_deep_as_can_be),
		test(written_and_read),
		test(nothing_for_one_namespace),
		test(forged_ids_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
