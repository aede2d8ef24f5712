/*
 * mapping_limit.c - a newborn creates the task's mappings while those of criu and of the restorer still exist. So a
 * task that has nearly as many as the kernel allows can be dumped, but not restored.
 */
#include "memory/mapping_limit.h"
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/io.h"
#include "base/memory.h"
#include "memory/saving.h"

/*
 * The restorer's three, threads that read pages, the parked vdso, and parts of inherited mappings that are not merged
 * again.
 */
#define PASSING 24

static size_t count_ours(void)
{
	autofree char *maps = NULL;
	size_t count = 0;

	if (read_text_at(AT_FDCWD, "/proc/self/maps", &maps) < 0)
		return 0;
	for (const char *line = maps; (line = strchr(line, '\n')); line++)
		count++;
	return count;
}

static size_t count_theirs(const struct task *task)
{
	size_t count = 0;

	for (size_t i = 0; i < task->space->vmas.count; i++) {
		enum vma_maker maker = vma_how_saved(&task->space->vmas.items[i])->maker;

		count += maker == MADE_BY_RESTORE || maker == MADE_BY_KERNEL;
	}
	return count;
}

void mapping_limit_read(struct mapping_limit *limit)
{
	autofree char *text = NULL;

	limit->ours = count_ours();
	limit->most = read_text_at(AT_FDCWD, "/proc/sys/vm/max_map_count", &text) < 0 ?
			      SIZE_MAX :
			      strtoull(text, NULL, 10);
}

size_t mapping_limit_needed(const struct mapping_limit *limit, const struct task *task)
{
	return count_theirs(task) + limit->ours + PASSING;
}

char *mapping_limit_exceeded(const struct mapping_limit *limit, const struct task *task)
{
	size_t needed = mapping_limit_needed(limit, task);

	if (needed <= limit->most)
		return NULL;
	return format_text(
		"process %d (%s) has %zu mappings: while it is restored there are %zu, and this kernel allows a process "
		"only %zu (vm.max_map_count)",
		task_shown_id(task), task->name, count_theirs(task), needed, limit->most);
}
