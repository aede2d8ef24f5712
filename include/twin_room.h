/*
 * twin_room.h - memory that criu and a twin share: through it criu orders pages of the twin's memory, and the twin copies
 * them into it.
 *
 * Freestanding: read by criu and by the parasite blob. The room begins with a struct twin_room; buffers follow at
 * TWIN_ROOM_BUFFERS.
 */
#ifndef TWIN_ROOM_H
#define TWIN_ROOM_H

#include <stdint.h>

#define TWIN_ROOM_RUNS	  1024
#define TWIN_ROOM_BUFFERS 0x8000UL

struct twin_room {
	uint32_t ordered; /* a futex: the number of the last order */
	uint32_t done;	  /* a futex: the number of the last order that was carried out */
	uint32_t count;	  /* of runs: whole pages, one behind the other … */
	uint64_t to;	  /* … to be copied here, from the start of the room */
	struct {
		uint64_t start, size;
	} runs[TWIN_ROOM_RUNS];
};
_Static_assert(sizeof(struct twin_room) <= TWIN_ROOM_BUFFERS, "");

#endif
