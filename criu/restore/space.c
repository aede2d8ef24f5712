/*
 * space.c - a task's memory, made in the newborn while criu's code still runs there, and the calls that later turn this address space
 * into the task's own.
 *
 * A mapping is made at its final address if that is free in criu (nearly always), else in the refuge, from where the restorer moves it.
 * Private memory is filled before children are born: what a child has in common with its parent is inherited by
 * fork(), compared page by page, and stays shared where it is equal.
 *
 * The calls, in this order: park the vdso · unmap everything that is neither the task's nor the restorer's · move what waits in
 * the refuge · move the vdso to its place · advice, locks, guards.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "arch/arch.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "kernel/proc.h"
#include "memory/shared.h"
#include "restore/restore.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* Linux 6.13 */
#endif
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif

#define COMPARED_PAGES 64 /* at a time, of inherited memory */

static void *at(uint64_t address)
{
	return (void *)(uintptr_t)address;
}

static bool is_kernels(const struct vma *vma)
{
	return vma->status & (VMA_VSYSCALL | VMA_VVAR | VMA_VDSO);
}

static bool is_mapped_by_us(const struct vma *vma)
{
	return !is_kernels(vma) && !(vma->status & VMA_GUARD_RANGE);
}

/* ---- inheritance ---- */

/* The parent's mapping of which `vma` can be the continuation after fork(): the same kind of memory at the same address. */
static const struct vma *find_ancestor(const struct task *task, const struct vma *vma)
{
	const struct vmas *theirs = task->parent ? &task->parent->vmas : NULL;

	for (size_t i = 0; theirs && i < theirs->count; i++) {
		const struct vma *other = &theirs->items[i];

		if (other->start == vma->start && other->end == vma->end && other->status == vma->status &&
		    other->object == vma->object && other->offset == vma->offset &&
		    !((other->flags ^ vma->flags) & (MAP_GROWSDOWN | MAP_NORESERVE)))
			return other;
	}
	return NULL;
}

/* Keeps of the parent's mappings those that we go on with; unmaps the rest. */
static int inherit(struct task *task)
{
	const struct vmas *theirs = task->parent && task->parent->state != TASK_DEAD ? &task->parent->vmas : NULL;
	size_t kept_count = 0;
	autofree bool *is_kept = allocate_array(theirs ? theirs->count : 1, sizeof(*is_kept));

	if (!theirs)
		return 0;
	for (size_t i = 0; i < task->vmas.count; i++) {
		struct vma *vma = &task->vmas.items[i];
		const struct vma *ancestor = is_mapped_by_us(vma) && vma_is_private(vma) ? find_ancestor(task, vma) : NULL;

		if (!ancestor)
			continue;
		vma->is_inherited = true;
		vma->place = ancestor->place;
		is_kept[ancestor - theirs->items] = true;
		kept_count++;
	}
	for (size_t i = 0; i < theirs->count; i++) {
		const struct vma *other = &theirs->items[i];

		if (is_mapped_by_us(other) && !is_kept[i] && munmap(at(other->place), vma_length(other)) < 0)
			return fail(errno, "cannot unmap what the parent had at %#llx", (unsigned long long)other->start);
	}
	task->newborn->refuge_used = task->parent->newborn->refuge_used;
	log_debug("process %d inherits %zu mappings", task->pid, kept_count);
	return 0;
}

/* ---- mapping ---- */

static int descriptor_of(struct restore *restore, const struct vma *vma)
{
	if (vma->status & VMA_ANON_SHARED) {
		const struct shared_memory *object = shared_memory_find(&restore->snapshot, vma->object);

		return object ? object->fd : -EINVAL;
	}
	if (vma->status & (VMA_FILE_PRIVATE | VMA_FILE_SHARED)) {
		const struct file *file = snapshot_find_file(&restore->snapshot, vma->object);

		return file ? (file->mapping_fd >= 0 && vma->status & VMA_FILE_SHARED ? file->mapping_fd : file->fd) : -EINVAL;
	}
	return -1;
}

static uint64_t place_in_refuge(const struct restore *restore, struct task *task, const struct vma *vma)
{
	struct newborn *newborn = task->newborn;
	uint64_t place;

	if (newborn->refuge_used < REGION_ROOM)
		newborn->refuge_used = REGION_ROOM;
	place = restore->refuge_start + newborn->refuge_used + REFUGE_GAP;
	newborn->refuge_used += vma_length(vma) + REFUGE_GAP;
	return place;
}

