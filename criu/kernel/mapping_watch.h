/*
 * mapping_watch.h - tells whether a running process has made system calls that may change its mappings or their flags.
 *
 * The kernel counts the calls (perf, at the tracepoint raw_syscalls:sys_exit) in all threads of the process and in all
 * threads and processes that these create. Counting begins before mapping_watch_open() returns. It includes calls in
 * progress at that time, because it counts the end of a call. A stopped process has no call in progress. So criu reads
 * the count, then the mappings, then, when the process is stopped, the count again: if it is the same, the mappings are
 * still valid.
 *
 * While a watch is open, every system call of every process of the machine takes a slow path in the kernel (some 100
 * ns). Failures have no consequences, and only some are recorded: without a watch, criu reads the mappings when the
 * process is stopped.
 */
#ifndef CRIU_KERNEL_MAPPING_WATCH_H
#define CRIU_KERNEL_MAPPING_WATCH_H

#include <stdint.h>
#include "compiler.h"

struct mapping_watch;

/*
 * The number of the tracepoint, for mapping_watch_open(). -errno: not permitted, or not in this kernel. Takes 0.4 - 3
 * ms.
 */
int mapping_watch_tracepoint(void) must_check;

/* `proc` is a directory fd of /proc/PID. 0 or -errno. Takes 1 - 10 ms, which do not affect the process. */
int mapping_watch_open(struct mapping_watch **watch, int tracepoint, int proc) must_check;

/* The number of calls that have ended. -errno: not known. */
int mapping_watch_count(const struct mapping_watch *watch, uint64_t *calls) must_check;

/* Takes 35 - 50 ms: the kernel waits until no CPU can be in the tracepoint any more. */
void mapping_watch_close(struct mapping_watch *watch);

/*
 * criu/arch/NAME/mapping_calls.c: calls of this kind that not every architecture has, and a further condition of the
 * filter, in which `id` is the number of a call and `ret` what it returned.
 */
extern const int arch_mapping_calls[];
extern const size_t arch_mapping_call_count;
extern const char arch_mapping_condition[];

/* The filter for these calls, in the kernel's syntax for events; allocated. */
char *mapping_watch_filter(void);

#endif
