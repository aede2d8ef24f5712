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
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "arch.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/spans.h"
#include "base/time.h"
#include "files/kind.h"
#include "files/kinds/io_uring.h"
#include "kernel/proc.h"
#include "kernel_constants.h"
#include "memory/shared.h"
#include "plugins/plugins.h"
#include "restore/held.h"
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
	if (vma->status & VMA_OF_FILE) {
		struct file *file = snapshot_find_file(&restore->snapshot, vma->object);

		if (file && file->is_only_mapped)
			return open_mapped(restore, newborn, file, vma->status & VMA_FILE_SHARED);
		return file ? (file->mapping_fd >= 0 && vma->status & VMA_FILE_SHARED ? file->mapping_fd :
											file->fd) :
			      -EINVAL;
	}
	return -1;
}

/*
 * A mapping that a plugin restores: the plugin may change the offset, and give a descriptor. It stays open, because the
 * plugin may give it for several mappings; files_arrange() closes it.
 */
static int descriptor_of_plugin(struct restore *restore, struct newborn *newborn, struct vma *vma)
{
	struct file *file = snapshot_find_file(&restore->snapshot, vma->object);
	const RegFileEntry *entry = file->entry->reg;
	struct stat found;
	int fd = -1, result = plugins_update_mapping(entry->name, vma->start, &vma->offset, &fd);

	if (result < 0 || fd >= 0)
		return result < 0 ? -EINVAL : fd;
	fd = descriptor_of(restore, newborn, vma);
	if (fd >= 0 && (fstat(fd, &found) < 0 || (found.st_mode ^ entry->mode) & S_IFMT))
		return fail(EINVAL, "%s is not the device that was mapped", entry->name);
	return fd;
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

/* Keeps addresses free for a mapping that is moved there. */
static int reserve_place(struct restore *restore, struct task *task, struct vma *vma)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
	void *mapped = mmap(at(vma->start), vma_length(vma), PROT_NONE, flags, -1, 0);

	if (mapped == MAP_FAILED && errno == EEXIST) {
		vma->place = place_in_refuge(restore, task, vma);
		mapped = mmap(at(vma->place), vma_length(vma), PROT_NONE, flags, -1, 0);
	}
	if (mapped == MAP_FAILED || mapped != at(vma->place))
		return fail(errno, "cannot keep %llu bytes at %#llx free",
			    (unsigned long long)vma_length(vma), (unsigned long long)vma->start);
	return 0;
}

/*
 * A segment of System V IPC can only be attached as a whole. The part that the mapping has is moved to its place. The
 * kernel counts attachments correctly: it counts mappings.
 */
static int attach_area(struct restore *restore, struct task *task, struct vma *vma)
{
	const struct shared_memory *object = shared_memory_find(&restore->snapshot, vma->object);
	uint64_t unit = object->page_size ?: PAGE_SIZE, size = round_up(object->size, unit);
	bool may_write = (vma->file_flags & O_ACCMODE) == O_RDWR;
	int result = reserve_place(restore, task, vma);
	char *memory, *part;

	if (result)
		return result;
	memory = shmat((int)object->id, NULL, may_write ? 0 : SHM_RDONLY);
	if (memory == (void *)-1)
		return fail(errno, "cannot attach shared memory segment %d", (int)object->id);
	part = memory + vma->offset;
	if (mremap(part, vma_length(vma), vma_length(vma), MREMAP_MAYMOVE | MREMAP_FIXED, at(vma->place)) ==
		    MAP_FAILED ||
	    mprotect(at(vma->place), vma_length(vma), protection_while_made(vma)) < 0)
		return fail(errno, "cannot move a part of shared memory segment %d to %#llx", (int)object->id,
			    (unsigned long long)vma->start);
	if (vma->offset)
		munmap(memory, vma->offset);
	if (vma->offset + vma_length(vma) < size)
		munmap(part + vma_length(vma), size - vma->offset - vma_length(vma));
	return 0;
}

/* It has its content already. If it is not at its address, it moves there with all that waits elsewhere. */
static int take_held(const struct vma *vma)
{
	int protection = protection_while_made(vma);

	return protection == (PROT_READ | PROT_WRITE) ? 0 : space_protect(vma, protection);
}

static int map_area(struct restore *restore, struct task *task, struct vma *vma)
{
	bool is_shared = !vma_has_own_pages(vma);
	int protection = protection_while_made(vma);
	int fd = vma->status & VMA_PLUGIN ? descriptor_of_plugin(restore, task->newborn, vma) :
					    descriptor_of(restore, task->newborn, vma);
	int flags = (is_shared			? MAP_SHARED :
		     vma->flags & MAP_DROPPABLE ? MAP_DROPPABLE :
						  MAP_PRIVATE) |
		    MAP_FIXED_NOREPLACE | (vma->flags & (MAP_GROWSDOWN | MAP_NORESERVE)) |
		    (fd < 0 ? MAP_ANONYMOUS | (vma->flags & (MAP_HUGETLB | VMA_HUGE_SIZE)) : 0);
	void *mapped;

	if (held_memory_find(restore->held, task->pid, vma, &vma->place)) {
		vma->is_held = true;
		return take_held(vma);
	}
	if (vma->status & VMA_SYSV_IPC)
		return attach_area(restore, task, vma);
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

/* Only the kernel chooses where an io_uring is mapped. uring_threads.c maps some of them later. */
static bool is_steered(const struct restore *restore, const struct vma *vma)
{
	const struct file *file = vma->status & VMA_FILE_SHARED ?
					  snapshot_find_file(&restore->snapshot, vma->object) :
					  NULL;

	return file && file->kind == &file_kind_io_uring;
}

/* They come first, because a newborn has the fewest mappings then. */
static int map_steered_areas(struct restore *restore, struct task *task)
{
	int result = 0;

	for (size_t i = 0; !result && i < task->space->vmas.count; i++) {
		const struct vma *vma = &task->space->vmas.items[i];

		if (is_steered(restore, vma) &&
		    !io_uring_has_thread(snapshot_find_file(&restore->snapshot, vma->object)))
			result = space_steer(vma, protection_while_made(vma),
					     descriptor_of(restore, task->newborn, vma));
	}
	return result;
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

static int fill(const struct restore *restore, const struct task *task)
{
	uint64_t pages = 0, began = monotonic_time();
	int result = space_fill(restore, task, &pages);

	__atomic_fetch_add(&restore->newborns->pages, pages, __ATOMIC_RELAXED);
	__atomic_fetch_add(&restore->newborns->time, monotonic_time() - began, __ATOMIC_RELAXED);
	return result;
}

int space_build(struct restore *restore, struct task *task)
{
	int result = vdso_look(restore, task) ?: space_inherit(task) ?: map_steered_areas(restore, task);

	for (size_t i = 0; !result && i < task->space->vmas.count; i++) {
		struct vma *vma = &task->space->vmas.items[i];

		if (is_mapped_by_us(vma))
			result =
				(vma->is_inherited || is_steered(restore, vma) ? 0 : map_area(restore, task, vma)) ?:
					name_area(vma);
	}
	close_mapped(task->newborn);
	result = result ?: rings_make(task) ?: fill(restore, task);
	return result ?: vdso_redirect(task);
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
