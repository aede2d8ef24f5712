/*
 * show_tree.c - reads a directory of images for `criu show`. See show.h.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "cli/show.h"
#include "memory/pagemap.h"
#include "memory/stack.h"

#define STATUS_SHARED ((1u << 8) | (1u << 10)) /* vma_entry.status: shared anonymous, SysV */

static void free_records(struct show_records *records)
{
	for (size_t i = 0; i < records->count; i++)
		if (records->items[i])
			protobuf_c_message_free_unpacked(records->items[i], NULL);
	free(records->items);
}

/* All records of an image; none if there is no such image. */
static int read_records(struct image_store *store, enum image_kind kind, unsigned long id,
			struct show_records *records)
{
	struct image *image;
	ProtobufCMessage *message;
	int result = image_open(store, &image, kind, id);

	if (result < 0)
		return result == -ENOENT ? 0 : result;
	while ((result = image_read(image, image_types[kind].descriptor, &message)) > 0)
		*grow(&records->items, &records->count) = message;
	image_close_read(image);
	return result;
}

/* The only record of an image; *message stays NULL if there is no such image. */
static int read_optional(struct image_store *store, enum image_kind kind, unsigned long id, void *message)
{
	int result = image_read_single(store, kind, id, message);

	return result == -ENOENT ? 0 : result;
}

/* --- Memory --------------------------------------------------------------------------------------------- */

/*
 * Called within an attempt that has failed. A problem with the parents is shown as part of the output; the newest
 * snapshot itself can still be shown.
 */
static void note_problem(struct show_tree *tree)
{
	char text[1024];
	const char *said = text;

	failure_report(text, sizeof(text), NULL, NULL);
	if (tree->problem)
		return;
	if (!strncmp(said, "criu: ", 6))
		said += 6;
	tree->problem = copy_text(said);
	tree->problem[strcspn(tree->problem, "\n")] = '\0';
}

static void add_layers(struct show_tree *tree, enum image_kind kind, unsigned long id)
{
	struct page_stack stack;
	struct attempt attempt;

	attempt_begin(&attempt);
	if (page_stack_open(&stack, tree->chain, kind, id))
		note_problem(tree);
	attempt_forget(&attempt);
	for (size_t i = 0; i < stack.layer_count; i++) {
		struct page_runs runs = page_stack_layer(&stack, i);

		tree->layers[i].used += page_runs_total(&runs) * PAGE_SIZE;
	}
	page_stack_close(&stack);
}

static int read_pagemap(struct image_store *store, struct show_tree *tree, enum image_kind kind,
			unsigned long id, struct show_memory *memory)
{
	struct pagemap pagemap = { 0 };
	int result = pagemap_read(&pagemap, store, kind, id);

	for (size_t i = 0; !result && i < pagemap.count; i++) {
		uint64_t size = pagemap.entries[i].count * PAGE_SIZE;

		if (pagemap.entries[i].flags & PAGES_PRESENT)
			memory->saved += size;
		else
			memory->in_parent += size;
	}
	pagemap_free(&pagemap);
	if (!result && tree->chain)
		add_layers(tree, kind, id);
	return result == -ENOENT ? 0 : result;
}

static void open_chain(struct image_store *store, struct show_tree *tree)
{
	struct attempt attempt;

	attempt_begin(&attempt);
	if (page_chain_open(&tree->chain, store))
		note_problem(tree);
	attempt_forget(&attempt);
	if (!tree->chain)
		return;
	tree->layer_count = page_chain_length(tree->chain);
	tree->layers = allocate_array(tree->layer_count, sizeof(*tree->layers));
	for (size_t i = 0; i < tree->layer_count; i++)
		tree->layers[i].directory = image_store_name(page_chain_store(tree->chain, i));
}

static void add_memory(struct show_memory *sum, const struct show_memory *memory)
{
	sum->mapped += memory->mapped;
	sum->saved += memory->saved;
	sum->in_parent += memory->in_parent;
}

static int add_shared(struct image_store *store, struct show_tree *tree, uint64_t id, uint64_t size)
{
	struct show_shared_memory *shared;
	int result;

	if (index_find(&tree->shared_by_id, id))
		return 0;
	index_set(&tree->shared_by_id, id, tree);
	shared = grow(&tree->shared, &tree->shared_count);
	shared->id = id;
	shared->memory.mapped = size;
	result = read_pagemap(store, tree, IMAGE_SHMEM_PAGEMAP, id, &shared->memory);
	tree->memory.saved += shared->memory.saved;
	tree->memory.in_parent += shared->memory.in_parent;
	return result;
}

static int read_shared(struct image_store *store, struct show_tree *tree, const MmEntry *mm)
{
	int result = 0;

	for (size_t i = 0; i < mm->n_vmas && result == 0; i++)
		if (mm->vmas[i]->status & STATUS_SHARED)
			result = add_shared(store, tree, mm->vmas[i]->shmid,
					    mm->vmas[i]->end - mm->vmas[i]->start);
	return result;
}

