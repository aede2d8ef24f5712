/*
 * memory_room.h - how much more memory processes may use before the kernel has to kill one.
 */
#ifndef CRIU_KERNEL_MEMORY_ROOM_H
#define CRIU_KERNEL_MEMORY_ROOM_H

#include <stdint.h>

/* What was read last. Zeroed: nothing was. */
struct memory_room {
	char *cgroups; /* the text of /proc/PID/cgroup that it is for */
	uint64_t bytes;
};

/*
 * Bytes for processes in the cgroups of /proc/PID (`proc` is its descriptor): of the machine, and below the limits of
 * their cgroups. An estimate: what is not known counts as no limit. Reads nothing new if the cgroups are those of the
 * last call, as most processes of a tree have the same.
 */
uint64_t memory_room_read(struct memory_room *room, int proc);
void memory_room_free(struct memory_room *room);

#endif
