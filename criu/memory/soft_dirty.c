/*
 * soft_dirty.c - tracks memory by the kernel's soft-dirty bits (CONFIG_MEM_SOFT_DIRTY): cleared for a whole process by writing "4"
 * into /proc/PID/clear_refs, set when a page is written, read from /proc/PID/pagemap.
 *
 * There is one bit a page, for whoever clears it: two chains of one process at a time would take it from each other. It is what
 * other criu use, so those can continue our chains.
 *
 * Not to be trusted in mappings of MADV_MERGEABLE: when KSM merges a page that was written with another, the new page table entry
 * is clean (Linux 6.1, mm/ksm.c).
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include "base/io.h"
#include "base/memory.h"
#include "memory/tracker.h"

/* Without page frames (they are for CAP_SYS_ADMIN) clean bits prove nothing. */
static bool resumes(struct tracking *tracking, struct tracked *tracked)
{
	ssize_t place = tracking_find_noted(tracking, tracked->task);
	const TrackedTask *noted = place < 0 ? NULL : tracking->noted->tasks[place];
	struct frames *known = &tracked->known;

	if (!noted || !noted->n_places || noted->n_addresses != noted->n_places)
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

static bool vouches(const struct tracked *tracked unused, const struct vma *vma)
{
	return !(vma->advice >> MADV_MERGEABLE & 1);
}

static int begin(struct tracking *tracking unused, struct tracked *tracked, const char **why)
{
	int result = write_text_at(tracked->task->proc, "clear_refs", "4");

	*why = "its soft-dirty bits cannot be cleared";
	return result < 0 ? result : 0;
}

const struct tracker tracker_soft_dirty = {
	.name = "soft-dirty",
	.number = 1,
	.note = NOTE_SOFT_DIRTY,
	.probe = "mem_dirty_track",
	.resumes = resumes,
	.vouches = vouches,
	.begin = begin,
};