static int read_process_memory(struct image_store *store, struct show_tree *tree,
			       struct show_process *process)
{
	unsigned long pid = process->entry->pid;
	int result = read_optional(store, IMAGE_MM, pid, &process->mm);

	if (result < 0)
		return result;
	for (size_t i = 0; process->mm && i < process->mm->n_vmas; i++)
		process->memory.mapped += process->mm->vmas[i]->end - process->mm->vmas[i]->start;
	result = read_pagemap(store, tree, IMAGE_PAGEMAP, pid, &process->memory);
	add_memory(&tree->memory, &process->memory);
	if (result == 0 && process->mm)
		result = read_shared(store, tree, process->mm);
	return result;
}

/* --- Processes ------------------------------------------------------------------------------------------ */

static int read_cores(struct image_store *store, struct show_process *process)
{
	const PstreeEntry *entry = process->entry;
	const CoreEntry *leader;

	/*
	 * The core of the leader is found by the pid: criu 4.2.1 writes a meaningless number as the only thread of a
	 * zombie.
	 */
	for (size_t i = 0; i < max(entry->n_threads, (size_t)1); i++) {
		ProtobufCMessage **core = grow(&process->cores.items, &process->cores.count);
		int result = read_optional(store, IMAGE_CORE, i ? entry->threads[i] : entry->pid, core);

		if (result < 0)
			return result;
	}
	leader = (const CoreEntry *)process->cores.items[0];
	if (!leader)
		return 0;
	process->task = leader->tc;
	process->ids = leader->ids;
	process->credentials = leader->thread_core ? leader->thread_core->creds : NULL;
	return 0;
}

static int read_process_ids(struct image_store *store, struct show_process *process)
{
	int result = 0;

	if (!process->ids) {
		result = read_optional(store, IMAGE_IDS, process->entry->pid, &process->ids_record);
		process->ids = process->ids_record;
	}
	return result;
}

/* The first process with this id of an object, which it shares with all others; NULL: it is this one. */
static const struct show_process *find_first(struct index *first, uint32_t id, struct show_process *process)
{
	const struct show_process *found = index_find(first, id);

	if (!found)
		index_set(first, id, process);
	return found;
}

static void find_shares(struct show_tree *tree, struct show_process *process)
{
	const TaskKobjIdsEntry *ids = process->ids;

	if (!ids)
		return;
	process->shares_descriptors = find_first(&tree->by_files_id, ids->files_id, process);
	process->shares_memory = find_first(&tree->by_vm_id, ids->vm_id, process);
	process->shares_directories = find_first(&tree->by_fs_id, ids->fs_id, process);
}

static int read_process(struct image_store *store, struct show_tree *tree, struct show_process *process)
{
	int result = read_cores(store, process);

	if (result == 0)
		result = read_process_ids(store, process);
	if (result < 0)
		return result;
	find_shares(tree, process);
	result = read_optional(store, IMAGE_FS, process->entry->pid, &process->fs);
	/* Of directories that several share, the image is the first one's. */
	if (result == 0 && !process->fs && process->shares_directories)
		result = read_optional(store, IMAGE_FS, process->shares_directories->entry->pid,
				       &process->fs);
	if (result < 0)
		return result;
	if (process->ids && !process->shares_descriptors)
		result = read_records(store, IMAGE_FDINFO, process->ids->files_id, &process->descriptors);
	if (result == 0)
		result = read_process_memory(store, tree, process);
	return result;
}

/* A process whose parent is not before it becomes a root, so there can be no cycle. */
static void link_process(struct show_tree *tree, struct show_process *process)
{
	struct show_process *parent = index_find(&tree->by_pid, process->entry->ppid);

	index_set(&tree->by_pid, process->entry->pid, process);
	if (!parent)
		return;
	process->parent = parent;
	process->depth = parent->depth + 1;
	if (parent->last_child)
		parent->last_child->next_sibling = process;
	else
		parent->first_child = process;
	parent->last_child = process;
}

static int read_processes(struct image_store *store, struct show_tree *tree)
{
	int result = read_records(store, IMAGE_PSTREE, 0, &tree->entries);

	tree->processes = allocate_array(tree->entries.count, sizeof(*tree->processes));
	for (size_t i = 0; i < tree->entries.count && result == 0; i++) {
		struct show_process *process = &tree->processes[tree->process_count++];

		process->entry = (const PstreeEntry *)tree->entries.items[i];
		tree->thread_count += process->entry->n_threads;
		link_process(tree, process);
		result = read_process(store, tree, process);
	}
	return result;
}

/* --- The whole ------------------------------------------------------------------------------------------ */

static int read_files(struct image_store *store, struct show_tree *tree)
{
	int result = read_records(store, IMAGE_FILES, 0, &tree->files);

	for (size_t i = 0; i < tree->files.count; i++) {
		FileEntry *file = (FileEntry *)tree->files.items[i];

		if (!index_find(&tree->files_by_id, file->id))
			index_set(&tree->files_by_id, file->id, file);
	}
	return result;
}

