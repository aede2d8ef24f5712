/*
 * inherit.c - the part of its parent's memory that a newborn keeps.
 *
 * fork() has given it all of the parent's mappings, filled. If one of its own mappings continues one of those (the same
 * kind of memory at the same address), the pages of the two stay shared as far as they are equal (fill.c). A heap or a
 * stack that has grown or shrunk since the fork shares the common part:
 *
 *	parent      |=========|  |====|
 *	child    |---------|     |-------|     its mapping becomes | new | inherited |   | inherited | new |
 *	kept        |======|     |====|        the rest of the parent's is unmapped
 *
 * Sharing gets more expensive with each generation: for each shared mapping the kernel keeps one record (an
 * anon_vma_chain, 64 bytes and some 4 µs, seen on Linux 6.18) for every ancestor. So in a long chain of processes a
 * mapping is created anew after some generations, sooner if it has few pages.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "restore/space.h"

#define FEW_GENERATIONS	 16 /* a mapping is shared for at least this many generations … */
#define GENERATIONS_PAGE 4  /* … and for this many generations for each of its pages */

/* Parts of the parent's mappings, by address, ascending. */
struct kept {
	struct part {
		uint64_t start, end;
	} * items;
	size_t count;
};

bool space_is_continued(const struct vma *theirs, const struct vma *ours)
{
	const struct vma_saving *saving = vma_how_saved(ours);

	return saving->is_inherited && vma_how_saved(theirs) == saving &&
	       !((theirs->flags ^ ours->flags) & (MAP_GROWSDOWN | MAP_NORESERVE | VMA_HUGE_SIZE)) &&
	       (!saving->is_over_file || (theirs->object == ours->object &&
					  theirs->offset - theirs->start == ours->offset - ours->start));
}

/*
 * Adds the part [start, end) of `vma` as a separate mapping; `ancestor`: the parent's mapping that it continues, or
 * NULL.
 */
static void add_part(struct vmas *parts, const struct vma *vma, uint64_t start, uint64_t end,
		     const struct vma *ancestor)
{
	struct vma *part;

	if (start >= end)
		return;
	part = grow(&parts->items, &parts->count);
	*part = *vma;
	part->start = part->place = start;
	part->end = end;
	if (vma_how_saved(vma)->is_over_file)
		part->offset += start - vma->start;
	if (ancestor) {
		part->is_inherited = true;
		part->generation = ancestor->generation + 1;
		part->place = ancestor->place + (start - ancestor->start);
	}
}

static bool is_worth_sharing(const struct task *parent, const struct vma *theirs)
{
	return theirs->generation < FEW_GENERATIONS ||
	       theirs->generation / GENERATIONS_PAGE <
		       page_runs_within(&parent->newborn->memory.runs, theirs->start, theirs->end);
}

/*
 * Splits `vma` where inherited parts begin and end. `*next`: the first of the parent's mappings that does not end
 * before it.
 */
static void cut_mapping(const struct vma *vma, const struct task *parent, size_t *next, struct vmas *parts,
			struct kept *kept)
{
	const struct vmas *theirs = &parent->space->vmas;
	uint64_t cursor = vma->start;

	while (*next < theirs->count && !(theirs->items[*next].status & VMA_GUARD_RANGE) &&
	       theirs->items[*next].end <= vma->start)
		(*next)++;
	for (size_t i = *next; i < theirs->count && theirs->items[i].start < vma->end; i++) {
		const struct vma *other = &theirs->items[i];
		uint64_t start = max(other->start, vma->start), end = min(other->end, vma->end);

		if (other->status & VMA_GUARD_RANGE)
			break; /* they are last */
		if (!space_is_continued(other, vma) || !is_worth_sharing(parent, other))
			continue;
		add_part(parts, vma, cursor, start, NULL);
		add_part(parts, vma, start, end, other);
		*grow(&kept->items, &kept->count) = (struct part){ start, end };
		cursor = end;
	}
	add_part(parts, vma, cursor, vma->end, NULL);
}

static int unmap(const struct vma *theirs, uint64_t start, uint64_t end)
{
	if (start < end && munmap(at(theirs->place + (start - theirs->start)), end - start) < 0)
		return fail(errno, "cannot unmap the inherited memory at %#llx", (unsigned long long)start);
	return 0;
}

static int unmap_rest(const struct vmas *theirs, const struct kept *kept)
{
	size_t next = 0;
	int result = 0;

	for (size_t i = 0; !result && i < theirs->count; i++) {
		const struct vma *other = &theirs->items[i];
		uint64_t cursor = other->start;

		if (!is_mapped_by_us(other))
			continue;
		for (; !result && next < kept->count && kept->items[next].start < other->end; next++) {
			result = unmap(other, cursor, kept->items[next].start);
			cursor = kept->items[next].end;
		}
		result = result ?: unmap(other, cursor, other->end);
	}
	return result;
}

int space_inherit(struct task *task)
{
	const struct task *parent = memory_origin(task);
	const struct vmas *theirs = parent ? &parent->space->vmas : NULL;
	struct vmas parts = { 0 };
	struct kept kept = { 0 };
	size_t next = 0;
	int result;

	if (!theirs)
		return 0;
	for (size_t i = 0; i < task->space->vmas.count; i++) {
		const struct vma *vma = &task->space->vmas.items[i];

		if (is_mapped_by_us(vma) && vma_has_own_pages(vma))
			cut_mapping(vma, parent, &next, &parts, &kept);
		else
			*grow(&parts.items, &parts.count) = *vma;
	}
	free(task->space->vmas.items);
	task->space->vmas = parts;
	result = unmap_rest(theirs, &kept);
	task->newborn->refuge_used = parent->newborn->refuge_used;
	log_debug("process %d inherits %zu mappings or parts of them", task->pid, kept.count);
	free(kept.items);
	return result;
}
