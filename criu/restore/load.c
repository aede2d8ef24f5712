/*
 * load.c - reads the images of a whole tree, before anything is created. Torn, forged or missing images are errors
 * here.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include "arch/arch.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"
#include "image/image.h"
#include "image/inventory.h"
#include "ipc/ipc.h"
#include "memory/huge.h"
#include "namespaces/kind.h"
#include "memory/memfd.h"
#include "memory/shared.h"
#include "pstree.pb-c.h"
#include "plugins/plugins.h"
#include "restore/restore.h"

static int add_task(struct snapshot *snapshot, const PstreeEntry *entry)
{
	struct task *parent = entry->ppid ? snapshot_find_task(snapshot, entry->ppid) : NULL, *task;
	const char *invalid;

	if (!entry->pid || entry->pid > INT32_MAX || !entry->n_threads)
		return fail(EINVAL, "pstree.img has an invalid pid: %u", entry->pid);
	if (snapshot_find_task(snapshot, entry->pid))
		return fail(EINVAL, "pstree.img: process %u occurs twice", entry->pid);
	if (entry->ppid && !parent)
		return fail(EINVAL, "pstree.img: process %u comes before its parent %u", entry->pid,
			    entry->ppid);
	if (!entry->ppid && snapshot->root)
		return fail(EINVAL, "pstree.img has two trees: %d and %u", snapshot->root->pid, entry->pid);
	task = snapshot_add_task(snapshot, parent, entry->pid);
	task->group = entry->pgid;
	task->session = entry->sid;
	task_make_threads(task, entry->n_threads);
	for (size_t i = 0; i < entry->n_threads; i++)
		task->threads[i].tid = entry->threads[i];
	task->newborn = allocate(sizeof(*task->newborn));
	invalid = task_take_nested_ids(task, entry->nested_ids, entry->n_nested_ids);
	return invalid ? fail(EINVAL, "pstree.img: process %u: %s", entry->pid, invalid) : 0;
}

static int load_tree(struct snapshot *snapshot)
{
	struct image *image;
	PstreeEntry *entry;
	int result = image_open(snapshot->images, &image, IMAGE_PSTREE, 0);

	if (result)
		return result == -ENOENT ? fail(ENOENT, "pstree.img is missing") : result;
	while ((result = image_read_as(image, pstree_entry, &entry)) > 0) {
		result = add_task(snapshot, entry);
		image_free(entry);
		if (result)
			break;
	}
	image_close_read(image);
	if (!result && !snapshot->root)
		return fail(EINVAL, "pstree.img has no process");
	return result;
}

/* Reads a required record. */
static int load_single(struct image_store *images, enum image_kind kind, unsigned long id, void *message)
{
	char name[IMAGE_NAME_SIZE];
	int result = image_read_single(images, kind, id, message);

	return result == -ENOENT ? fail(ENOENT, "%s is missing", image_file_name(name, kind, id)) : result;
}

static int load_core(struct snapshot *snapshot, struct task *task, size_t index)
{
	/* The leader's tid comes first; a dead task has a core under its pid, whatever its list of threads has. */
	int result = load_single(snapshot->images, IMAGE_CORE, index ? task->threads[index].tid : task->pid,
				 &task->cores[index]);
	const CoreEntry *core = task->cores[index];

	if (result)
		return result;
	if (core->mtype != arch_image_type)
		return fail(EINVAL, "core-%d.img is from another architecture (%d; this machine is %d)",
			    task->threads[index].tid, core->mtype, arch_image_type);
	if (!index && !core->tc)
		return fail(EINVAL, "core-%d.img has no description of the process", task->pid);
	if (!index)
		task->state = core->tc->task_state;
	if (task->state != TASK_DEAD && (!core->thread_core || !core->thread_info))
		return fail(EINVAL, "core-%d.img has no registers", task->threads[index].tid);
	return 0;
}

static int load_cores(struct snapshot *snapshot, struct task *task)
{
	int result;

	task->cores = allocate_array(task->thread_count, sizeof(*task->cores));
	result = load_core(snapshot, task, 0);
	if (result)
		return result;
	strncpy(task->name, task->cores[0]->tc->comm, sizeof(task->name) - 1);
	if (task->state == TASK_DEAD) {
		task->threads[0].tid = task->pid;
		task_forget_threads(task);
		return 0;
	}
	if (task->state != TASK_ALIVE && task->state != TASK_STOPPED)
		return fail(EINVAL, "core-%d.img has an unknown state: %d", task->pid, task->state);
	if (task->threads[0].tid != task->pid)
		return fail(EINVAL, "pstree.img: the first thread of process %d is not its leader",
			    task->pid);
	for (size_t i = 1; !result && i < task->thread_count; i++)
		result = load_core(snapshot, task, i);
	return result;
}

/*
 * For memory without a name, criu 4.2 writes a file as if it were a memfd. Here such a mapping is one of shared memory,
 * and a mapping of a memfd is one of a file.
 */
