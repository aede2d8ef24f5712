/*
 * memory.c - operations of a script that create, remove and change mappings.
 *
 * Some fail, because the mappings at that place do not allow them; that is fine. If the success of a call could
 * depend on whether the kernel has joined two mappings, the operation works on each mapping separately.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "script.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE  103
#endif

#define TABLE (2 * MIB)

struct range {
	uint64_t start, end;
};

static struct range range_at(uint64_t page, uint64_t pages)
{
	if (page + pages > ARENA_PAGES)
		pages = ARENA_PAGES - page;
	return (struct range){ ARENA + page * PAGE, ARENA + (page + pages) * PAGE };
}

/* Mostly in the crowded part; now and then exactly the place of a mapping that is or was there. */
static struct range any_place(void)
{
	uint64_t page = percent(85) ? below(CROWDED_PAGES) : below(ARENA_PAGES), pages = 1 + below(32);

	if (percent(40)) {
		page &= ~31UL;
		pages = 32;
	}
	return range_at(page, pages);
}

static struct range any_table(void)
{
	return range_at((1 + below(3)) * (TABLE / PAGE), TABLE / PAGE);
}

static struct range part_of(const struct area *area)
{
	uint64_t count = (area->end - area->start) / PAGE, first = percent(30) ? 0 : below(count);
	uint64_t length = percent(20) ? count - first : 1 + below(count - first < 24 ? count - first : 24);

	return (struct range){ area->start + first * PAGE, area->start + (first + length) * PAGE };
}

static uint8_t *lazy_marks(uint64_t address)
{
	return &own->is_lazy[(address - ARENA) / PAGE];
}

static void forget_lazy(struct range range)
{
	memset(lazy_marks(range.start), false, (range.end - range.start) / PAGE);
}

static void map(struct range range, int protection, int flags, int fd, uint64_t offset)
{
	void *result;

	note_range(range.start, range.end);
	result = mmap((void *)range.start, range.end - range.start, protection, flags | MAP_FIXED, fd,
		      offset);
	if (result == MAP_FAILED)
		script_trouble("mmap");
	forget_lazy(range);
	if (percent(80))
		write_some(range.start, range.end);
}

static void map_anonymous(void)
{
	map(any_place(), PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | (percent(20) ? MAP_NORESERVE : 0), -1, 0);
}

