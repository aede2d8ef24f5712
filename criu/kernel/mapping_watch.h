/*
 * mapping_watch.h - has a running process made system calls that may change its mappings, or flags of them?
 *
 * The kernel counts them (perf, at the tracepoint raw_syscalls:sys_exit), in all threads of the process and in all that they bear.
 * Counting begins before mapping_watch_open() returns; it sees calls that were under way then, because it is their end that counts.
 * A process that is stopped has no call under way. So: a count, then a look at the mappings, then, when the process is stopped, the
 * same count: what was seen is so now.
 *
 * While a watch is open, every system call of every process of the machine takes the kernel's slow path (some 100 ns).
 * Failures are of no consequence, and only some are recorded: whoever may not watch looks when the process is stopped.
 */
#ifndef CRIU_KERNEL_MAPPING_WATCH_H
#define CRIU_KERNEL_MAPPING_WATCH_H

#include <stdint.h>
#include "compiler.h"

struct mapping_watch;

/* The number of the tracepoint, for mapping_watch_open(); -errno: not permitted, or not in this kernel. 0.4 - 3 ms. */
int mapping_watch_tracepoint(void) must_check;

/* `proc` is a directory fd of /proc/PID. 0 or -errno. 1 - 10 ms, of which the process feels nothing. */
int mapping_watch_open(struct mapping_watch **watch, int tracepoint, int proc) must_check;

/* So many calls have ended. -errno: nobody knows. */
int mapping_watch_count(const struct mapping_watch *watch, uint64_t *calls) must_check;

/* The kernel takes 35 - 50 ms for it (it waits until no CPU can be in the tracepoint any more). */
void mapping_watch_close(struct mapping_watch *watch);

/* Which calls, in the language of the kernel's event filters: allocated. */
char *mapping_watch_filter(void);

#endif