static int find_memfd(struct snapshot *snapshot, struct vma *vma)
{
	const struct file *file = snapshot_find_file(snapshot, vma->object);
	const MemfdFileEntry *entry = file && file->kind == &file_kind_memfd ? file->entry->memfd : NULL;
	const struct shared_memory *object = entry ? memfd_find(snapshot, entry->inode_id) : NULL;
	bool is_written = vma->status & VMA_FILE_SHARED && vma->protection & PROT_WRITE;
	bool can_be_written;
	uint32_t huge = MAP_HUGETLB | VMA_HUGE_SIZE;

	if (!object)
		return fail(EINVAL, "a mapping refers to file %" PRIu64 ", which is not a memfd",
			    vma->object);
	/* A file that is only mapped is opened as its mapping requires. */
	can_be_written = (entry->flags & O_ACCMODE) == O_RDWR ||
			 (!file->holder && (vma->file_flags & O_ACCMODE) == O_RDWR);
	vma->flags = (vma->flags & ~huge) | (object->page_size ? huge_map_flags(object->page_size) : 0);
	if (object->is_anonymous && vma->status & VMA_FILE_SHARED) {
		vma->status = (vma->status & ~(VMA_MEMFD | VMA_FILE_SHARED)) | VMA_ANON_SHARED;
		vma->flags |= MAP_ANONYMOUS;
		vma->object = object->id;
		vma->file_flags = -1;
	} else if (entry->flags & O_PATH || (entry->flags & O_ACCMODE) == O_WRONLY ||
		   (is_written && !can_be_written)) {
		return fail(EINVAL, "files.img: memfd %u is not open in the mode that its mapping needs",
			    entry->id);
	}
	return 0;
}

/* Sets the size of huge pages, which the images may leave to the host, and checks the alignment that it requires. */
static int find_page_size(struct vma *vma)
{
	uint64_t page_size = vma->flags & MAP_HUGETLB ? huge_page_size(vma->flags) : PAGE_SIZE;

	if (vma->flags & MAP_HUGETLB && page_size)
		vma->flags = (vma->flags & ~VMA_HUGE_SIZE) | huge_map_flags(page_size);
	if (!page_size || (vma->start | vma->end | vma->offset) % page_size)
		return fail(EINVAL, "the images have an invalid mapping in huge pages at %#" PRIx64,
			    vma->start);
	return 0;
}

static int add_area(struct snapshot *snapshot, struct task *task, const VmaEntry *entry)
{
	struct vma *vma = grow(&task->space->vmas.items, &task->space->vmas.count);
	int result;

	*vma = (struct vma){
		.start = entry->start,
		.end = entry->end,
		.offset = entry->pgoff,
		.protection = entry->prot,
		.flags = entry->flags,
		.status = entry->status,
		.advice = entry->madv,
		.object = entry->shmid,
		.file_flags = entry->has_fdflags ? (int)entry->fdflags : -1,
		.place = entry->start,
		.name = entry->name,
		.has_huge_pages = entry->huge_pages,
		.locks_on_fault = entry->on_fault,
		.object_size = entry->shm_size,
		.key = entry->key,
		.is_sealed = entry->is_sealed,
	};
	if (vma->start >= vma->end || (vma->start | vma->end | vma->offset) % PAGE_SIZE)
		return fail(EINVAL, "mm-%d.img: the mapping at %#" PRIx64 " is invalid", task->pid,
			    vma->start);
	result = (vma->status & VMA_MEMFD ? find_memfd(snapshot, vma) : 0) ?: find_page_size(vma);
	if (result)
		return fail_in(result, "mm-%d.img", task->pid);
	if (vma->status & VMA_FILE_SHARED && (vma->file_flags & O_ACCMODE) == O_RDWR) {
		struct file *file = snapshot_find_file(snapshot, vma->object);

		if (file)
			file->needs_writable_mapping = true;
	}
	return vma->status & VMA_ANON_SHARED ? shared_memory_note(snapshot, vma) : 0;
}

static int compare_areas(const void *left, const void *right)
{
	const struct vma *a = left, *b = right;
	bool a_guards = a->status & VMA_GUARD_RANGE, b_guards = b->status & VMA_GUARD_RANGE;

	if (a_guards != b_guards)
		return a_guards ? 1 : -1;
	return a->start < b->start ? -1 : a->start > b->start;
}

static int load_areas(struct snapshot *snapshot, struct task *task)
{
	int result = 0;

	for (size_t i = 0; !result && i < task->space->mm->n_vmas; i++)
		result = add_area(snapshot, task, task->space->mm->vmas[i]);
	if (!result && task->space->vmas.count)
		qsort(task->space->vmas.items, task->space->vmas.count, sizeof(*task->space->vmas.items),
		      compare_areas);
	return result;
}

/* `leaders`: for each kind of object, the first task with each id. */
static void share_objects(struct task *task, struct index leaders[OBJECT_KINDS])
{
	for (enum object_kind kind = 0; kind < OBJECT_KINDS; kind++) {
		uint32_t id = *ids_object(task->ids, kind);
		const struct task *leader = index_find(&leaders[kind], id);

		if (leader)
			task_share_object(task, kind, leader);
		else
			index_set(&leaders[kind], id, task);
		task_object(task, kind)->id = id;
	}
}

