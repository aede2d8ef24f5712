/*
 * held.c - see held.h.
 *
 * The memory is at its own addresses, as far as these are free in criu, and not those of another process of the images.
 * It is in huge pages where all pages of one exist: fork() copies a page table of 2 GiB in 40 ms, but in 0.1 ms if it is
 * in huge pages (Linux 6.18).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "base/error.h"
#include "base/index.h"
#include "base/memory.h"
#include "memory/huge.h"
#include "memory/saving.h"
#include "restore/held.h"
#include "restore/space.h"

/*
 * Bytes of adjacent mappings: less is read in less than half a millisecond. But each process of the tree copies the
 * mappings and page tables of all that is held, so in a large tree only large parts are held, which are in huge pages.
 */
#define WORTH_HOLDING  (1UL << 20)
#define FEW_PROCESSES  32UL
#define WORTH_FOR_MANY (8UL << 20) /* for each FEW_PROCESSES */

struct held_memory {
	struct stat inventory;
	struct part {
		pid_t pid;
		const struct vma *vma; /* of the holder's own snapshot */
		uint64_t place;
		bool continues; /* the part before it, at the same distance from its own address */
	} * parts;		/* when all is loaded: by pid and address */
	size_t count;
	struct index ids;
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

static bool may_be_held(const struct task *task, const struct vma *vma)
{
	return is_mapped_by_us(vma) && vma_has_own_pages(vma) && vma_how_saved(vma)->regains_huge_pages &&
	       !(vma->flags & (MAP_GROWSDOWN | MAP_LOCKED)) && !vma->key && !vma->is_sealed &&
	       !is_inherited(task, vma);
}

static bool is_continued_by(const struct vma *vma, const struct vma *next)
{
	return vma->end == next->start && !((vma->flags ^ next->flags) & MAP_NORESERVE);
}

/* ---- loading ---- */

/*
 * Adjacent mappings are held as one, so that they become one if the process later gives them the same protection:
 * otherwise the kernel could not join them. Returns the index behind the last one.
 */
static size_t list_run(struct held_memory *held, const struct task *task, size_t first, uint64_t least)
{
	const struct vma *vmas = task->space->vmas.items;
	size_t end = first + 1;

	while (end < task->space->vmas.count && may_be_held(task, &vmas[end]) &&
	       is_continued_by(&vmas[end - 1], &vmas[end]))
		end++;
	if (page_runs_within(&task->newborn->memory.runs, vmas[first].start, vmas[end - 1].end) * PAGE_SIZE <
	    least)
		return end;
	for (size_t i = first; i < end; i++)
		*grow(&held->parts, &held->count) =
			(struct part){ .pid = task->pid, .vma = &vmas[i], .continues = i > first };
	return end;
}

static void list_parts(struct held_memory *held)
{
	struct task *task;
	size_t tasks = 0;
	uint64_t least;

	for_each_task (task, &held->restore.snapshot) {
		tasks++;
		index_set(&held->ids, task->group, held);
		index_set(&held->ids, task->session, held);
		for (size_t i = 0; i < task->thread_count; i++)
			index_set(&held->ids, task->threads[i].tid, held);
	}
	least = tasks <= FEW_PROCESSES ? WORTH_HOLDING : tasks / FEW_PROCESSES * WORTH_FOR_MANY;
	for_each_leader (task, &held->restore.snapshot, OBJECT_MEMORY)
		for (size_t i = 0; task->state != TASK_DEAD && i < task->space->vmas.count;)
			i = may_be_held(task, &task->space->vmas.items[i]) ? list_run(held, task, i, least) :
									     i + 1;
}

/* The parts from the first on that continue it. */
static size_t end_of_run(const struct held_memory *held, size_t first)
{
	size_t end = first + 1;

	while (end < held->count && held->parts[end].continues)
		end++;
	return end;
}

static int map_at(uint64_t place, uint64_t size, bool reserves)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | (reserves ? 0 : MAP_NORESERVE);
	void *mapped = mmap(at(place), size, PROT_READ | PROT_WRITE, flags, -1, 0);

	return mapped == at(place) ? 0 : -errno;
}

/*
 * At its own address, so that it need not be moved. If that is not free here: where no process has a mapping, as far
 * from the border of a huge page.
 */
static int map_run(struct held_memory *held, size_t first, size_t end)
{
	const struct vma *vma = held->parts[first].vma;
	uint64_t size = held->parts[end - 1].vma->end - vma->start, place = vma->start;
	bool reserves = !(vma->flags & MAP_NORESERVE);
	int result = map_at(place, size, reserves);

	if (result == -EEXIST) {
		result = restore_find_room(&held->restore, size + HUGE_BLOCK, &place);
		place = round_up(place, HUGE_BLOCK) + vma->start % HUGE_BLOCK;
		if (result)
			return result;
		result = map_at(place, size, reserves);
	}
	for (size_t i = first; i < end; i++)
		held->parts[i].place = place + (held->parts[i].vma->start - vma->start);
	return result ? fail(-result, "no memory to hold %llu MiB of the images",
			     (unsigned long long)size >> 20) :
			0;
}

/* Fills memory at other addresses than those of the task: through a copy that has only the mappings to be held. */
static int load_task(struct held_memory *held, const struct task *task, size_t *next)
{
	struct address_space space = *task->space;
	struct task copy = *task;
	int result = 0;

	space.vmas = (struct vmas){ 0 };
	copy.space = &space;
	while (!result && *next < held->count && held->parts[*next].pid == task->pid) {
		size_t end = end_of_run(held, *next);

		result = map_run(held, *next, end);
		for (; *next < end; ++*next) {
			struct vma *added = grow(&space.vmas.items, &space.vmas.count);

			*added = *held->parts[*next].vma;
			added->place = held->parts[*next].place;
		}
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
	return one->vma->start < other->vma->start ? -1 : one->vma->start > other->vma->start;
}

static int load_all(struct held_memory *held)
{
	struct task *task;
	size_t next = 0;
	int result = restore_load(&held->restore);

	if (result)
		return result;
	list_parts(held);
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

	restore_init(&held->restore, request);
	if (look_at_inventory(request->images, &held->inventory))
		return fail(0, "%s has no inventory.img", image_store_name(request->images));
	return load_all(held);
}

/* ---- using it ---- */

bool held_memory_needs_id(const struct held_memory *held, pid_t id)
{
	return index_find(&held->ids, id);
}

void held_memory_leave(const struct held_memory *held)
{
	for (size_t i = 0; held && i < held->count; i++)
		munmap(at(held->parts[i].place), vma_length(held->parts[i].vma));
}

bool held_memory_find(const struct held_memory *held, pid_t pid, const struct vma *vma, uint64_t *place)
{
	size_t low = 0, high = held ? held->count : 0;

	/* The first part that is not before the mapping. */
	while (low < high) {
		size_t middle = (low + high) / 2;
		const struct part *part = &held->parts[middle];

		if (part->pid < pid || (part->pid == pid && part->vma->end <= vma->start))
			low = middle + 1;
		else
			high = middle;
	}
	if (!held || low == held->count || held->parts[low].pid != pid ||
	    held->parts[low].vma->start > vma->start || held->parts[low].vma->end < vma->end)
		return false;
	*place = held->parts[low].place + (vma->start - held->parts[low].vma->start);
	return true;
}
