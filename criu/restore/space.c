/*
 * space.c - creates a task's memory in the newborn while criu's code still runs there, and plans the calls that later
 * turn this address space into the task's own.
 *
 * A mapping is created at its final address if that is free in criu (nearly always), otherwise in the refuge, from
 * which the restorer moves it. Private memory is filled before children are created: a child inherits it by fork(),
 * compares it page by page, and equal pages stay shared.
 *
 * The calls, in this order: park the vdso · unmap everything that is neither the task's nor the restorer's · move the
 * mappings in the refuge to their places · move the vdso to its place · advice, guards, locks · protection keys, seals.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "arch.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/spans.h"
#include "files/kind.h"
#include "kernel/proc.h"
#include "kernel_constants.h"
#include "memory/shared.h"
#include "restore/space.h"

#define HUGE_MOVE (1ULL << 30)

/* ---- mapping ---- */

static void close_mapped(struct newborn *newborn)
{
	if (newborn->mapped)
		close(newborn->mapped_fd);
	newborn->mapped = NULL;
}

/*
 * Files that are only mapped are opened just for that, because many programs map more files than they may have
 * descriptors. The mappings of a library are adjacent, so the last file stays open until another is needed.
 */
static int open_mapped(struct restore *restore, struct newborn *newborn, struct file *file, bool is_shared)
{
	if (newborn->mapped == file && newborn->is_mapped_shared == is_shared)
		return newborn->mapped_fd;
	close_mapped(newborn);
	newborn->mapped_fd = files_open_to_map(&restore->snapshot, file, is_shared);
	if (newborn->mapped_fd < 0)
		return -EINVAL;
	newborn->mapped = file;
	newborn->is_mapped_shared = is_shared;
	return newborn->mapped_fd;
}

static int descriptor_of(struct restore *restore, struct newborn *newborn, const struct vma *vma)
{
	if (vma->status & VMA_ANON_SHARED) {
		const struct shared_memory *object = shared_memory_find(&restore->snapshot, vma->object);

		return object ? object->fd : -EINVAL;
	}
	if (vma->status & (VMA_FILE_PRIVATE | VMA_FILE_SHARED)) {
		struct file *file = snapshot_find_file(&restore->snapshot, vma->object);

		if (file && file->is_only_mapped)
			return open_mapped(restore, newborn, file, vma->status & VMA_FILE_SHARED);
		return file ? (file->mapping_fd >= 0 && vma->status & VMA_FILE_SHARED ? file->mapping_fd :
											file->fd) :
			      -EINVAL;
	}
	return -1;
}

static uint64_t place_in_refuge(const struct restore *restore, struct task *task, const struct vma *vma)
{
	struct newborn *newborn = task->newborn;
	uint64_t place;

	if (!newborn->refuge_used)
		newborn->refuge_used = restore->regions_size + REFUGE_GAP + VDSO_ROOM;
	place = restore->refuge_start + newborn->refuge_used + REFUGE_GAP;
	place += (vma->start - place) % refuge_step(vma);
	newborn->refuge_used = place + vma_length(vma) - restore->refuge_start;
	return place;
}

static int map_area(struct restore *restore, struct task *task, struct vma *vma)
{
	bool is_shared = !vma_has_own_pages(vma);
	int fd = descriptor_of(restore, task->newborn, vma), protection = protection_while_made(vma);
	int flags = (is_shared			? MAP_SHARED :
		     vma->flags & MAP_DROPPABLE ? MAP_DROPPABLE :
						  MAP_PRIVATE) |
		    MAP_FIXED_NOREPLACE | (vma->flags & (MAP_GROWSDOWN | MAP_NORESERVE)) |
		    (fd < 0 ? MAP_ANONYMOUS | (vma->flags & (MAP_HUGETLB | VMA_HUGE_SIZE)) : 0);
	void *mapped;

	if (fd < -1 && has_failed())
		return fail_in(fd, "the mapping at %#llx", (unsigned long long)vma->start);
	if (fd < -1)
		return fail(EINVAL, "the mapping at %#llx has no file", (unsigned long long)vma->start);
	mapped = mmap(at(vma->start), vma_length(vma), protection, flags, fd, vma->offset);
	if (mapped == MAP_FAILED && errno == EEXIST) {
		vma->place = place_in_refuge(restore, task, vma);
		mapped = mmap(at(vma->place), vma_length(vma), protection, flags, fd, vma->offset);
	}
	if (mapped == MAP_FAILED || mapped != at(vma->place))
		return fail(errno, "cannot map %llu bytes at %#llx", (unsigned long long)vma_length(vma),
			    (unsigned long long)vma->start);
	return 0;
}

/* A name inherited from the parent is removed if this task has none there. */
static int name_area(const struct vma *vma)
{
	if (!vma->name && !vma->is_inherited)
		return 0;
	if (!prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, vma->place, vma_length(vma), vma->name) || !vma->name)
		return 0;
	if (errno != EINVAL)
		return fail(errno, "cannot name the memory at %#llx", (unsigned long long)vma->start);
	log_warning("this kernel does not support names of memory: %s is lost", vma->name);
	return 0;
}

