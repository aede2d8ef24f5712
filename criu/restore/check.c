/*
 * check.c - checks that everything can be restored here, before the first task exists; changes nothing.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "arch.h"
#include "arch/arch.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/spans.h"
#include "base/descriptors.h"
#include "criu-plugin.h"
#include "files/kind.h"
#include "files/kinds/io_uring.h"
#include "ipc/ipc.h"
#include "kernel/proc.h"
#include "model/births.h"
#include "memory/mapping_limit.h"
#include "plugins/plugins.h"
#include "restore/restore.h"
#include "restore/space.h"
#include "sockets/packet.h"
#include "task/part.h"

#define REFUGE_SEARCH_FROM 0x10000000000ULL /* 1 TiB: programs, heaps and libraries are higher or lower */

static int check_executable(const struct snapshot *snapshot, const struct task *task)
{
	uint32_t id = task->space->mm->exe_file_id;
	const struct file *file = snapshot_find_file(snapshot, id);

	if (file &&
	    (file->kind == &file_kind_memfd || (file->kind == &file_kind_regular && !file->is_only_path)))
		return 0;
	return fail(EINVAL, "files.img: its executable (file %u) is missing", id);
}

/* ---- memory ---- */

/* Without a file to map, it would be anonymous memory. */
static bool leads_nowhere(const struct snapshot *snapshot, const struct vma *vma)
{
	const struct file *file = snapshot_find_file(snapshot, vma->object);

	return !file || !file->kind || file->is_only_path;
}

/* NULL, or what it should be. */
static const char *why_impossible(const struct snapshot *snapshot, const struct vma *vma)
{
	const struct file *file = snapshot_find_file(snapshot, vma->object);

	if (vma->status & VMA_SOCKET || file->kind == &file_kind_packet) {
		bool is_possible = vma->status & VMA_SOCKET && file->kind == &file_kind_packet &&
				   packet_ring_is_mapped(file->entry->psk, vma);

		return is_possible ? NULL : "is not the ring of its packet socket";
	}
	if (file->kind != &file_kind_io_uring)
		return NULL;
	return vma->status & VMA_FILE_SHARED && io_uring_has_part(file, vma->offset, vma_length(vma)) ?
		       NULL :
		       "is no part of its io_uring";
}

/* A device that criu itself would not open is mapped only for a plugin. */
static int check_plugin(const struct snapshot *snapshot, const struct vma *vma)
{
	const struct file *file = vma->status & VMA_OF_FILE ? snapshot_find_file(snapshot, vma->object) :
							      NULL;

	if (vma->status & VMA_PLUGIN && !(file && file->kind == &file_kind_regular))
		return fail(EINVAL, "the mapping at %#" PRIx64 " is not of a device", vma->start);
	if (file && file->is_of_plugin && !(vma->status & VMA_PLUGIN))
		return fail(EINVAL, "the mapping at %#" PRIx64 " is of %s, which criu does not open",
			    vma->start, file->entry->reg->name);
	if (!(vma->status & VMA_PLUGIN) || plugins_have(CR_PLUGIN_HOOK__UPDATE_VMA_MAP) ||
	    plugins_have(CR_PLUGIN_HOOK__HANDLE_DEVICE_VMA))
		return 0;
	fail_advice("--libdir, with the directory of the plugin that has saved it");
	return fail(EINVAL,
		    "the mapping at %#" PRIx64 " of %s was saved by a plugin, and no such plugin is loaded",
		    vma->start, file->entry->reg->name);
}

static int check_layout(const struct snapshot *snapshot, const struct task *task)
{
	const struct vma *last = NULL;
	int result;

	for (size_t i = 0; i < task->space->vmas.count; i++) {
		const struct vma *vma = &task->space->vmas.items[i];
		const struct vma_saving *saving = vma_how_saved(vma);
		const char *why;

		if (saving->maker == ALWAYS_THERE)
			continue;
		if (vma->end > arch_task_size())
			return fail(EINVAL, "mm-%d.img: a mapping is outside of user space: %#" PRIx64,
				    task->pid, vma->start);
		if (saving->maker == IS_PART)
			continue;
		if (last && vma->start < last->end)
			return fail(EINVAL, "mm-%d.img: mappings overlap at %#" PRIx64, task->pid,
				    vma->start);
		if (saving->content == CONTENT_NOT_SUPPORTED)
			return fail(EINVAL,
				    "mm-%d.img: the mapping at %#" PRIx64
				    " is %s: not supported yet (status %#x)",
				    task->pid, vma->start, saving->name, vma->status);
		if (vma->status & VMA_OF_FILE && leads_nowhere(snapshot, vma))
			return fail(EINVAL,
				    "mm-%d.img: the mapping at %#" PRIx64 " refers to an unknown file",
				    task->pid, vma->start);
		why = vma->status & VMA_OF_FILE ? why_impossible(snapshot, vma) : NULL;
		if (why)
			return fail(EINVAL, "mm-%d.img: the mapping at %#" PRIx64 " %s", task->pid,
				    vma->start, why);
		result = check_plugin(snapshot, vma);
		if (result)
			return fail_in(result, "mm-%d.img", task->pid);
		last = vma;
	}
	return 0;
}