static int map_area(struct restore *restore, struct task *task, struct vma *vma)
{
	bool is_shared = vma->status & (VMA_ANON_SHARED | VMA_FILE_SHARED);
	int fd = descriptor_of(restore, vma);
	int flags = (is_shared ? MAP_SHARED : MAP_PRIVATE) | MAP_FIXED_NOREPLACE |
		    (vma->flags & (MAP_GROWSDOWN | MAP_NORESERVE)) | (fd < 0 ? MAP_ANONYMOUS : 0);
	void *mapped;

	if (fd < -1)
		return fail(EINVAL, "the mapping at %#llx leads nowhere", (unsigned long long)vma->start);
	mapped = mmap(at(vma->start), vma_length(vma), vma->protection, flags, fd, vma->offset);
	if (mapped == MAP_FAILED && errno == EEXIST) {
		vma->place = place_in_refuge(restore, task, vma);
		mapped = mmap(at(vma->place), vma_length(vma), vma->protection, flags, fd, vma->offset);
	}
	if (mapped == MAP_FAILED || mapped != at(vma->place))
		return fail(errno, "cannot map %llu bytes for %#llx", (unsigned long long)vma_length(vma),
			    (unsigned long long)vma->start);
	return 0;
}

/* ---- filling ---- */

static int drop(const struct vma *vma, uint64_t start, uint64_t end)
{
	if (start < end && madvise(at(vma->place + (start - vma->start)), end - start, MADV_DONTNEED) < 0)
		return fail(errno, "cannot drop inherited pages at %#llx", (unsigned long long)start);
	return 0;
}

/* Pages that the parent has, too: only those that differ are written, so the others stay shared. */
static int fill_inherited(const struct page_layer *layer, char *place, uint64_t count, uint64_t offset, char *buffer)
{
	for (uint64_t done = 0, take; done < count; done += take) {
		int result;

		take = min(count - done, (uint64_t)COMPARED_PAGES);
		result = page_layer_read(layer, buffer, take, offset + done * PAGE_SIZE);
		if (result)
			return result;
		for (uint64_t page = 0; page < take; page++) {
			char *ours = place + (done + page) * PAGE_SIZE, *theirs = buffer + page * PAGE_SIZE;

			if (memcmp(ours, theirs, PAGE_SIZE))
				memcpy(ours, theirs, PAGE_SIZE);
		}
	}
	return 0;
}

static int fill_area(const struct page_layer *layer, const struct vma *vma, char *buffer, uint64_t *pages)
{
	uint64_t filled = vma->start; /* inherited pages up to here are right */
	int result = 0;

	for (size_t i = page_runs_find(&layer->runs, vma->start);
	     !result && i < layer->runs.count && layer->runs.items[i].start < vma->end; i++) {
		const struct page_run *run = &layer->runs.items[i];
		uint64_t start = max(run->start, vma->start), end = min(page_run_end(run), vma->end);
		uint64_t count = (end - start) / PAGE_SIZE, offset = run->offset + (start - run->start);
		char *place = at(vma->place + (start - vma->start));

		if (vma->is_inherited)
			result = drop(vma, filled, start) ?: fill_inherited(layer, place, count, offset, buffer);
		else
			result = page_layer_read(layer, place, count, offset);
		filled = end;
		*pages += count;
	}
	return result || !vma->is_inherited ? result : drop(vma, filled, vma->end);
}

static bool has_pages(const struct page_layer *layer, const struct vma *vma)
{
	size_t first = page_runs_find(&layer->runs, vma->start);

	return first < layer->runs.count && layer->runs.items[first].start < vma->end;
}

static int protect(const struct vma *vma, int protection)
{
	if (mprotect(at(vma->place), vma_length(vma), protection) < 0)
		return fail(errno, "cannot change the protection at %#llx", (unsigned long long)vma->start);
	return 0;
}

