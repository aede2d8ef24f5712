/*
 * memory_room.h - how much more memory processes may use before the kernel has to kill one.
 */
#ifndef CRIU_KERNEL_MEMORY_ROOM_H
#define CRIU_KERNEL_MEMORY_ROOM_H

#include <stdint.h>

/*
 * Bytes for processes in the cgroups of /proc/PID (`proc` is its descriptor): of the machine, and below the limits of
 * their cgroups. An estimate: what is not known counts as no limit.
 */
uint64_t memory_room(int proc);

#endif