/* Every page in the images must belong to a mapping. */
static int check_pages(const struct task *task)
{
	const struct page_runs *runs = &task->newborn->memory.runs;
	size_t area = 0;

	for (size_t i = 0; i < runs->count; i++) {
		uint64_t at = runs->items[i].start, end = page_run_end(&runs->items[i]);

		while (at < end) {
			const struct vma *vma;

			while (area < task->space->vmas.count && task->space->vmas.items[area].end <= at)
				area++;
			vma = area < task->space->vmas.count ? &task->space->vmas.items[area] : NULL;
			if (!vma || vma->start > at || !vma_has_own_pages(vma))
				return fail(EINVAL,
					    "pagemap-%d.img has a page at %#" PRIx64
					    ", where the process has no memory",
					    task->pid, at);
			at = vma->end;
		}
	}
	return 0;
}

/* The addresses that criu itself uses, and all tasks. */
static int list_used(const struct restore *restore, struct spans *spans)
{
	struct vmas own = { 0 };
	const struct task *task;
	autoclose int self = proc_open(getpid());
	int result = self < 0 ? fail(-self, "cannot open /proc/self") : proc_read_maps(self, &own);

	if (result)
		return result;
	for (size_t i = 0; i < own.count; i++)
		spans_add(spans, own.items[i].start, own.items[i].end);
	vmas_free(&own);
	for_each_leader (task, &restore->snapshot, OBJECT_MEMORY)
		for (size_t i = 0; i < task->space->vmas.count; i++)
			spans_add(spans, task->space->vmas.items[i].start, task->space->vmas.items[i].end);
	spans_sort(spans);
	return 0;
}

int restore_find_room(const struct restore *restore, uint64_t size, uint64_t *start)
{
	struct spans spans = { 0 };
	uint64_t at = REFUGE_SEARCH_FROM;
	int result = list_used(restore, &spans);

	for (size_t i = 0; i < spans.count && spans.items[i].start < at + size; i++)
		at = max(at, round_up(spans.items[i].end, REGION_ROOM));
	spans_free(&spans);
	*start = at;
	if (!result && at + size > arch_task_size())
		result = fail(ENOMEM, "no free addresses for criu's code (the restorer)");
	return result;
}

/* For mappings that have to wait there. A child's may wait beside those inherited from its parent, which wait there, too. */
static int find_refuge(struct restore *restore)
{
	uint64_t needed, largest = 0, users = 0;
	const struct task *task;
	int result;

	for_each_leader (task, &restore->snapshot, OBJECT_MEMORY) {
		uint64_t sum = 0;

		for (size_t i = 0; i < task->space->vmas.count; i++)
			sum += vma_length(&task->space->vmas.items[i]) + REFUGE_GAP +
			       refuge_step(&task->space->vmas.items[i]);
		largest = max(largest, sum);
		users = max(users, task->space->object.user_count);
	}
	restore->regions_size = users * REGION_ROOM;
	needed = restore->regions_size + REFUGE_GAP + VDSO_ROOM + 2 * largest;
	result = restore_find_room(restore, needed, &restore->refuge_start);
	restore->refuge_end = restore->refuge_start + needed;
	return result;
}

/* ---- all ---- */

static int check_task(const struct snapshot *snapshot, const struct task *task)
{
	int result = 0;

	for (size_t i = 0; !result && i < task->thread_count; i++) {
		struct thread_context context;

		result = arch_load_registers(task->cores[i], &context);
		trace_free_context(&context);
		result = result ?: task_parts_check(snapshot, task, i);
	}
	result = result ?: check_layout(snapshot, task) ?: protection_check(task);
	return result ?: check_pages(task) ?: check_executable(snapshot, task);
}

