/*
 * io_uring_slots.c - descriptors of rings that a thread has registered (IORING_REGISTER_RING_FDS): it enters such a ring
 * by the number of a slot of its own. They belong to the thread; the image has them with the ring.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include "base/error.h"
#include "base/memory.h"
#include "calls.h"
#include "files/kind.h"
#include "files/kinds/io_uring.h"
#include "image/message.h"
#include "kernel/uring.h"

/* Is it a slot of this thread? */
static bool is_of(const IoUringSlotEntry *slot, const struct task *task, size_t thread)
{
	return (pid_t)slot->thread == task->threads[thread].tid;
}

/* ---- dump ---- */

int io_uring_refuse(const struct file *ring, const char *what)
{
	return refuse("process %d (%s): descriptor %d is an io_uring with %s: not supported yet",
		      ring->seen->holder.here, ring->seen->holder.name, ring->seen->fd, what);
}

static bool is_noted(const IoUringFileEntry *entry, const struct thread *thread, uint32_t slot)
{
	for (size_t i = 0; i < entry->n_slots; i++)
		if ((pid_t)entry->slots[i]->thread == thread->tid && entry->slots[i]->slot == slot)
			return true;
	return false;
}

/* A thread that has used one ring may have registered another one that it has never used. */
static int note_slot(const struct snapshot *snapshot, const struct io_uring_state *state,
		     const struct uring_slot *slot, struct file *ring)
{
	const struct task *task = snapshot_find_task_here(snapshot, slot->process);
	const struct thread *thread = task ? task_find_thread_here(task, slot->thread) : NULL;
	const struct file *file = index_find(&state->files, slot->file);
	IoUringFileEntry *entry;
	IoUringSlotEntry *made;

	if (!file || file->kind != &file_kind_io_uring)
		return io_uring_refuse(ring, "a registered descriptor of a ring that no process has open");
	entry = file->entry->uring;
	if (!thread)
		return io_uring_refuse(ring, "a registered descriptor of a thread that criu does not find");
	if (entry->has_submitter && (pid_t)entry->submitter != thread->tid)
		return io_uring_refuse(ring, "a registered descriptor of a thread that may not use it");
	if (is_noted(entry, thread, slot->slot))
		return 0;
	made = message_new(IoUringSlotEntry, io_uring_slot_entry);
	made->thread = (uint32_t)thread->tid;
	made->slot = slot->slot;
	*grow(&entry->slots, &entry->n_slots) = made;
	return 0;
}

int io_uring_note_slots(const struct snapshot *snapshot, const struct io_uring_state *state,
			const struct uring_facts *facts, struct file *ring)
{
	struct uring_slots slots;
	int result = facts->has_slots ? uring_read_slots(state->reader, facts, &slots) : 0;

	if (!facts->has_slots)
		return 0;
	for (size_t i = 0; !result && i < slots.count; i++)
		result = note_slot(snapshot, state, &slots.items[i], ring);
	free(slots.items);
	return result;
}

bool io_uring_knows_slot(const struct snapshot *snapshot, const struct task *task, size_t thread,
			 unsigned slot)
{
	const struct file_list *rings = files_of_kind(snapshot, &file_kind_io_uring);

	for (size_t i = 0; i < rings->count; i++) {
		const IoUringFileEntry *entry = rings->items[i]->entry->uring;

		for (size_t number = 0; number < entry->n_slots; number++)
			if (is_of(entry->slots[number], task, thread) && entry->slots[number]->slot == slot)
				return true;
	}
	return false;
}

/* ---- restore ---- */

int io_uring_check_slots(const struct snapshot *snapshot, const struct file *ring)
{
	const IoUringFileEntry *entry = ring->entry->uring;

	for (size_t i = 0; i < entry->n_slots; i++)
		if (entry->slots[i]->slot >= URING_MOST_SLOTS ||
		    !snapshot_find_thread(snapshot, (pid_t)entry->slots[i]->thread))
			return fail(
				EINVAL,
				"files.img: file %u is an io_uring with an impossible registered descriptor",
				ring->id);
	return 0;
}

int io_uring_check_holder(const struct snapshot *snapshot, const struct task *task, size_t thread)
{
	const struct file_list *rings = files_of_kind(snapshot, &file_kind_io_uring);

	for (size_t i = 0; i < rings->count; i++) {
		const IoUringFileEntry *entry = rings->items[i]->entry ? rings->items[i]->entry->uring : NULL;

		for (size_t slot = 0; entry && slot < entry->n_slots; slot++)
			if (is_of(entry->slots[slot], task, thread) &&
			    task_number_of(task, rings->items[i]) < 0)
				return fail(EINVAL,
					    "it has registered an io_uring that it has no descriptor of: not "
					    "supported yet");
	}
	return 0;
}

void io_uring_plan_slots(const struct snapshot *snapshot, const struct task *task, size_t thread,
			 struct call_list *calls)
{
	const struct file_list *rings = files_of_kind(snapshot, &file_kind_io_uring);

	for (size_t i = 0; i < rings->count; i++) {
		const IoUringFileEntry *entry = rings->items[i]->entry->uring;

		for (size_t number = 0; number < entry->n_slots; number++) {
			const IoUringSlotEntry *slot = entry->slots[number];
			int fd = is_of(slot, task, thread) ? task_number_of(task, rings->items[i]) : -1;
			struct io_uring_rsrc_update update = { .offset = slot->slot, .data = (uint64_t)fd };

			if (fd < 0)
				continue;
			add_call(calls, "register a descriptor of an io_uring", SYS_io_uring_register,
				 (uint64_t)fd, IORING_REGISTER_RING_FDS,
				 calls_bytes(calls, &update, sizeof(update)), 1);
		}
	}
}
