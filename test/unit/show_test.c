/*
 * show_test.c - `criu show`: text and JSON of a small tree, of an incomplete dump, and of malicious names.
 */
#include "images.h"
#include "cli/commands.h"
#include "cli/show.h"
#include "core.pb-c.h"
#include "pagemap.pb-c.h"

/* --- A tree: 10 init, with 11 shell (and its thread 12) and 13 a zombie --------------------------------- */

static void write_process(struct image_store *store, struct image *pstree, uint32_t pid, uint32_t parent,
			  const char *name, uint32_t state)
{
	PstreeEntry *entry = message_new(PstreeEntry, pstree_entry);
	CoreEntry *core = message_new(CoreEntry, core_entry);

	entry->pid = pid;
	entry->ppid = parent;
	entry->pgid = entry->sid = 10;
	message_array(entry, threads, pid == 11 ? 2 : 1);
	entry->threads[0] = state == 2 ? 123456 : pid; /* as criu 4.2.1 does for a zombie */
	if (pid == 11)
		entry->threads[1] = 12;
	assert_int_equal(image_write(pstree, &entry->base), 0);
	image_free(entry);

	core->mtype = CORE_ENTRY__MARCH__X86_64;
	core->tc = message_new(TaskCoreEntry, task_core_entry);
	core->tc->task_state = state;
	core->tc->exit_code = state == 2 ? 7 << 8 : 0;
	core->tc->comm = copy_text(name);
	if (state != 2) {
		core->ids = message_new(TaskKobjIdsEntry, task_kobj_ids_entry);
		core->ids->vm_id = core->ids->fs_id = core->ids->sighand_id = pid;
		core->ids->files_id = 5; /* shared */
		message_set(core->ids, pid_ns_id, pid == 11 ? 9 : 1);
		core->thread_core = message_new(ThreadCoreEntry, thread_core_entry);
		core->thread_core->creds = message_new(CredsEntry, creds_entry);
		core->thread_core->creds->uid = core->thread_core->creds->euid = 1000 + pid;
		core->thread_core->comm = copy_text(name);
	}
	assert_int_equal(image_write_single(store, IMAGE_CORE, pid, &core->base), 0);
	image_free(core);
}

static void write_memory(struct image_store *store, uint32_t pid)
{
	MmEntry *mm = message_new(MmEntry, mm_entry);
	PagemapHead head = PAGEMAP_HEAD__INIT;
	PagemapEntry run = PAGEMAP_ENTRY__INIT;
	struct image *image;

	mm->exe_file_id = 1;
	mm->n_vmas = 1;
	mm->vmas = allocate_array(1, sizeof(*mm->vmas));
	mm->vmas[0] = message_new(VmaEntry, vma_entry);
	mm->vmas[0]->start = 0x400000;
	mm->vmas[0]->end = 0x800000;
	assert_int_equal(image_write_single(store, IMAGE_MM, pid, &mm->base), 0);
	image_free(mm);

	assert_int_equal(image_create(store, &image, IMAGE_PAGEMAP, pid), 0);
	assert_int_equal(image_write(image, &head.base), 0);
	run.compat_nr_pages = 256; /* no flags: present */
	assert_int_equal(image_write(image, &run.base), 0);
	run.vaddr = 0x100000;
	message_set(&run, nr_pages, 128);
	message_set(&run, flags, 1);
	assert_int_equal(image_write(image, &run.base), 0);
	assert_int_equal(image_close(image), 0);
	assert_int_equal(image_create(store, &image, IMAGE_PAGES, 0), 0);
	assert_int_equal(ftruncate(image_fd(image), 256 * PAGE_SIZE), 0);
	assert_int_equal(image_close(image), 0);
}

static void write_files(struct image_store *store, const char *path)
{
	FileEntry *file = message_new(FileEntry, file_entry);
	FileEntry *pipe = message_new(FileEntry, file_entry);
	FdinfoEntry descriptor = FDINFO_ENTRY__INIT;
	struct image *image;

	file->id = 1;
	file->type = FD_TYPES__REG;
	file->reg = message_new(RegFileEntry, reg_file_entry);
	file->reg->fown = message_new(FownEntry, fown_entry);
	file->reg->flags = O_WRONLY | O_APPEND;
	file->reg->pos = 42;
	file->reg->name = copy_text(path);
	pipe->id = 2;
	pipe->type = FD_TYPES__PIPE;
	pipe->pipe = message_new(PipeEntry, pipe_entry);
	pipe->pipe->pipe_id = 300;
	pipe->pipe->fown = message_new(FownEntry, fown_entry);
	assert_int_equal(image_create(store, &image, IMAGE_FILES, 0), 0);
	assert_int_equal(image_write(image, &file->base), 0);
	assert_int_equal(image_write(image, &pipe->base), 0);
	assert_int_equal(image_close(image), 0);
	image_free(file);
	image_free(pipe);

	assert_int_equal(image_create(store, &image, IMAGE_FDINFO, 5), 0);
	for (unsigned i = 1; i <= 3; i++) { /* the third has no file */
		descriptor.fd = 10 * i;
		descriptor.id = i;
		descriptor.flags = i == 2;
		descriptor.type = FD_TYPES__REG;
		assert_int_equal(image_write(image, &descriptor.base), 0);
	}
	assert_int_equal(image_close(image), 0);
}