int space_build(struct restore *restore, struct task *task)
{
	uint64_t pages = 0;
	int result = vdso_look(restore, task) ?: space_inherit(task);

	for (size_t i = 0; !result && i < task->space->vmas.count; i++) {
		struct vma *vma = &task->space->vmas.items[i];

		if (is_mapped_by_us(vma))
			result = (vma->is_inherited ? 0 : map_area(restore, task, vma)) ?: name_area(vma);
	}
	close_mapped(task->newborn);
	result = result ?: rings_make(task) ?: space_fill(restore, task, &pages);
	result = result ?: vdso_redirect(task);
	__atomic_fetch_add(restore->newborn_pages, pages, __ATOMIC_RELAXED);
	return result;
}

/* ---- the calls ---- */

static void plan_unmap(struct call_list *calls, struct spans *kept)
{
	uint64_t from = 0;

	spans_sort(kept);
	spans_add(kept, arch_task_size(), arch_task_size());
	for (size_t i = 0; i < kept->count; i++) {
		if (kept->items[i].start > from)
			add_call(calls, "unmap criu", SYS_munmap, from, kept->items[i].start - from);
		from = max(from, kept->items[i].end);
	}
}

static void plan_advice(const struct vma *vma, struct call_list *calls)
{
	uint64_t length = vma_length(vma);

	for (int advice = 0; advice < 64; advice++)
		if (vma->advice >> advice & 1)
			add_call(calls, "give advice about memory", SYS_madvise, vma->start, length, advice);
	if (vma->status & VMA_GUARD_RANGE)
		add_call(calls, "install a guard region", SYS_madvise, vma->start, length,
			 MADV_GUARD_INSTALL);
}

/*
 * This comes after the guards, which cannot be installed in locked memory. mlock() makes all pages present. If it
 * cannot (guards, PROT_NONE, behind the end of a file), it returns ENOMEM, but has locked the memory. So the first
 * call, which makes nothing present, shows whether locking is permitted, and ENOMEM of the second is no error.
 */
static void plan_lock(const struct vma *vma, struct call_list *calls)
{
	uint64_t length = vma_length(vma);

	if (!(vma->flags & MAP_LOCKED))
		return;
	add_call(calls, "lock memory", SYS_mlock2, vma->start, length, MLOCK_ONFAULT);
	if (vma->locks_on_fault)
		return;
	add_call(calls, "make locked memory present", SYS_mlock2, vma->start, length, 0);
	calls_accept(calls, ENOMEM);
}

/*
 * Huge pages are moved in pieces: the range of one page table of them, but at most 1 GiB, or one page if that is
 * larger. The kernel counts what it has moved in an int, so mremap() of 2 GiB and more may fail (seen on Linux 6.18).
 * So may a single page of 1 GiB where there is no page table yet; then the restore fails.
 */
static void plan_move(const struct vma *vma, struct call_list *calls)
{
	uint64_t most = vma->flags & MAP_HUGETLB ? max(min(refuge_step(vma), HUGE_MOVE), vma_page_size(vma)) :
						   UINT64_MAX;

	for (uint64_t start = vma->start, end; start < vma->end; start = end) {
		end = vma->end - start > most - start % most ? start - start % most + most : vma->end;
		add_call(calls, "move memory to its place", SYS_mremap, vma->place + (start - vma->start),
			 end - start, end - start, MREMAP_MAYMOVE | MREMAP_FIXED, start);
	}
}

static void plan_moves(const struct task *task, struct call_list *calls)
{
	for (size_t i = 0; i < task->space->vmas.count; i++) {
		const struct vma *vma = &task->space->vmas.items[i];

		if (is_mapped_by_us(vma) && vma->place != vma->start)
			plan_move(vma, calls);
	}
}

void space_plan(struct restore *restore, struct task *task, struct call_list *calls)
{
	struct spans kept = { 0 };

	spans_add(&kept, restore->refuge_start, restore->refuge_start + restore->regions_size);
	if (task->newborn->vdso_place)
		spans_add(&kept, task->newborn->vdso_park, task->newborn->vdso_park + VDSO_ROOM);
	for (size_t i = 0; i < task->space->vmas.count; i++)
		if (is_mapped_by_us(&task->space->vmas.items[i]))
			spans_add(&kept, task->space->vmas.items[i].place,
				  task->space->vmas.items[i].place + vma_length(&task->space->vmas.items[i]));
	vdso_plan_parking(task, calls);
	plan_unmap(calls, &kept);
	plan_moves(task, calls);
	vdso_plan_return(task, calls);
	for (size_t i = 0; i < task->space->vmas.count; i++)
		if (!is_kernels(&task->space->vmas.items[i]))
			plan_advice(&task->space->vmas.items[i], calls);
	for (size_t i = 0; i < task->space->vmas.count; i++)
		if (!is_kernels(&task->space->vmas.items[i]))
			plan_lock(&task->space->vmas.items[i], calls);
	protection_plan(task, calls);
	spans_free(&kept);
}