static int load_task(struct snapshot *snapshot, struct task *task, struct index leaders[OBJECT_KINDS])
{
	int result = load_cores(snapshot, task);

	if (result || task->state == TASK_DEAD)
		return result;
	result = load_single(snapshot->images, IMAGE_IDS, task->pid, &task->ids);
	if (result)
		return result;
	share_objects(task, leaders);
	if (task_leads(task, OBJECT_MEMORY))
		result = load_single(snapshot->images, IMAGE_MM, task->pid, &task->space->mm);
	if (!result && task_leads(task, OBJECT_DIRECTORIES))
		result = load_single(snapshot->images, IMAGE_FS, task->pid, &task->directories->fs);
	return result;
}

/* In a pid namespace below that of the root, no two threads have the same id. Zombies do not tell where they were. */
static int check_nested_ids(const struct snapshot *snapshot)
{
	struct index known = { 0 };
	const struct task *task;
	int result = 0;

	for_each_task (task, snapshot)
		for (size_t i = 0; !result && task->ids && i < task->thread_count; i++) {
			pid_t id = thread_own_id(&task->threads[i]);
			uint64_t key = (uint64_t)task->ids->pid_ns_id << 32 | (uint32_t)id;

			if (!task->threads[i].nested_count)
				continue;
			if (index_find(&known, key))
				result = fail(
					EINVAL,
					"pstree.img: process %d: the id %d occurs twice in pid namespace %u",
					task->pid, id, task->ids->pid_ns_id);
			index_set(&known, key, (void *)task);
		}
	index_free(&known);
	return result;
}

static int load_tasks(struct snapshot *snapshot)
{
	struct index leaders[OBJECT_KINDS] = { 0 };
	struct task *task;
	int result = 0;

	for_each_task (task, snapshot) {
		result = load_task(snapshot, task, leaders);
		if (result) {
			fail_in(result, "process %d", task->pid);
			break;
		}
		snapshot->thread_count += task->state == TASK_DEAD ? 0 : task->thread_count;
	}
	for (enum object_kind kind = 0; kind < OBJECT_KINDS; kind++)
		index_free(&leaders[kind]);
	return result;
}

static int load_memory(struct restore *restore, struct task *task)
{
	int result = load_areas(&restore->snapshot, task) ?:
			     page_stack_open(&task->newborn->memory, restore->chain, IMAGE_PAGEMAP,
					     task->pid);

	return result == -ENOENT ? fail(ENOENT, "pagemap-%d.img is missing", task->pid) : result;
}

/* The images determine the process. A user who names one follows older versions, or has the wrong directory. */
static void mention_needless_tree(const struct restore *restore)
{
	pid_t named = restore->request->root, root = restore->snapshot.root->pid;

	if (named == root)
		log_warning("--tree %d is not needed: the images are of process %d", named, root);
	else if (named)
		log_warning("--tree %d is ignored: the images are of process %d", named, root);
}

static int load_all(struct restore *restore, const InventoryEntry *inventory)
{
	struct snapshot *snapshot = &restore->snapshot;
	struct task *task;
	int result = page_chain_open_locked(&restore->chain, snapshot->images, IMAGES_ARE_READ) ?:
			     load_tree(snapshot);

	if (result)
		return result;
	mention_needless_tree(restore);
	snapshot->is_of_another = !page_chain_snapshot(restore->chain, 0);
	result = load_tasks(snapshot)		    ?:
			 check_nested_ids(snapshot) ?:
						      namespaces_load(snapshot, inventory->root_ids);
	if (!result && inventory->root_ids && inventory->root_ids->has_ipc_ns_id)
		result = ipc_load(snapshot, inventory->root_ids->ipc_ns_id);
	if (result)
		return result;
	result = files_load(snapshot) ?: restore_load_cgroups(restore, inventory);
	if (result)
		return result;
	for_each_leader (task, snapshot, OBJECT_MEMORY) {
		if (task->state != TASK_DEAD)
			result = load_memory(restore, task);
		if (result)
			return fail_in(result, "process %d (%s)", task->pid, task->name);
	}
	return result;
}

/* They are needed to check what they have saved. */
static int load_plugins(const struct restore *restore, const InventoryEntry *inventory)
{
	const PluginsEntry *needed = inventory->plugins_entry;

	if (needed)
		plugins_expect(needed->plugins, needed->n_plugins);
	return plugins_load(restore->request->plugins, PLUGINS_RESTORE, image_store_directory(restore->request->images)) ?:
		       plugins_check_expected();
}

int restore_load(void *context)
{
	struct restore *restore = context;
	InventoryEntry *inventory;
	int result = inventory_read(restore->snapshot.images, &inventory);

	if (result)
		return result;
	snprintf(restore->snapshot.run_id, sizeof(restore->snapshot.run_id), "%s",
		 inventory->dump_criu_run_id ?: "");
	result = load_plugins(restore, inventory) ?: load_all(restore, inventory);
	image_free(inventory);
	return result;
}