static void write_tree(struct image_store *store, const char *name, const char *path)
{
	struct image *pstree;

	assert_int_equal(image_store_begin(store, NULL), 0);
	assert_int_equal(image_create(store, &pstree, IMAGE_PSTREE, 0), 0);
	write_process(store, pstree, 10, 0, "init", 1);
	write_process(store, pstree, 11, 10, name, 3);
	write_process(store, pstree, 13, 10, "gone", 2);
	assert_int_equal(image_close(pstree), 0);
	write_memory(store, 10);
	write_files(store, path);
}

static void finish(struct image_store *store)
{
	InventoryEntry *inventory = inventory_new();

	inventory->root_ids = message_new(TaskKobjIdsEntry, task_kobj_ids_entry);
	message_set(inventory->root_ids, pid_ns_id, 1);
	message_set(inventory, dump_time, 1700000000);
	assert_int_equal(image_store_commit(store, &inventory->base), 0);
	image_free(inventory);
}

static char *shown(struct image_store *store, void (*show)(FILE *out, const struct show_tree *tree))
{
	struct show_tree tree;
	char *text;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	assert_int_equal(show_tree_read(store, &tree), 0);
	show(out, &tree);
	show_tree_free(&tree);
	fclose(out);
	return text;
}

static struct image_store *memory_store(void)
{
	struct image_store *store;

	failure_clear();
	assert_int_equal(image_store_open_memory(&store), 0);
	return store;
}

static void assert_contains(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("not there: %s\nin:\n%s", part, text);
}

/* --- Tests ---------------------------------------------------------------------------------------------- */

static void the_text_of_a_tree(void **state unused)
{
	static const char expected[] =
		"memory: a complete dump, made 2023-11-14 22:13:20 +0000 by criu " CRIU_VERSION "\n"
		"3 processes, 4 threads, 2 files, 1.0 MiB of memory and 512 KiB in its parent\n"
		"CANNOT BE RESTORED: memory/pagemap-10.img leaves the page at 0x100000 to a parent snapshot, and there is no link "
		"'parent' beside it\n"
		"\n"
		"     PID  PROCESS   STATE       UID  THREADS    MEMORY    MAPPED\n"
		"      10  init      running    1010        1   1.5 MiB   4.0 MiB\n"
		"      11  |- shell  stopped    1011        2         -         -\n"
		"      13  `- gone   zombie        ?        1         -         -\n"
		"\n"
		"10 init\n"
		"  executable /var/log/it\n"
		"    10  file            /var/log/it  [write, append, at 42]\n"
		"    20  pipe            pipe 300, reading end  [read, close on exec]\n"
		"    30  missing         no file 3 in files.img\n"
		"\n"
		"11 shell\n"
		"  namespaces of its own: pid\n"
		"  descriptors shared with process 10\n"
		"\n"
		"13 gone\n"
		"  has ended with status 7\n";
	struct image_store *store = memory_store();

	setenv("TZ", "UTC", 1);
	write_tree(store, "shell", "/var/log/it");
	finish(store);
	autofree char *text = shown(store, show_text);

	assert_string_equal(text, expected);
	image_store_close(store);
}

static void the_json_of_a_tree(void **state unused)
{
	struct image_store *store = memory_store();

	write_tree(store, "shell", "/var/log/it");
	finish(store);
	autofree char *text = shown(store, show_json);

	assert_contains(text, "{\n  \"format\": 1,\n  \"directory\": \"memory\",\n  \"complete\": true,\n");
	assert_contains(text, "\"made\": 1700000000,");
	assert_contains(
		text,
		"\"parent\": null,\n  \"chain\": [\n    {\n      \"directory\": \"memory\",\n      \"used\": 0\n");
	assert_contains(text, "\"problem\": \"memory/pagemap-10.img leaves the page at 0x100000");
	assert_contains(text, "\"saved\": 1048576,\n      \"in_parent\": 524288\n");
	assert_contains(text, "\"name\": \"gone\",\n      \"state\": \"zombie\",\n      \"exit_status\": 7,");
	assert_contains(text, "\"tid\": 13,");
	assert_contains(text, "\"pid\": {\n          \"id\": 9,\n          \"own\": true\n");
	assert_contains(text, "\"descriptors_of\": 10,\n      \"descriptors\": []");
	assert_contains(
		text,
		"\"flags\": [\n        \"write\",\n        \"append\"\n      ],\n      \"position\": 42\n");
	image_store_close(store);
}

static void an_incomplete_dump(void **state unused)
{
	struct image_store *store = open_directory(true);

	write_tree(store, "shell", "/x");
	autofree char *text = shown(store, show_text), *json = shown(store, show_json);

	assert_contains(text, ": NOT COMPLETE, ");
	assert_contains(text, "3 processes");
	assert_contains(json, "\"complete\": false,\n  \"made_by\": null,");
	assert_false(has_failed());
	image_store_close(store);
}

