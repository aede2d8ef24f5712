/*
 * ipc_test.c - System V IPC: the lists of the kernel, and images that come back as they were written, or are refused.
 */
#include "unit.h"
#include <string.h>
#include <sys/shm.h>
#include "base/error.h"
#include "base/memory.h"
#include "image/message.h"
#include "ipc/ipc.h"
#include "memory/shared.h"

#define NAMESPACE 3

static struct snapshot written, loaded;

static int set_up(void **state unused)
{
	failure_clear();
	snapshot_init(&written);
	snapshot_init(&loaded);
	assert_int_equal(image_store_open_memory(&written.images), 0);
	loaded.images = written.images;
	ipc_items_of(&written)->namespace = NAMESPACE;
	return 0;
}

static int tear_down(void **state unused)
{
	shared_memory_close(&loaded);
	snapshot_free(&written);
	image_store_close(loaded.images);
	snapshot_free(&loaded);
	return 0;
}

/* Lines of Linux 6.18. */
static void lists(void **state unused)
{
	const char *segments =
		"       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n"
		"-559038737          5  3600                 12388 14753 14754      4     1     2     3     4        100        200        300                  4096                     0\n"
		"         0     163857   600                     1     0     0      0 65534     0     0     0          0          0  1795999730                     0                     0\n";
	const char *sets =
		"       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n"
		"        66          7   640        250     1     2     3     4         50         60\n";
	const char *queues =
		"       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n"
		"         0          9   622           8          1 14753    11     1     2     3     4         70         80         90\n";
	struct ipc_list list;

	ipc_list_parse(IPC_SEGMENT, segments, &list);
	assert_int_equal(list.count, 2);
	assert_int_equal(list.items[0].key, -559038737);
	assert_int_equal(list.items[0].mode, 0600 | SHM_DEST | SHM_LOCKED);
	assert_int_equal(list.items[0].amount, 12388);
	assert_int_equal(list.items[0].attachments, 4);
	assert_int_equal(list.items[0].users[0], 14753);
	assert_int_equal(list.items[0].cgid, 4);
	assert_int_equal(list.items[0].changed, 300);
	assert_ptr_equal(ipc_list_find(&list, 163857), &list.items[1]);
	assert_null(ipc_list_find(&list, 6));
	free(list.items);
	ipc_list_parse(IPC_SEMAPHORES, sets, &list);
	assert_int_equal(list.count, 1);
	assert_int_equal(list.items[0].amount, 250);
	assert_int_equal(list.items[0].used, 50);
	assert_int_equal(list.items[0].changed, 60);
	free(list.items);
	ipc_list_parse(IPC_QUEUE, queues, &list);
	assert_int_equal(list.count, 1);
	assert_int_equal(list.items[0].users[0], 14753);
	assert_int_equal(list.items[0].users[1], 11);
	assert_int_equal(list.items[0].used, 80);
	assert_int_equal(list.items[0].changed, 90);
	free(list.items);
	ipc_list_parse(IPC_QUEUE, "", &list);
	assert_int_equal(list.count, 0);
}

static IpcDescEntry *make_desc(int id, uint32_t key)
{
	IpcDescEntry *desc = message_new(IpcDescEntry, ipc_desc_entry);

	desc->id = id;
	desc->key = key;
	desc->mode = 0640;
	return desc;
}

static IpcShmEntry *add_segment(int id, uint32_t key)
{
	IpcShmEntry *entry = message_new(IpcShmEntry, ipc_shm_entry);

	entry->desc = make_desc(id, key);
	entry->size = 5000;
	message_set(entry, in_pagemaps, true);
	ipc_item_add(ipc_items_of(&written), IPC_SEGMENT, &entry->base);
	return entry;
}

static IpcSemEntry *add_set(int id, uint32_t count)
{
	IpcSemEntry *entry = message_new(IpcSemEntry, ipc_sem_entry);
	struct ipc_item *item;

	entry->desc = make_desc(id, 0);
	entry->nsems = count;
	message_array(entry, users, count);
	item = ipc_item_add(ipc_items_of(&written), IPC_SEMAPHORES, &entry->base);
	item->values = allocate_array(count + 1, sizeof(*item->values));
	for (uint32_t i = 0; i < count; i++)
		item->values[i] = 7 * i;
	return entry;
}