static void map_shared(void)
{
	map(any_place(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static void map_table(void)
{
	map(any_table(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void map_file(void)
{
	struct range range = any_place();
	uint64_t pages = (range.end - range.start) / PAGE;
	int fd = open(file_path, O_RDONLY | O_CLOEXEC);

	map(range, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, below(FILE_PAGES - pages + 1) * PAGE);
	close(fd);
}

/* Writes content, then makes it inaccessible. */
static void map_hidden(void)
{
	struct range range = any_place();

	map(range, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mprotect((void *)range.start, range.end - range.start, PROT_NONE);
}

/* 256 MiB with a few pages in it: creates, writes or unmaps them. */
static void use_far(void)
{
	if (percent(25)) {
		note_range(FAR, FAR + FAR_SIZE);
		munmap((void *)FAR, FAR_SIZE);
		return;
	}
	if (percent(25))
		mmap((void *)FAR, FAR_SIZE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	write_bytes(FAR + below(FAR_SIZE / PAGE) * PAGE, 1 + below(PAGE), own->random | 1);
	write_bytes(FAR + below(4) * PAGE, 64, own->random | 1);
}

/* A mapping that grows when the page below it is written. */
static void use_growing(void)
{
	static struct areas areas;
	const struct area *area;

	if (areas_read(0, &areas))
		script_trouble("maps");
	areas_join(&areas);
	area = areas_find(&areas, GROWING_TOP - 1);
	if (!area) {
		mmap((void *)(GROWING_TOP - 2 * PAGE), 2 * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0);
		write_bytes(GROWING_TOP - PAGE, 100, own->random | 1);
	} else if (percent(10) || area->end - area->start > 32 * PAGE) {
		munmap((void *)area->start, area->end - area->start);
	} else {
		write_bytes(area->start - (1 + below(3)) * PAGE, 1 + below(PAGE), own->random | 1);
	}
}

static void unmap(void)
{
	const struct area *area = pick(is_any);
	struct range range;

	if (!area)
		return;
	range = part_of(area);
	note_range(range.start, range.end);
	munmap((void *)range.start, range.end - range.start);
	forget_lazy(range);
}

/* Moves the part of one mapping. If that fails, the target is empty or unchanged, depending on how far it came. */
static void move_part(struct range from, uint64_t to, int flags)
{
	uint64_t length = from.end - from.start;
	uint8_t marks[ARENA_PAGES];
	void *result = mremap((void *)from.start, length, length, MREMAP_MAYMOVE | MREMAP_FIXED | flags, to);

	if (result == MAP_FAILED && flags)
		result = mremap((void *)from.start, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	if (result == MAP_FAILED)
		script_trouble("mremap");
	memcpy(marks, lazy_marks(from.start), length / PAGE);
	forget_lazy(from);
	memcpy(lazy_marks(to), marks, length / PAGE);
}

static void move_range(struct range from, uint64_t to, int flags)
{
	static struct areas areas;

	note_range(from.start, from.end);
	note_range(to, to + (from.end - from.start));
	if (areas_read(0, &areas))
		script_trouble("maps");
	for (size_t i = 0; i < areas.count; i++) {
		const struct area *area = &areas.items[i];
		struct range part = { area->start > from.start ? area->start : from.start,
				      area->end < from.end ? area->end : from.end };

		if (part.start < part.end)
			move_part(part, to + (part.start - from.start), flags);
	}
}

static void move(void)
{
	const struct area *area = pick(is_any);
	struct range from, to = any_place();

	if (!area)
		return;
	from = part_of(area);
	to.end = to.start + (from.end - from.start);
	if ((to.start < from.end && from.start < to.end) || to.end > ARENA + ARENA_PAGES * PAGE)
		return;
	move_range(from, to.start, percent(15) ? MREMAP_DONTUNMAP : 0);
}

/* Moves whole page tables. */
static void move_table(void)
{
	struct range from = any_table(), to = any_table();

	if (from.start != to.start)
		move_range(from, to.start, 0);
}

/* The kernel looks only at the mapping that ends there, so its length does not matter. */
static void lengthen(void)
{
	const struct area *area = pick(is_any);
	uint64_t last, pages = 2 + below(12);

	if (!area)
		return;
	last = area->end - PAGE;
	note_range(last, last + pages * PAGE);
	if (last + pages * PAGE <= ARENA + ARENA_PAGES * PAGE)
		mremap((void *)last, PAGE, pages * PAGE, 0);
}

static void shorten(void)
{
	const struct area *area = pick(is_any);
	uint64_t pages = 2 + below(4);

	if (!area || area->end - area->start < pages * PAGE)
		return;
	note_range(area->end - pages * PAGE, area->end);
	mremap((void *)(area->end - pages * PAGE), pages * PAGE, PAGE, 0);
	forget_lazy((struct range){ area->end - (pages - 1) * PAGE, area->end });
}

/* An old length of 0 maps the same shared memory a second time. */
static void double_shared(void)
{
	const struct area *area = pick(is_shared);
	struct range to = any_place();
	uint64_t length;

	if (!area || (to.start < area->end && area->start < to.end))
		return;
	length = to.end - to.start < area->end - area->start ? to.end - to.start : area->end - area->start;
	note_range(to.start, to.start + length);
	mremap((void *)area->start, 0, length, MREMAP_MAYMOVE | MREMAP_FIXED, to.start);
	forget_lazy((struct range){ to.start, to.start + length });
}

static void protect(void)
{
	static const int protections[] = { PROT_NONE,
					   PROT_READ,
					   PROT_READ | PROT_EXEC,
					   PROT_READ | PROT_WRITE,
					   PROT_READ | PROT_WRITE,
					   PROT_READ | PROT_WRITE };
	const struct area *area = pick(is_any);
	struct range range;

	if (!area)
		return;
	range = part_of(area);
	note_range(range.start, range.end);
	mprotect((void *)range.start, range.end - range.start, protections[below(6)]);
}

static void advise(void)
{
	static const int pieces[] = {
		MADV_DONTNEED,	 MADV_DONTNEED,	   MADV_DONTNEED,      MADV_DONTNEED,	   MADV_REMOVE,
		MADV_WIPEONFORK, MADV_KEEPONFORK,  MADV_DONTFORK,      MADV_DOFORK,	   MADV_NOHUGEPAGE,
		MADV_PAGEOUT,	 MADV_COLD,	   MADV_GUARD_INSTALL, MADV_GUARD_REMOVE,  MADV_GUARD_REMOVE,
		MADV_MERGEABLE,	 MADV_UNMERGEABLE, MADV_POPULATE_READ, MADV_POPULATE_WRITE
	};
	int advice = pieces[below(sizeof(pieces) / sizeof(*pieces))];
	const struct area *area = pick(is_any);
	struct range range;

	if (!area)
		return;
	range = part_of(area);
	note_range(range.start, range.end);
	if (!madvise((void *)range.start, range.end - range.start, advice) && advice == MADV_DONTNEED)
		forget_lazy(range);
}

static void free_lazily(void)
{
	const struct area *area = pick(is_anonymous);
	struct range range;

	if (!area)
		return;
	range = part_of(area);
	note_range(range.start, range.end);
	memset(lazy_marks(range.start), true, (range.end - range.start) / PAGE);
	madvise((void *)range.start, range.end - range.start, MADV_FREE);
	if (percent(50))
		write_some(range.start, range.end);
}

static void use_huge_pages(void)
{
	struct range range = any_table();

	if (percent(40))
		map(range, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	note_range(range.start, range.end);
	madvise((void *)range.start, TABLE, percent(30) ? MADV_COLLAPSE : MADV_HUGEPAGE);
	if (percent(60))
		write_bytes(range.start + below(TABLE / PAGE) * PAGE, 1 + below(PAGE), own->random | 1);
}

static void lock(void)
{
	const struct area *area = pick(is_any);
	struct range range;

	if (!area)
		return;
	range = part_of(area);
	note_range(range.start, range.end);
	if (percent(60))
		mlock((void *)range.start, range.end - range.start);
	else
		munlock((void *)range.start, range.end - range.start);
}

static void move_heap_end(void)
{
	uint64_t end = own->heap_start + below(24) * PAGE;

	if (brk((void *)end))
		script_trouble("brk");
	note_range(own->heap_start, end);
	if (end > own->heap_start)
		write_some(own->heap_start, end);
}

const struct operation memory_operations[] = {
	{ "mmap, anonymous", 14, map_anonymous },
	{ "mmap, shared", 5, map_shared },
	{ "mmap, 2 MiB", 3, map_table },
	{ "mmap, file", 6, map_file },
	{ "mmap, then PROT_NONE", 3, map_hidden },
	{ "256 MiB with few pages", 3, use_far },
	{ "MAP_GROWSDOWN", 3, use_growing },
	{ "munmap", 8, unmap },
	{ "mremap, move", 10, move },
	{ "mremap, 2 MiB", 3, move_table },
	{ "mremap, longer", 4, lengthen },
	{ "mremap, shorter", 3, shorten },
	{ "mremap, doubled", 2, double_shared },
	{ "mprotect", 6, protect },
	{ "madvise", 16, advise },
	{ "MADV_FREE", 4, free_lazily },
	{ "huge pages", 3, use_huge_pages },
	{ "mlock", 2, lock },
	{ "brk", 4, move_heap_end },
	{ 0 },
};