static int fill(struct task *task, uint64_t *pages)
{
	const struct page_layer *layer = &task->newborn->memory;
	autofree char *buffer = allocate(COMPARED_PAGES * PAGE_SIZE);
	int result = 0;

	for (size_t i = 0; !result && i < task->vmas.count; i++) {
		const struct vma *vma = &task->vmas.items[i];
		bool is_open = (vma->protection & (PROT_READ | PROT_WRITE)) == (PROT_READ | PROT_WRITE);

		if (!is_mapped_by_us(vma) || !vma_is_private(vma) || (!vma->is_inherited && !has_pages(layer, vma)))
			continue;
		if (!is_open && has_pages(layer, vma))
			result = protect(vma, PROT_READ | PROT_WRITE);
		result = result ?: fill_area(layer, vma, buffer, pages);
		if (!result && (!is_open || vma->is_inherited))
			result = protect(vma, vma->protection);
	}
	return result;
}

/* ---- vdso ---- */

static int find_our_vdso(struct vdso *ours)
{
	autoclose int self = proc_open(getpid());
	struct vmas own = { 0 };
	int result = self < 0 ? fail(-self, "cannot open /proc/self") : proc_read_maps(self, &own);

	*ours = (struct vdso){ 0 };
	for (size_t i = 0; !result && i < own.count; i++) {
		const struct vma *vma = &own.items[i];

		if (!strncmp(vma->path, "[vvar", 5) || !strcmp(vma->path, "[vdso]")) {
			if (!ours->start)
				ours->start = vma->start;
			else if (ours->end != vma->start)
				result = fail(0, "this kernel draws its vdso in pieces");
			if (!strcmp(vma->path, "[vdso]"))
				ours->vdso = vma->start;
			ours->end = vma->end;
		}
	}
	vmas_free(&own);
	return result;
}

static void find_their_vdso(const struct task *task, struct vdso *theirs)
{
	*theirs = (struct vdso){ 0 };
	for (size_t i = 0; i < task->vmas.count; i++) {
		const struct vma *vma = &task->vmas.items[i];

		if (!(vma->status & (VMA_VVAR | VMA_VDSO)))
			continue;
		if (!theirs->start)
			theirs->start = vma->start;
		if (vma->status & VMA_VDSO)
			theirs->vdso = vma->start;
		theirs->end = vma->end;
	}
}

/* Is the code that the task's pointers lead into the code that this kernel maps? */
static int compare_vdso(const struct task *task, const struct vdso *ours, const struct vdso *theirs, bool *are_equal)
{
	const struct page_layer *layer = &task->newborn->memory;
	uint64_t size = ours->end - ours->vdso;
	size_t run = page_runs_find(&layer->runs, theirs->vdso);
	autofree char *saved = allocate(size);
	int result;

	*are_equal = theirs->end - theirs->vdso == size && theirs->vdso - theirs->start == ours->vdso - ours->start &&
		     run < layer->runs.count && layer->runs.items[run].start <= theirs->vdso &&
		     page_run_end(&layer->runs.items[run]) >= theirs->end;
	if (!*are_equal)
		return 0;
	result = page_layer_read(layer, saved, size / PAGE_SIZE,
				 layer->runs.items[run].offset + (theirs->vdso - layer->runs.items[run].start));
	*are_equal = !result && !memcmp(saved, at(ours->vdso), size);
	return result;
}

static int look_at_vdso(struct task *task)
{
	struct vdso *ours = &task->newborn->vdso, theirs;
	bool are_equal = true;
	int result = find_our_vdso(ours);

	find_their_vdso(task, &theirs);
	if (!result && theirs.vdso)
		result = compare_vdso(task, ours, &theirs, &are_equal);
	return result || are_equal ? result : fail(0, "its vdso is of another kernel, which is not supported yet");
}

int space_build(struct restore *restore, struct task *task)
{
	uint64_t pages = 0;
	int result = inherit(task);

	for (size_t i = 0; !result && i < task->vmas.count; i++)
		if (is_mapped_by_us(&task->vmas.items[i]) && !task->vmas.items[i].is_inherited)
			result = map_area(restore, task, &task->vmas.items[i]);
	result = result ?: fill(task, &pages) ?: look_at_vdso(task);
	__atomic_fetch_add(restore->newborn_pages, pages, __ATOMIC_RELAXED);
	return result;
}

/* ---- the calls ---- */

struct spans {
	uint64_t (*items)[2];
	size_t count;
};

