/*
 * mapping_room.h - how many mappings a newborn has at once, compared with what the kernel gives (vm.max_map_count).
 */
#ifndef CRIU_MEMORY_MAPPING_ROOM_H
#define CRIU_MEMORY_MAPPING_ROOM_H

#include "model/snapshot.h"

struct mapping_room {
	size_t ours; /* of criu itself, which every newborn begins with */
	size_t most; /* SIZE_MAX: unknown */
};

/* The same for all tasks. */
void mapping_room_measure(struct mapping_room *room);
size_t mappings_needed(const struct mapping_room *room, const struct task *task);
/* NULL, or a sentence that says why it cannot be restored here. */
char *mappings_lack_room(const struct mapping_room *room, const struct task *task);

#endif
