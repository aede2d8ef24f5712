/*
 * smaps.c - parses /proc/PID/smaps: the mappings of a process, and the flags that only its VmFlags line shows. See
 * proc.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "base/proc_text.h"
#include "kernel/proc.h"

static int parse_mapping(const char *line, struct vma *vma)
{
	struct map_line map;

	if (!map_line_parse(line, &map))
		return fail(EINVAL, "cannot understand /proc/PID/smaps: %.80s", line);
	vma->start = map.start;
	vma->end = map.end;
	vma->offset = map.offset;
	vma->device = map.device;
	vma->inode = map.inode;
	vma->protection = (map.access[0] == 'r' ? PROT_READ : 0) | (map.access[1] == 'w' ? PROT_WRITE : 0) |
			  (map.access[2] == 'x' ? PROT_EXEC : 0);
	vma->flags = map.access[3] == 's' ? MAP_SHARED : MAP_PRIVATE;
	vma->path = copy_text(map.name);
	vma->file_flags = -1;
	return 0;
}

/*
 * Two letters for each flag (proc(5)). Flags that change how the memory behaves are kept; flags that the kernel derives
 * (rd, wr, mr, mw, me, ac, …) are not.
 */
static const struct {
	char letters[3];
	uint32_t map_flags;
	int advice; /* madvise() number, -1 */
	uint32_t status;
} vm_flags[] = {
	{ "gd", MAP_GROWSDOWN, -1, 0 },	   { "lo", MAP_LOCKED, -1, 0 },	    { "nr", MAP_NORESERVE, -1, 0 },
	{ "ht", MAP_HUGETLB, -1, 0 },	   { "sr", 0, MADV_SEQUENTIAL, 0 }, { "rr", 0, MADV_RANDOM, 0 },
	{ "dc", 0, MADV_DONTFORK, 0 },	   { "dd", 0, MADV_DONTDUMP, 0 },   { "mg", 0, MADV_MERGEABLE, 0 },
	{ "hg", 0, MADV_HUGEPAGE, 0 },	   { "nh", 0, MADV_NOHUGEPAGE, 0 }, { "wf", 0, MADV_WIPEONFORK, 0 },
	{ "ss", 0, -1, VMA_SHADOW_STACK },
};

/*
 * Flags of memory that criu cannot restore, and that nothing else shows. Write protection ("uw") is not here: criu's
 * own tracker may have set it.
 */
static const struct {
	char letters[3];
	const char *what;
} unknown_flags[] = {
	{ "um", "memory whose missing pages another process provides (userfaultfd)" },
	{ "ui", "memory whose pages another process maps (userfaultfd)" },
	{ "sf", "a file in persistent memory that is mapped with MAP_SYNC" },
	{ "mt", "memory with tags (PROT_MTE)" },
};

static void parse_vm_flags(const char *text, struct vma *vma)
{
	for (; text[0] && text[1]; text += 3) {
		if (text[0] == 'm' && text[1] == 'w')
			vma->may_write = true;
		if (text[0] == 'd' && text[1] == 'p')
			vma->flags = (vma->flags & ~MAP_PRIVATE) | MAP_DROPPABLE;
		if (text[0] == 'l' && text[1] == 'f')
			vma->locks_on_fault = true;
		if (text[0] == 's' && text[1] == 'l')
			vma->is_sealed = true;
		for (size_t i = 0; i < array_size(unknown_flags); i++)
			if (text[0] == unknown_flags[i].letters[0] && text[1] == unknown_flags[i].letters[1])
				vma->unknown = unknown_flags[i].what;
		for (size_t i = 0; i < array_size(vm_flags); i++)
			if (text[0] == vm_flags[i].letters[0] && text[1] == vm_flags[i].letters[1]) {
				vma->flags |= vm_flags[i].map_flags;
				vma->status |= vm_flags[i].status;
				if (vm_flags[i].advice >= 0)
					vma->advice |= 1ULL << vm_flags[i].advice;
			}
		if (!text[2])
			break;
	}
	if (!(vma->flags & MAP_HUGETLB))
		vma->flags &= ~VMA_HUGE_SIZE;
}

/* "KernelPageSize: 2048 kB": it precedes VmFlags, which tells whether it matters. */
static void parse_page_size(const char *text, struct vma *vma)
{
	uint64_t size = strtoull(text, NULL, 10) << 10;

	if (size)
		vma->flags |= (uint32_t)__builtin_ctzll(size) << VMA_HUGE_SHIFT;
}

/* The values are in kB, except the protection key and the flags. */
static void set_resident(const char *text, struct vma *vma)
{
	vma->resident = strtoull(text, NULL, 10) << 10;
}

/* Rss leaves them out. */
static void add_huge(const char *text, struct vma *vma)
{
	vma->resident += strtoull(text, NULL, 10) << 10;
}