static void keep(struct spans *spans, uint64_t start, uint64_t end)
{
	uint64_t(*span)[2] = grow(&spans->items, &spans->count);

	(*span)[0] = start;
	(*span)[1] = end;
}

static int compare_spans(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return a < b ? -1 : a > b;
}

static void plan_unmap(struct call_list *calls, struct spans *kept)
{
	uint64_t from = 0;

	qsort(kept->items, kept->count, sizeof(*kept->items), compare_spans);
	keep(kept, arch_task_size(), arch_task_size());
	for (size_t i = 0; i < kept->count; i++) {
		if (kept->items[i][0] > from)
			call(calls, "unmap criu", SYS_munmap, from, kept->items[i][0] - from);
		from = max(from, kept->items[i][1]);
	}
}

static void move_vdso(struct call_list *calls, const struct vdso *from, uint64_t to)
{
	autoclose int self = proc_open(getpid());
	struct vmas own = { 0 };

	/* Each piece is a mapping of its own, and mremap() takes one at a time. */
	if (self >= 0 && !proc_read_maps(self, &own))
		for (size_t i = 0; i < own.count; i++)
			if (own.items[i].start >= from->start && own.items[i].end <= from->end)
				call(calls, "move the vdso", SYS_mremap, own.items[i].start, vma_length(&own.items[i]),
				     vma_length(&own.items[i]), MREMAP_MAYMOVE | MREMAP_FIXED,
				     to + (own.items[i].start - from->start));
	vmas_free(&own);
}

static void plan_advice(const struct vma *vma, struct call_list *calls)
{
	uint64_t length = vma_length(vma);

	for (int advice = 0; advice < 64; advice++)
		if (vma->advice >> advice & 1)
			call(calls, "give advice about memory", SYS_madvise, vma->start, length, advice);
	if (vma->status & VMA_GUARD_RANGE)
		call(calls, "install a guard region", SYS_madvise, vma->start, length, MADV_GUARD_INSTALL);
	if (vma->flags & MAP_LOCKED)
		call(calls, "lock memory", SYS_mlock2, vma->start, length, 0);
}

static void plan_moves(const struct task *task, struct call_list *calls)
{
	for (size_t i = 0; i < task->vmas.count; i++) {
		const struct vma *vma = &task->vmas.items[i];

		if (is_mapped_by_us(vma) && vma->place != vma->start)
			call(calls, "move memory to its place", SYS_mremap, vma->place, vma_length(vma), vma_length(vma),
			     MREMAP_MAYMOVE | MREMAP_FIXED, vma->start);
	}
}

/* From where it was parked: the same calls as at the beginning, with other addresses. */
static void plan_vdso(struct call_list *calls, size_t parking_calls, uint64_t park, uint64_t place)
{
	for (size_t i = 0; i < parking_calls; i++) {
		const struct remote_call parked = calls->calls[i];

		call(calls, "move the vdso to its place", SYS_mremap, parked.arguments[4], parked.arguments[1],
		     parked.arguments[2], parked.arguments[3], place + (parked.arguments[4] - park));
	}
}

void space_plan(struct restore *restore, struct task *task, struct call_list *calls)
{
	const struct vdso *ours = &task->newborn->vdso;
	uint64_t park = place_in_refuge(restore, task, &(struct vma){ .end = ours->end - ours->start });
	struct spans kept = { 0 };
	struct vdso theirs;

	find_their_vdso(task, &theirs);
	keep(&kept, restore->refuge_start, restore->refuge_start + REGION_ROOM);
	if (theirs.vdso) {
		move_vdso(calls, ours, park);
		keep(&kept, park, park + (ours->end - ours->start));
	}
	for (size_t i = 0; i < task->vmas.count; i++)
		if (is_mapped_by_us(&task->vmas.items[i]))
			keep(&kept, task->vmas.items[i].place, task->vmas.items[i].place + vma_length(&task->vmas.items[i]));
	{
		size_t parking_calls = calls->count;

		plan_unmap(calls, &kept);
		plan_moves(task, calls);
		plan_vdso(calls, parking_calls, park, theirs.start);
	}
	for (size_t i = 0; i < task->vmas.count; i++)
		if (!is_kernels(&task->vmas.items[i]))
			plan_advice(&task->vmas.items[i], calls);
	free(kept.items);
}
