/*
 * mapping_limit.h - compares the number of mappings that a newborn has at once with the kernel's limit
 * (vm.max_map_count).
 */
#ifndef CRIU_MEMORY_MAPPING_LIMIT_H
#define CRIU_MEMORY_MAPPING_LIMIT_H

#include "model/snapshot.h"

struct mapping_limit {
	size_t ours; /* of criu itself, with which every newborn begins */
	size_t most; /* SIZE_MAX: unknown */
};

/* The same for all tasks. */
void mapping_limit_read(struct mapping_limit *limit);
size_t mapping_limit_needed(const struct mapping_limit *limit, const struct task *task);
/* NULL, or a sentence why it cannot be restored here. */
char *mapping_limit_exceeded(const struct mapping_limit *limit, const struct task *task);

#endif
