/*
 * held.c - see held.h.
 *
 * The memory is where no process of the images has a mapping, because all of it is moved to its place at once, when the
 * rest of criu's memory is gone. It is in huge pages where all pages of one exist: fork() copies a page table of 2 GiB
 * in 40 ms, but in 0.1 ms if it is in huge pages (Linux 6.18).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "memory/huge.h"
#include "memory/saving.h"
#include "restore/held.h"
#include "restore/space.h"

#define WORTH_HOLDING (1UL << 20) /* bytes of a mapping: less is read in less than half a millisecond */

struct held_memory {
	struct stat inventory;
	struct part {
		pid_t pid;
		uint64_t start, end, place;
	} * parts; /* when all is loaded: by pid and address */
	size_t count;
	struct restore restore; /* its chain stays open: that keeps the images locked */
};

static int look_at_inventory(const struct image_store *images, struct stat *status)
{
	int directory = image_store_directory(images);

	return directory < 0 || fstatat(directory, "inventory.img", status, AT_SYMLINK_NOFOLLOW) < 0 ?
		       -ENOENT :
		       0;
}

bool held_memory_is_of(const struct held_memory *held, const struct image_store *images)
{
	struct stat found;

	return held && !look_at_inventory(images, &found) && found.st_dev == held->inventory.st_dev &&
	       found.st_ino == held->inventory.st_ino && found.st_size == held->inventory.st_size &&
	       found.st_ctim.tv_sec == held->inventory.st_ctim.tv_sec &&
	       found.st_ctim.tv_nsec == held->inventory.st_ctim.tv_nsec;
}

/* ---- which memory ---- */

/* The first mapping that does not end before the address. Guard ranges, which are last, are none. */
static size_t first_behind(const struct vmas *vmas, uint64_t address)
{
	size_t low = 0, high = vmas->count;

	while (low < high) {
		size_t middle = (low + high) / 2;
		const struct vma *vma = &vmas->items[middle];

		if (!(vma->status & VMA_GUARD_RANGE) && vma->end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* A child keeps what its parent has, too (inherit.c), which is shared in any case. */
static bool is_inherited(const struct task *task, const struct vma *vma)
{
	const struct task *parent = task->parent;
	const struct vmas *theirs;

	if (!parent || parent->state == TASK_DEAD)
		return false;
	theirs = &parent->space->vmas;
	for (size_t i = first_behind(theirs, vma->start);
	     i < theirs->count && theirs->items[i].start < vma->end; i++)
		if (space_is_continued(&theirs->items[i], vma))
			return true;
	return false;
}

static bool is_held(const struct task *task, const struct vma *vma)
{
	return is_mapped_by_us(vma) && vma_has_own_pages(vma) && vma_how_saved(vma)->regains_huge_pages &&
	       !(vma->flags & (MAP_GROWSDOWN | MAP_LOCKED)) && !vma->key && !vma->is_sealed &&
	       page_runs_within(&task->newborn->memory.runs, vma->start, vma->end) * PAGE_SIZE >=
		       WORTH_HOLDING &&
	       !is_inherited(task, vma);
}

/* ---- loading ---- */

static void list_parts(struct held_memory *held)
{
	struct task *task;

	for_each_leader (task, &held->restore.snapshot, OBJECT_MEMORY)
		for (size_t i = 0; task->state != TASK_DEAD && i < task->space->vmas.count; i++) {
			struct vma *vma = &task->space->vmas.items[i];

			if (is_held(task, vma))
				*grow(&held->parts, &held->count) = (struct part){ .pid = task->pid,
										   .start = vma->start,
										   .end = vma->end };
		}
}

/* All parts beside each other, each at the same distance from the border of a huge page as at its own address. */
static int find_places(struct held_memory *held)
{
	uint64_t at = 0, start;
	int result;

	for (size_t i = 0; i < held->count; i++) {
		struct part *part = &held->parts[i];

		at = round_up(at, HUGE_BLOCK) + part->start % HUGE_BLOCK;
		part->place = at;
		at += part->end - part->start;
	}
	result = restore_find_room(&held->restore, round_up(at, HUGE_BLOCK), &start);
	for (size_t i = 0; i < held->count; i++)
		held->parts[i].place += start;
	return result;
}

static int map_part(const struct part *part, const struct vma *vma)
{
	uint64_t size = part->end - part->start;

	if (mmap(at(part->place), size, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | (vma->flags & MAP_NORESERVE), -1,
		 0) == at(part->place))
		return 0;
	return fail(errno, "no memory to hold %llu MiB of the images", (unsigned long long)size >> 20);
}

/* Fills memory at other addresses than those of the task: through a copy that has only the mappings to be held. */
static int load_task(struct held_memory *held, const struct task *task, size_t *next)
{
	struct address_space space = *task->space;
	struct task copy = *task;
	int result = 0;

	space.vmas = (struct vmas){ 0 };
	copy.space = &space;
	for (size_t i = 0; !result && i < task->space->vmas.count; i++) {
		const struct vma *vma = &task->space->vmas.items[i];
		const struct part *part = &held->parts[*next];
		struct vma *added;

		if (*next == held->count || part->pid != task->pid || part->start != vma->start)
			continue;
		added = grow(&space.vmas.items, &space.vmas.count);
		*added = *vma;
		added->place = part->place;
		result = map_part(part, vma);
		++*next;
	}
	if (!result && space.vmas.count)
		result = space_make_huge(&held->restore, &copy) ?: space_fill_new(&held->restore, &copy);
	free(space.vmas.items);
	return result;
}

static int compare_parts(const void *left, const void *right)
{
	const struct part *one = left, *other = right;

	if (one->pid != other->pid)
		return one->pid < other->pid ? -1 : 1;
	return one->start < other->start ? -1 : one->start > other->start;
}

static int load_all(struct held_memory *held)
{
	struct task *task;
	size_t next = 0;
	int result = restore_load(&held->restore);

	if (result)
		return result;
	list_parts(held);
	result = held->count ? find_places(held) : 0;
	for_each_leader (task, &held->restore.snapshot, OBJECT_MEMORY)
		if (!result && task->state != TASK_DEAD)
			result = load_task(held, task, &next);
	page_chain_rest(held->restore.chain);
	qsort(held->parts, held->count, sizeof(*held->parts), compare_parts);
	return result;
}

int held_memory_load(struct held_memory **loaded, const struct request *request)
{
	struct held_memory *held = *loaded = allocate(sizeof(*held));

	held->restore = (struct restore){ .request = request, .wait = { -1, -1, -1, -1 }, .root = -1 };
	snapshot_init(&held->restore.snapshot);
	held->restore.snapshot.images = request->images;
	if (look_at_inventory(request->images, &held->inventory))
		return fail(0, "%s has no inventory.img", image_store_name(request->images));
	return load_all(held);
}

/* ---- finding ---- */

bool held_memory_find(const struct held_memory *held, pid_t pid, const struct vma *vma, uint64_t *place)
{
	size_t low = 0, high = held ? held->count : 0;

	/* The first part that is not before the mapping. */
	while (low < high) {
		size_t middle = (low + high) / 2;
		const struct part *part = &held->parts[middle];

		if (part->pid < pid || (part->pid == pid && part->end <= vma->start))
			low = middle + 1;
		else
			high = middle;
	}
	if (!held || low == held->count || held->parts[low].pid != pid ||
	    held->parts[low].start > vma->start || held->parts[low].end < vma->end)
		return false;
	*place = held->parts[low].place + (vma->start - held->parts[low].start);
	return true;
}
