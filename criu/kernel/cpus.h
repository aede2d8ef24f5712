/*
 * cpus.h - sets of CPUs, as sched_setaffinity(2) takes them and as the kernel writes them in lists.
 */
#ifndef CRIU_KERNEL_CPUS_H
#define CRIU_KERNEL_CPUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "compiler.h"

#define MOST_CPUS 8192 /* what Linux can be built for (x86-64, CONFIG_MAXSMP) */

struct cpus {
	uint8_t bits[MOST_CPUS / 8]; /* CPU n: bit n % 8 of byte n / 8 */
};

/* Those that a thread may run on now; -errno, not recorded. */
int cpus_get_affinity(pid_t tid, struct cpus *cpus) must_check;
int cpus_set_affinity(pid_t tid, const struct cpus *cpus) must_check;
/* Of these, those that a thread of ours may run on: the kernel leaves out what is not there, or not in our cpuset. None: empty. */
void cpus_restrict(struct cpus *cpus);
/* All numbers that there can be. */
void cpus_fill(struct cpus *cpus);
/* The bytes up to the last CPU in it. */
size_t cpus_length(const struct cpus *cpus);
/* A list such as "0-3,8", of a cpuset for example. False: it is none. */
bool cpus_parse(const char *list, struct cpus *cpus);

#endif
