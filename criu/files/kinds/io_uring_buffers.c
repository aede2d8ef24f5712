/*
 * io_uring_buffers.c - memory that is registered with a ring (IORING_REGISTER_BUFFERS), so that requests need not look
 * it up. It is memory of one process, and saved as such; the process registers it again.
 *
 * The kernel writes to such memory without the page tables of the process. So no tracker notices it, and after a dump
 * that lets the process run on, the next snapshot compares its pages (increment_begin_notes()). Memory that has been
 * registered since the previous snapshot counts as written, because registering faults each page in for writing.
 */
#include <errno.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include "base/error.h"
#include "base/memory.h"
#include "calls.h"
#include "files/kind.h"
#include "files/kinds/io_uring.h"
#include "image/message.h"
#include "kernel/uring.h"

/* The kernel's limits: IORING_MAX_REG_BUFFERS, and SZ_1G in io_validate_user_buf_range(). */
#define MOST_BUFFERS (1u << 14)
#define LONGEST	     (1u << 30)

/* NULL: it has no registered memory. */
static const struct task *owner_of(const struct snapshot *snapshot, const struct file *ring)
{
	const IoUringFileEntry *entry = ring->entry ? ring->entry->uring : NULL;

	return entry && entry->n_buffers && entry->has_buffers_owner ?
		       snapshot_find_task(snapshot, (pid_t)entry->buffers_owner) :
		       NULL;
}

/* ---- dump ---- */

/* criu may read it: nothing waits for a userfaultfd. */
static bool is_shared(const struct vmas *vmas, const struct uring_buffer *buffer)
{
	uint64_t at = buffer->address, end = at + buffer->length;

	while (at < end) {
		const struct vma *vma = vmas_find(vmas, at);

		if (!vma || !(vma->flags & MAP_SHARED) || vma->unknown)
			return false;
		at = vma->end;
	}
	return true;
}

/* 1, 0 or -errno, recorded. */
static int has_all(struct uring_reader *reader, struct uring_buffer *buffers, uint32_t count,
		   const struct task *task)
{
	for (uint32_t i = 0; i < count; i++)
		buffers[i].is_shared = is_shared(&task->space->vmas, &buffers[i]);
	return uring_has_pages(reader, buffers, count, task->proc);
}

/* A process that has a descriptor of the ring, and may use it. */
static bool may_have_registered(const struct task *task, const struct file *ring)
{
	const IoUringFileEntry *entry = ring->entry->uring;

	return task->state != TASK_DEAD && task_number_of(task, ring) >= 0 &&
	       (!entry->has_submitter || (pid_t)entry->submitter == task->pid);
}

/* Children of the process have the same addresses, and other pages: what is registered is not shared after fork(). */
static int find_owner(const struct snapshot *snapshot, struct uring_reader *reader, const struct file *ring,
		      struct uring_buffer *buffers, uint32_t count, const struct task **owner)
{
	struct task *task;
	int result = 0;

	for_each_task (task, snapshot) {
		if (result || *owner || !may_have_registered(task, ring))
			continue;
		result = has_all(reader, buffers, count, task);
		if (result == 1)
			*owner = task;
		result = min(result, 0);
	}
	return result;
}

static void note_buffers(IoUringFileEntry *entry, const struct uring_buffer *buffers, uint32_t count)
{
	entry->n_buffers = count;
	entry->buffers = allocate_array(count, sizeof(*entry->buffers));
	for (uint32_t i = 0; i < count; i++) {
		entry->buffers[i] = message_new(IoUringBufferEntry, io_uring_buffer_entry);
		entry->buffers[i]->address = buffers[i].address;
		entry->buffers[i]->length = (uint32_t)buffers[i].length;
	}
}

int io_uring_find_buffers(const struct snapshot *snapshot, struct io_uring_state *state,
			  const struct uring_facts *facts, struct file *ring)
{
	IoUringFileEntry *entry = ring->entry->uring;
	uint32_t count = facts->buffer_count;
	autofree struct uring_buffer *buffers = NULL;
	const struct task *owner = NULL;
	const char *problem;
	int result;

	if (!count)
		return 0;
	if (count > MOST_BUFFERS)
		return io_uring_refuse(ring, "too many registered buffers");
	buffers = allocate_array(count, sizeof(*buffers));
	result = uring_read_buffers(state->reader, facts, buffers, &problem);
	if (result || problem)
		return result ?: io_uring_refuse(ring, problem);
	result = find_owner(snapshot, state->reader, ring, buffers, count, &owner);
	if (result)
		return result;
	if (!owner)
		return io_uring_refuse(
			ring,
			"registered buffers that are not, or no longer, memory of a process that has it open");
	note_buffers(entry, buffers, count);
	message_set(entry, buffers_owner, (uint32_t)owner->pid);
	return 0;
}

bool io_uring_writes_to(const struct snapshot *snapshot, const struct task *task)
{
	const struct file_list *rings = files_of_kind(snapshot, &file_kind_io_uring);

	for (size_t i = 0; i < rings->count; i++) {
		const struct task *owner = owner_of(snapshot, rings->items[i]);

		if (owner && owner->space == task->space)
			return true;
	}
	return false;
}

/* ---- restore ---- */

