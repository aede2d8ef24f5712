/*
 * cpus.h - sets of CPUs, in the form of sched_setaffinity(2) and in the kernel's list form.
 */
#ifndef CRIU_KERNEL_CPUS_H
#define CRIU_KERNEL_CPUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "compiler.h"

#define MOST_CPUS 8192 /* the most that Linux can be built for (CONFIG_MAXSMP) */

struct cpus {
	uint8_t bits[MOST_CPUS / 8]; /* CPU n: bit n % 8 of byte n / 8 */
};

/* The CPUs that a thread may run on now; -errno, not recorded. */
int cpus_get_affinity(pid_t tid, struct cpus *cpus) must_check;
int cpus_set_affinity(pid_t tid, const struct cpus *cpus) must_check;
/*
 * Keeps only CPUs that a thread of criu may run on: the kernel drops those that do not exist or are not in criu's
 * cpuset. If none is left, the set is empty.
 */
void cpus_restrict(struct cpus *cpus);
/* The set of all possible CPU numbers. */
void cpus_fill(struct cpus *cpus);
/* The number of bytes up to the last CPU in it. */
size_t cpus_length(const struct cpus *cpus);
/* Parses a list such as "0-3,8", as in a cpuset. False: it is no list. */
bool cpus_parse(const char *list, struct cpus *cpus);

#endif