static int read_shown_inventory(struct image_store *store, struct show_tree *tree)
{
	struct image *image;
	struct stat status;
	int result = image_open(store, &image, IMAGE_INVENTORY, 0);

	if (result < 0)
		return result == -ENOENT ? 0 : result;
	if (fstat(image_fd(image), &status) == 0)
		tree->made = status.st_mtime;
	image_close_read(image);
	result = inventory_read(store, &tree->inventory);
	if (result == 0 && tree->inventory->has_dump_time)
		tree->made = tree->inventory->dump_time;
	return result;
}

int show_tree_read(struct image_store *store, struct show_tree *tree)
{
	int result;

	memset(tree, 0, sizeof(*tree));
	tree->directory = image_store_name(store);
	if (image_store_directory(store) >= 0)
		ignore(read_link_at(image_store_directory(store), "parent",
				    &tree->parent)); /* most directories have no parent */
	result = read_shown_inventory(store, tree);
	if (result == 0)
		open_chain(store, tree);
	if (result == 0)
		result = read_files(store, tree);
	if (result == 0)
		result = read_records(store, IMAGE_REMAP_FPATH, 0, &tree->remaps);
	for (size_t i = 0; i < tree->remaps.count; i++)
		index_set(&tree->remaps_by_id, ((const RemapFilePathEntry *)tree->remaps.items[i])->orig_id,
			  tree->remaps.items[i]);
	if (result == 0)
		result = read_records(store, IMAGE_MEMFD_INODE, 0, &tree->memfds);
	if (result == 0)
		result = read_records(store, IMAGE_MQUEUE, 0, &tree->queues);
	if (result == 0)
		result = read_records(store, IMAGE_TTY_INFO, 0, &tree->terminals);
	for (size_t i = 0; i < tree->memfds.count && result == 0; i++) {
		const MemfdInodeEntry *memfd = (const MemfdInodeEntry *)tree->memfds.items[i];

		result = add_shared(store, tree, memfd->shmid, memfd->size);
	}
	if (result == 0)
		result = read_processes(store, tree);
	return result;
}

void show_tree_free(struct show_tree *tree)
{
	for (size_t i = 0; i < tree->process_count; i++) {
		struct show_process *process = &tree->processes[i];

		free_records(&process->cores);
		free_records(&process->descriptors);
		image_free(process->ids_record);
		image_free(process->fs);
		image_free(process->mm);
	}
	index_free(&tree->by_pid);
	index_free(&tree->by_files_id);
	index_free(&tree->by_vm_id);
	index_free(&tree->by_fs_id);
	index_free(&tree->files_by_id);
	index_free(&tree->remaps_by_id);
	index_free(&tree->shared_by_id);
	free(tree->processes);
	free(tree->shared);
	free(tree->parent);
	free(tree->layers);
	free(tree->problem);
	page_chain_close(tree->chain);
	free_records(&tree->entries);
	free_records(&tree->files);
	free_records(&tree->remaps);
	free_records(&tree->memfds);
	free_records(&tree->queues);
	free_records(&tree->terminals);
	image_free(tree->inventory);
}

/* --- Questions ------------------------------------------------------------------------------------------ */

const FileEntry *show_find_file(const struct show_tree *tree, uint32_t id)
{
	return index_find(&tree->files_by_id, id);
}

const char *show_file_path(const struct show_tree *tree, uint32_t id)
{
	const FileEntry *file = show_find_file(tree, id);

	return file && file->reg ? file->reg->name : NULL;
}

size_t show_nested_ids(const struct show_process *process, size_t thread, const uint32_t **ids)
{
	const PstreeEntry *entry = process->entry;
	size_t each = entry->n_threads ? entry->n_nested_ids / entry->n_threads : 0;

	if (thread >= entry->n_threads || entry->n_nested_ids % entry->n_threads)
		return 0;
	*ids = entry->nested_ids + thread * each;
	return each;
}

const char *show_process_name(const struct show_process *process)
{
	return process->task ? process->task->comm : "?";
}

const char *show_state(const struct show_process *process)
{
	switch (process->task ? process->task->task_state : 0) {
	case 1:
		return "running";
	case 2:
		return "zombie";
	case 3:
		return "stopped";
	default:
		return "unknown";
	}
}

void show_namespaces(const struct show_tree *tree, const struct show_process *process,
		     void (*each)(void *context, const char *name, uint32_t id, bool own), void *context)
{
	const TaskKobjIdsEntry *ids = process->ids;
	const TaskKobjIdsEntry *ours = tree->inventory ? tree->inventory->root_ids : NULL;

	/* clang-format off */
#define tell(kind)											\
	if (ids && ids->has_##kind##_ns_id)								\
		each(context, #kind, ids->kind##_ns_id,							\
		     ours && (!ours->has_##kind##_ns_id || ours->kind##_ns_id != ids->kind##_ns_id))
	/* clang-format on */
	tell(pid);
	tell(net);
	tell(ipc);
	tell(uts);
	tell(mnt);
	tell(user);
	tell(cgroup);
	tell(time);
#undef tell
}