static void an_empty_directory(void **state unused)
{
	struct image_store *store = open_directory(true);
	autofree char *text = shown(store, show_text), *json = shown(store, show_json);

	assert_contains(text, "0 processes, 0 threads, 0 files, 0 B of memory\n");
	assert_contains(json, "\"processes\": [],\n  \"files\": [],\n  \"shared_memory\": []\n}\n");
	image_store_close(store);
}

static void the_command_without_images(void **state unused)
{
	char *arguments[] = { directory };
	struct options options = { .arguments = arguments, .argument_count = 1 };

	failure_clear();
	assert_int_equal(command_show(&options), -EINVAL);
	assert_failure_says("there are no images in /tmp/criu_test.");
}

static void a_torn_image(void **state unused)
{
	struct image_store *store = open_directory(true);
	struct show_tree tree;
	unsigned char bytes[512];

	write_tree(store, "shell", "/x");
	put_file("files.img", bytes, get_file("files.img", bytes, sizeof(bytes)) - 1);
	assert_int_equal(show_tree_read(store, &tree), -EINVAL);
	assert_failure_says("files.img is torn");
	show_tree_free(&tree);
	image_store_close(store);
}

/* Escape sequences, half a character, an overlong one, a surrogate, quotes: made harmless in text and JSON. */
static void malicious_names(void **state unused)
{
	struct image_store *store = memory_store();

	write_tree(store, "\033[2Jsh\xff",
		   "/a\"\\\n\xc0\xaf\xed\xa0\x80\xc2\x9b\xc3\xa4\xf0\x9f\x98\x80\xe2\x82");
	autofree char *text = shown(store, show_text), *json = shown(store, show_json);

	assert_contains(text, "|- \\x1b[2Jsh\\xff ");
	assert_contains(text,
			"/a\"\\\\x0a\\xc0\\xaf\\xed\\xa0\\x80\\xc2\\x9b\xc3\xa4\xf0\x9f\x98\x80\\xe2\\x82");
	assert_null(strchr(text, '\033'));
	assert_contains(json, "\"name\": \"\\u001b[2Jsh\\ufffd\"");
	assert_contains(
		json,
		"\"/a\\\"\\\\\\u000a\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd\xc2\x9b\xc3\xa4\xf0\x9f\x98\x80\\ufffd\\ufffd\"");
	image_store_close(store);
}

/* For every kind of file a line shows more than its number. */
static void every_kind_of_file(void **state unused)
{
	struct image_store *store = memory_store();
	const ProtobufCMessageDescriptor *descriptor = &file_entry__descriptor;
	struct show_tree tree;

	assert_int_equal(show_tree_read(store, &tree), 0);
	for (unsigned i = 0; i < descriptor->n_fields; i++) {
		FileEntry *file = message_new(FileEntry, file_entry);

		if (descriptor->fields[i].type == PROTOBUF_C_TYPE_MESSAGE) {
			make_field(&file->base, &descriptor->fields[i], 0);
			struct show_file shown_file = show_describe(&tree, file);

			assert_string_not_equal(shown_file.kind, "unknown");
			assert_true(strlen(shown_file.what) > 2);
			free(shown_file.what);
		}
		image_free(file);
	}
	show_tree_free(&tree);
	image_store_close(store);
}

/* 20 in a nested pid namespace, and what a forged image says of 21. */
static void nested_ids(void **state unused)
{
	struct image_store *store = memory_store();
	uint32_t threads[] = { 20, 22 }, nested[] = { 7, 1, 8, 2 };
	autofree char *text = NULL, *json = NULL;
	PstreeEntry entry = PSTREE_ENTRY__INIT;
	struct image *pstree;

	assert_int_equal(image_store_begin(store, NULL), 0);
	assert_int_equal(image_create(store, &pstree, IMAGE_PSTREE, 0), 0);
	for (entry.pid = 20; entry.pid < 22; entry.pid++) {
		entry.ppid = entry.pid == 20 ? 0 : 20;
		entry.threads = threads;
		entry.n_threads = 2;
		entry.nested_ids = nested;
		entry.n_nested_ids = entry.pid == 20 ? 4 : 3;
		assert_int_equal(image_write(pstree, &entry.base), 0);
	}
	assert_int_equal(image_close(pstree), 0);
	finish(store);
	text = shown(store, show_text);
	json = shown(store, show_json);
	assert_contains(text, "\n20 ");
	assert_contains(text, "\n  pid in a nested pid namespace: 7, in that 1\n");
	assert_contains(json, "\"nested_ids\": [");
	assert_null(strstr(strstr(text, "\n21 "), "nested"));
	image_store_close(store);
}

int main(void)
{
#define test(function) cmocka_unit_test_setup_teardown(function, prepare, clean)
	const struct CMUnitTest tests[] = {
		test(the_text_of_a_tree), test(the_json_of_a_tree), test(an_incomplete_dump),
		test(an_empty_directory), test(a_torn_image),	    test(the_command_without_images),
		test(malicious_names),	  test(every_kind_of_file), test(nested_ids),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