/* Can a process end with this wait status: by an exit code, or by a signal that kills unless it is handled? */
static bool is_possible_end(uint32_t status)
{
	const int harmless[] = { SIGCHLD, SIGCONT, SIGURG, SIGWINCH, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU };
	int number = WTERMSIG(status);

	for (size_t i = 0; i < array_size(harmless); i++)
		if (number == harmless[i])
			return false;
	return number ? number <= SIGRTMAX && status <= 0xff : status <= 0xffff && !(status & 0x80);
}

static int check_dead(const struct task *task)
{
	uint32_t status = task->cores[0]->tc->exit_code;

	if (!is_possible_end(status))
		return fail(EINVAL, "core-%d.img is of a zombie with an invalid exit status (%#x)", task->pid,
			    status);
	if (!list_is_empty(&task->children))
		return fail(EINVAL, "pstree.img: zombie %d has children", task->pid);
	if (WCOREDUMP(status))
		log_warning("zombie %d dumped core when it died; its parent will not be told that",
			    task->pid);
	return 0;
}

/* Is there a creator for each task, which can share with it what the task shares? */
static int check_births(struct snapshot *snapshot)
{
	const struct task *task;

	births_plan(snapshot);
	for_each_task (task, snapshot) {
		autofree char *obstacle = births_obstacle(snapshot, task);

		if (obstacle)
			return fail(EINVAL, "%s", obstacle);
	}
	return 0;
}

static void note_used_files(const struct task *task, struct index *used)
{
	index_set(used, task->space->mm->exe_file_id, used);
	index_set(used, task->directories->fs->cwd_id, used);
	index_set(used, task->directories->fs->root_id, used);
	for (size_t i = 0; i < task->space->vmas.count; i++)
		if (task->space->vmas.items[i].status & VMA_OF_FILE)
			index_set(used, task->space->vmas.items[i].object, used);
}

/* A missing descriptor table was empty, or it is lost: then there are files without a holder. */
static int check_lost_tables(const struct snapshot *snapshot)
{
	struct index used = { 0 };
	const struct task *task;
	int result = 0;

	if (!snapshot->lacks_tables)
		return 0;
	for_each_task (task, snapshot)
		if (task->state != TASK_DEAD)
			note_used_files(task, &used);
	for (size_t i = 0; !result && i < snapshot->file_count; i++) {
		const struct file *file = snapshot->files[i];

		/* For memory without a name, mappings no longer refer to their file. */
		if (file_is_open(file) || file->is_only_path || file->kind == &file_kind_memfd ||
		    index_find(&used, file->id))
			continue;
		result = fail(ENOENT, "no process has file %u of files.img: an image fdinfo-N.img is missing",
			      file->id);
	}
	index_free(&used);
	return result;
}

/* Checks limits for what a restore needs temporarily. */
static int check_kernel_limits(struct restore *restore)
{
	autofree char *lack = files_lack_descriptors(&restore->snapshot, descriptors_count());
	struct mapping_limit limit;
	const struct task *task;

	if (lack) {
		fail_advice("a higher hard limit of open files (ulimit -Hn), or CAP_SYS_RESOURCE");
		return fail(0, "%s", lack);
	}
	mapping_limit_read(&limit);
	for_each_task (task, &restore->snapshot) {
		autofree char *too_many = mapping_limit_exceeded(&limit, task);

		if (too_many) {
			fail_advice("sysctl vm.max_map_count=%zu", mapping_limit_needed(&limit, task));
			return fail(0, "%s", too_many);
		}
	}
	return 0;
}

int restore_check(void *context)
{
	struct restore *restore = context;
	struct task *task;
	int result = check_births(&restore->snapshot) ?: check_lost_tables(&restore->snapshot);

	if (result)
		return result;
	for_each_task (task, &restore->snapshot) {
		result = task->state == TASK_DEAD ? check_dead(task) : check_task(&restore->snapshot, task);
		if (result)
			return fail_in(result, "process %d (%s)", task->pid, task->name);
	}
	result = check_kernel_limits(restore) ?: rings_check(&restore->snapshot);
	result = result ?: ipc_check(&restore->snapshot);
	result = result ?: restore_check_huge_pages(&restore->snapshot, restore->chain);
	result = result ?: restore_check_cgroups(restore) ?: restore_check_pids(restore);
	return result ?: find_refuge(restore);
}