static IpcMsgEntry *add_queue(int id, size_t count)
{
	IpcMsgEntry *entry = message_new(IpcMsgEntry, ipc_msg_entry);
	struct ipc_item *item;

	entry->desc = make_desc(id, 0);
	entry->qnum = count;
	item = ipc_item_add(ipc_items_of(&written), IPC_QUEUE, &entry->base);
	for (size_t i = 0; i < count; i++)
		*grow(&item->messages, &item->message_count) =
			(struct queue_message){ i + 1, i * 3, memset(allocate(i * 3 + 1), 'a' + i, i * 3) };
	return entry;
}

static int load(void)
{
	assert_int_equal(ipc_save(&written), 0);
	return ipc_load(&loaded, NAMESPACE);
}

static void round_trip(void **state unused)
{
	const struct ipc_items *items = ipc_items_of(&loaded);

	add_segment(0, 0);
	add_segment(7, 99);
	add_set(7, 5);
	add_set(8, 1);
	add_queue(7, 4);
	add_queue(1, 0);
	assert_int_equal(load(), 0);
	assert_int_equal(items->count, 6);
	assert_int_equal(items->items[1].desc->key, 99);
	assert_int_equal(shared_memory_find(&loaded, 7)->size, 5000);
	assert_true(shared_memory_find(&loaded, 0)->is_segment);
	for (int i = 0; i < 5; i++)
		assert_int_equal(items->items[2].values[i], 7 * i);
	assert_int_equal(items->items[3].desc->id, 8);
	assert_int_equal(items->items[4].message_count, 4);
	assert_int_equal(items->items[4].messages[3].type, 4);
	assert_memory_equal(items->items[4].messages[3].bytes, "ddddddddd", 9);
	assert_int_equal(items->items[5].message_count, 0);
}

static void other_namespace(void **state unused)
{
	add_segment(7, 99);
	assert_int_equal(ipc_save(&written), 0);
	assert_int_equal(ipc_load(&loaded, NAMESPACE + 1), 0);
	assert_int_equal(ipc_items_of(&loaded)->count, 0);
}

static void refused(const char *words)
{
	assert_true(load() < 0);
	if (!strstr(failure_text(), words))
		fail_msg("%s", failure_text());
}

static void same_id(void **state unused)
{
	add_segment(7, 0);
	add_segment(7, 0);
	refused("ipcns-shm-3.img: object 7 occurs twice");
}

static void same_key(void **state unused)
{
	add_segment(7, 99);
	add_segment(8, 99);
	refused("object 8 occurs twice");
}

static void impossible_id(void **state unused)
{
	add_segment(-1, 0);
	refused("invalid id");
}

static void impossible_mode(void **state unused)
{
	add_set(1, 1)->desc->mode = 01000;
	refused("invalid mode");
}

static void impossible_owner(void **state unused)
{
	add_set(1, 1)->desc->cuid = UINT32_MAX;
	refused("invalid owner");
}

static void no_size(void **state unused)
{
	add_segment(1, 0)->size = 0;
	refused("invalid size");
}

static void impossible_pages(void **state unused)
{
	IpcShmEntry *entry = add_segment(1, 0);

	message_set(entry, hugetlb_flag, 1);
	refused("invalid size");
}

static void no_semaphores(void **state unused)
{
	add_set(1, 0);
	refused("invalid number of semaphores");
}

static void too_few_users(void **state unused)
{
	add_set(1, 5)->n_users = 4;
	refused("invalid number of semaphores");
}

static void impossible_value(void **state unused)
{
	add_set(1, 1);
	ipc_items_of(&written)->items[0].values[0] = 32768;
	refused("invalid value");
}

static void impossible_type(void **state unused)
{
	add_queue(1, 1);
	ipc_items_of(&written)->items[0].messages[0].type = 0;
	refused("invalid message");
}

static void too_few_messages(void **state unused)
{
	add_queue(1, 2)->qnum = UINT32_MAX;
	refused("ipcns-msg-3.img");
}

int main(void)
{
#define test(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		test(lists),
		test(round_trip),
		test(other_namespace),
		test(same_id),
		test(same_key),
		test(impossible_id),
		test(impossible_mode),
		test(impossible_owner),
		test(no_size),
		test(impossible_pages),
		test(no_semaphores),
		test(too_few_users),
		test(impossible_value),
		test(impossible_type),
		test(too_few_messages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
