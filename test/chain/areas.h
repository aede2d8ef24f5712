/*
 * areas.h - the mappings of a process, from /proc/PID/maps. It allocates no memory, because the script uses it, too.
 */
#ifndef TEST_CHAIN_AREAS_H
#define TEST_CHAIN_AREAS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AREAS_MAX 512

struct area {
	uint64_t start, end, offset, inode;
	int protection;
	bool is_shared;
	char path[120];
};

struct areas {
	size_t count;
	struct area items[AREAS_MAX];
};

int areas_read(int pid, struct areas *areas); /* pid 0: the caller itself. Returns -errno */

/* Joins neighbours without a difference. Whether the kernel has joined them depends on their history. */
void areas_join(struct areas *areas);

const struct area *areas_find(const struct areas *areas, uint64_t address);

#endif
