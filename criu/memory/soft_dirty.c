/*
 * soft_dirty.c - tracks memory by the kernel's soft-dirty bits (CONFIG_MEM_SOFT_DIRTY): they are cleared for a whole
 * process by writing "4" into /proc/PID/clear_refs, set when a page is written, and read from /proc/PID/pagemap.
 *
 * There is only one bit for each page. If another program clears the bits (another chain of snapshots, another criu),
 * pages that were written before are clean, too. So right after the bits were cleared, some pages are written with
 * their own content: the witnesses. If one of them is clean, the bits are useless. Witnesses are chosen at random,
 * because two chains should not have the same, and first in mappings that the task does not write to.
 *
 * Not to be trusted in mappings of MADV_MERGEABLE: when KSM merges a page that was written with another, the new page
 * table entry is clean (Linux 6.1, mm/ksm.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>
#include "base/io.h"
#include "base/memory.h"
#include "memory/delta.h"

#define MOST_WITNESSES 16

/* True if no witness is known to be clean. Witnesses that no longer exist prove nothing. */
static bool is_undisturbed(struct task_delta *delta, const TrackedTask *noted)
{
	for (size_t i = 0; i < noted->n_witnesses; i++)
		if (scan_is_clean(delta->scanner, noted->witnesses[i]))
			return false;
	return noted->n_witnesses;
}

/* Without page frames (they are for CAP_SYS_ADMIN) clean bits prove nothing. */
static bool soft_dirty_resumes(struct increment *increment, struct task_delta *delta)
{
	ssize_t place = increment_find_noted(increment, delta->task);
	const TrackedTask *noted = place < 0 ? NULL : increment->parent_notes->tasks[place];
	struct frames *known = &delta->known;

	if (!noted || !noted->n_places || noted->n_addresses != noted->n_places ||
	    !is_undisturbed(delta, noted))
		return false;
	known->items = allocate_array(noted->n_places, sizeof(*known->items));
	known->count = noted->n_places;
	for (size_t i = 0; i < known->count; i++) {
		known->items[i] = (struct frame){ noted->addresses[i], noted->places[i] };
		if (i && known->items[i].address <= known->items[i - 1].address)
			return false;
	}
	return true;
}

static bool soft_dirty_vouches(const struct task_delta *delta unused, const struct vma *vma)
{
	return !(vma->advice >> MADV_MERGEABLE & 1);
}

static bool is_writable(const struct task_delta *delta, uint64_t address)
{
	const struct vmas *vmas = &delta->task->vmas;

	for (size_t i = 0; i < vmas->count; i++)
		if (vmas->items[i].start <= address && address < vmas->items[i].end)
			return vmas->items[i].protection & PROT_WRITE;
	return true;
}

/* Chooses half of the possible ones at random. */
static void choose_witnesses(struct task_delta *delta, bool writable)
{
	for (size_t i = 0; i < delta->noted.count && delta->witness_count < MOST_WITNESSES; i++) {
		uint64_t address = delta->noted.items[i].address;
		uint8_t lot;

		if (is_writable(delta, address) == writable && getrandom(&lot, 1, 0) == 1 && lot & 1)
			*grow(&delta->witnesses, &delta->witness_count) = address;
	}
}

/* /proc/PID/mem also writes to read-only mappings. */
static int write_witnesses(const struct task_delta *delta)
{
	autoclose int memory = openat(delta->task->proc, "mem", O_RDWR | O_CLOEXEC);
	char byte;

	for (size_t i = 0; i < delta->witness_count; i++)
		if (pread(memory, &byte, 1, delta->witnesses[i]) != 1 ||
		    pwrite(memory, &byte, 1, delta->witnesses[i]) != 1)
			return -errno;
	return 0;
}

static int soft_dirty_begin(struct increment *increment unused, struct task_delta *delta, const char **why)
{
	int result = write_text_at(delta->task->proc, "clear_refs", "4");

	*why = "its soft-dirty bits cannot be cleared";
	if (result < 0)
		return result;
	choose_witnesses(delta, false);
	choose_witnesses(delta, true);
	*why = "its memory cannot be written";
	return write_witnesses(delta);
}

const struct tracker tracker_soft_dirty = {
	.name = "soft-dirty",
	.number = 1,
	.note = NOTE_SOFT_DIRTY,
	.probe = "soft-dirty",
	.resumes = soft_dirty_resumes,
	.vouches = soft_dirty_vouches,
	.begin = soft_dirty_begin,
};