static void set_swapped(const char *text, struct vma *vma)
{
	vma->has_swapped = strtoull(text, NULL, 10) > 0;
}

static void set_key(const char *text, struct vma *vma)
{
	vma->key = strtoul(text, NULL, 10);
}

static void set_huge_pages(const char *text, struct vma *vma)
{
	vma->has_huge_pages |= strtoull(text, NULL, 10) > 0;
}

static void set_relatives(const char *text, struct vma *vma)
{
	vma->has_relatives |= strtoull(text, NULL, 10) > 0;
}

/* Lines of smaps, in its order. */
static const struct {
	const char *name;
	void (*parse)(const char *value, struct vma *vma);
} lines[] = {
	{ "KernelPageSize", parse_page_size },
	{ "Rss", set_resident },
	{ "Shared_Clean", set_relatives },
	{ "Shared_Dirty", set_relatives },
	{ "AnonHugePages", set_huge_pages },
	{ "ShmemPmdMapped", set_huge_pages },
	{ "Shared_Hugetlb", set_relatives },
	{ "Private_Hugetlb", add_huge },
	{ "Swap", set_swapped },
	{ "ProtectionKey", set_key },
	{ "VmFlags", parse_vm_flags },
};

/*
 * A mapping has 25 such lines, and a process may have many thousands of mappings. The lines come in the order of the
 * table, so the search begins behind the row that was found last. Most lines that are not in the table differ from all
 * rows in the first byte.
 */
static void parse_line(const char *line, const char *end, struct vma *vma, size_t *next)
{
	const char *colon = memchr(line, ':', end - line);
	size_t length = colon ? colon - line : 0;

	for (size_t i = 0; colon && i < array_size(lines); i++) {
		size_t row = (*next + i) % array_size(lines);

		if (lines[row].name[0] != line[0] || strncmp(lines[row].name, line, length) ||
		    lines[row].name[length])
			continue;
		lines[row].parse(colon + 1 + strspn(colon + 1, " "), vma);
		*next = row + 1;
		return;
	}
}

int proc_parse_smaps(char *text, struct vmas *vmas)
{
	struct vma *vma = NULL;
	size_t row = 0;

	for (char *line = text, *end; *line; line = end) {
		char *next = strchrnul(line, '\n');

		end = *next ? next + 1 : next;
		*next = '\0';
		if ((*line >= '0' && *line <= '9') || (*line >= 'a' && *line <= 'f')) {
			vma = grow(&vmas->items, &vmas->count);
			if (parse_mapping(line, vma))
				return -EINVAL;
		} else if (vma) {
			parse_line(line, next, vma, &row);
		}
	}
	return 0;
}

static int read_file(int proc, const char *name, struct vmas *vmas)
{
	autofree char *text = NULL;
	ssize_t length = read_text_at(proc, name, &text);

	if (length < 0)
		return fail(-length, "cannot read /proc/PID/%s", name);
	return proc_parse_smaps(text, vmas);
}

int proc_read_smaps(int proc, struct vmas *vmas)
{
	return read_file(proc, "smaps", vmas);
}

int proc_read_maps(int proc, struct vmas *vmas)
{
	return read_file(proc, "maps", vmas);
}

int proc_read_open_maps(int maps, struct vmas *vmas)
{
	autofree char *text = NULL;
	ssize_t length = read_text_from(maps, &text);

	return length < 0 ? fail(-length, "cannot read /proc/PID/maps") : proc_parse_smaps(text, vmas);
}

static bool is_same_in_maps(const struct vma *a, const struct vma *b)
{
	return a->start == b->start && a->end == b->end && a->offset == b->offset &&
	       a->protection == b->protection && (a->flags & MAP_SHARED) == (b->flags & MAP_SHARED) &&
	       a->device == b->device && a->inode == b->inode && !strcmp(a->path, b->path);
}

bool vmas_are_same_in_maps(const struct vmas *a, const struct vmas *b)
{
	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++)
		if (!is_same_in_maps(&a->items[i], &b->items[i]))
			return false;
	return true;
}

void vmas_free(struct vmas *vmas)
{
	for (size_t i = 0; i < vmas->count; i++)
		free(vmas->items[i].path);
	free(vmas->items);
	vmas->items = NULL;
	vmas->count = 0;
}

struct vma *vmas_find(const struct vmas *vmas, uint64_t address)
{
	size_t before = 0, behind = vmas->count;

	while (before < behind) {
		size_t middle = before + (behind - before) / 2;
		const struct vma *vma = &vmas->items[middle];

		if (vma->status & VMA_GUARD_RANGE || vma->start > address)
			behind = middle;
		else
			before = middle + 1;
	}
	return before && address < vmas->items[before - 1].end ? &vmas->items[before - 1] : NULL;
}