static bool is_possible(const IoUringBufferEntry *buffer)
{
	return buffer->length ? buffer->address && buffer->length <= LONGEST &&
					buffer->address <= UINT64_MAX - buffer->length :
				!buffer->address;
}

int io_uring_check_buffers(const struct snapshot *snapshot, const struct file *ring)
{
	const IoUringFileEntry *entry = ring->entry->uring;
	const struct task *owner = owner_of(snapshot, ring);
	bool is_right = !entry->n_buffers || (owner && may_have_registered(owner, ring));

	for (size_t i = 0; is_right && i < entry->n_buffers; i++)
		is_right = is_possible(entry->buffers[i]);
	if (is_right && entry->n_buffers <= MOST_BUFFERS)
		return 0;
	return fail(EINVAL, "files.img: file %u is an io_uring with impossible registered buffers", ring->id);
}

bool io_uring_has_buffers(const struct snapshot *snapshot, const struct task *task)
{
	const struct file_list *rings = files_of_kind(snapshot, &file_kind_io_uring);

	for (size_t i = 0; i < rings->count; i++)
		if (owner_of(snapshot, rings->items[i]) == task)
			return true;
	return false;
}

/* The kernel registers only memory that the process may write to at that moment. */
static bool needs_permission(const struct vma *vma)
{
	return !(vma->protection & PROT_WRITE);
}

static int check_buffer(const struct vmas *vmas, const IoUringBufferEntry *buffer)
{
	uint64_t start = buffer->address, end = start + buffer->length;

	while (start < end) {
		const struct vma *vma = vmas_find(vmas, start);

		if (!vma)
			return fail(EINVAL,
				    "it has registered memory with an io_uring that is not mapped: %#" PRIx64,
				    buffer->address);
		if (needs_permission(vma) && vma->is_sealed)
			return fail(
				EOPNOTSUPP,
				"it has registered memory with an io_uring that it may no longer write to, and that is sealed (%#" PRIx64
				"): not supported yet",
				buffer->address);
		start = vma->end;
	}
	return 0;
}

int io_uring_check_owner(const struct snapshot *snapshot, const struct task *task)
{
	const struct file_list *rings = files_of_kind(snapshot, &file_kind_io_uring);

	for (size_t i = 0; i < rings->count; i++) {
		const IoUringFileEntry *entry = owner_of(snapshot, rings->items[i]) == task ?
							rings->items[i]->entry->uring :
							NULL;

		for (size_t k = 0; entry && k < entry->n_buffers; k++) {
			int result = check_buffer(&task->space->vmas, entry->buffers[k]);

			if (result)
				return result;
		}
	}
	return 0;
}

static void plan_ring(const struct task *task, const struct file *ring, struct call_list *calls)
{
	const IoUringFileEntry *entry = ring->entry->uring;
	autofree struct iovec *buffers = allocate_array(entry->n_buffers, sizeof(*buffers));

	for (size_t i = 0; i < entry->n_buffers; i++)
		buffers[i] = (struct iovec){ (void *)(uintptr_t)entry->buffers[i]->address,
					     entry->buffers[i]->length };
	add_call(calls, "register buffers with an io_uring", SYS_io_uring_register,
		 (uint64_t)task_number_of(task, ring), IORING_REGISTER_BUFFERS,
		 calls_bytes(calls, buffers, entry->n_buffers * sizeof(*buffers)), entry->n_buffers);
}

/* is_wanted: for each mapping of the process. */
static void find_protected(const struct task *task, const struct file *ring, bool *is_wanted)
{
	const struct vmas *vmas = &task->space->vmas;
	const IoUringFileEntry *entry = ring->entry->uring;

	for (size_t i = 0; i < entry->n_buffers; i++) {
		const IoUringBufferEntry *buffer = entry->buffers[i];
		const struct vma *vma = NULL;

		for (uint64_t at = buffer->address; at < buffer->address + buffer->length; at = vma->end) {
			vma = vmas_find(vmas, at);
			is_wanted[vma - vmas->items] |= needs_permission(vma);
		}
	}
}

static void plan_protection(const struct task *task, const bool *is_wanted, bool may_write,
			    struct call_list *calls)
{
	for (size_t i = 0; i < task->space->vmas.count; i++) {
		const struct vma *vma = &task->space->vmas.items[i];

		if (is_wanted[i])
			add_call(calls, "protect registered memory", SYS_mprotect, vma->start,
				 vma_length(vma), may_write ? PROT_READ | PROT_WRITE : vma->protection);
	}
}

void io_uring_plan_buffers(const struct snapshot *snapshot, const struct task *task, struct call_list *calls)
{
	const struct file_list *rings = files_of_kind(snapshot, &file_kind_io_uring);
	autofree bool *is_protected = NULL;

	if (!io_uring_has_buffers(snapshot, task))
		return;
	is_protected = allocate_array(task->space->vmas.count, sizeof(*is_protected));
	for (size_t i = 0; i < rings->count; i++)
		if (owner_of(snapshot, rings->items[i]) == task)
			find_protected(task, rings->items[i], is_protected);
	plan_protection(task, is_protected, true, calls);
	for (size_t i = 0; i < rings->count; i++)
		if (owner_of(snapshot, rings->items[i]) == task)
			plan_ring(task, rings->items[i], calls);
	plan_protection(task, is_protected, false, calls);
}
