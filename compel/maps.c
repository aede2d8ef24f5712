/*
 * maps.c - the mappings of a victim, as far as an infection needs them: code, stacks, and holes.
 *
 * Reads /proc/PID/maps, while the victim is frozen.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "base/proc_text.h"
#include "internal.h"

#define LOWEST_HOLE 0x10000000UL /* well above mmap_min_addr and what programs place by hand */

static bool parse_map(const char *text, struct map *map)
{
	struct map_line line;

	if (!map_line_parse(text, &line))
		return false;
	*map = (struct map){
		.start = line.start,
		.end = line.end,
		.offset = line.offset,
		.inode = line.inode,
		.device = line.device,
		.readable = line.access[0] == 'r',
		.writable = line.access[1] == 'w',
		.executable = line.access[2] == 'x',
		.is_private = line.access[3] == 'p',
		.is_stack = !strncmp(line.name, "[stack]", 7),
		.is_special = !strncmp(line.name, "[vsyscall]", 10) || !strncmp(line.name, "[vvar", 5),
	};
	return true;
}

int maps_read(struct maps *maps, pid_t pid)
{
	autofree char *path = format_text("/proc/%d/maps", pid), *text = NULL;
	ssize_t size = read_text_at(AT_FDCWD, path, &text);
	char *next;

	*maps = (struct maps){};
	if (size < 0)
		return fail((int)-size, "cannot read /proc/%d/maps", pid);
	for (char *line = text; *line; line = next) {
		next = line + strcspn(line, "\n");
		if (*next)
			*next++ = '\0';
		if (!parse_map(line, grow(&maps->maps, &maps->count)))
			return fail(EINVAL, "/proc/%d/maps: cannot understand '%s'", pid, line);
	}
	return 0;
}

void maps_free(struct maps *maps)
{
	free(maps->maps);
	*maps = (struct maps){};
}

const struct map *maps_find(const struct maps *maps, uint64_t address)
{
	for (size_t index = 0; index < maps->count; index++) {
		if (address >= maps->maps[index].start && address < maps->maps[index].end)
			return &maps->maps[index];
	}
	return NULL;
}

/* The middle of the largest hole: no mapping can merge with the region there, or grow into it. */
uint64_t maps_find_hole(const struct maps *maps, uint64_t size)
{
	uint64_t best = 0, best_size = 0, end = LOWEST_HOLE, last = arch_task_size();

	for (size_t index = 0; index <= maps->count; index++) {
		uint64_t start = index < maps->count ? min(maps->maps[index].start, last) : last;

		if (start > end && start - end > best_size) {
			best_size = start - end;
			best = end;
		}
		if (index < maps->count)
			end = max(end, maps->maps[index].end);
	}
	if (best_size < size + 64 * PAGE_SIZE)
		return 0;
	return round_down(best + (best_size - size) / 2, best_size > 64UL << 20 ? 2UL << 20 : PAGE_SIZE);
}
