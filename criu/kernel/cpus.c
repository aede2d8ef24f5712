/*
 * cpus.c - see cpus.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "kernel/cpus.h"

int cpus_get_affinity(pid_t tid, struct cpus *cpus)
{
	memset(cpus, 0, sizeof(*cpus));
	return syscall(SYS_sched_getaffinity, tid, sizeof(*cpus), cpus) < 0 ? -errno : 0;
}

int cpus_set_affinity(pid_t tid, const struct cpus *cpus)
{
	return syscall(SYS_sched_setaffinity, tid, sizeof(*cpus), cpus) < 0 ? -errno : 0;
}

void cpus_restrict(struct cpus *cpus)
{
	struct cpus ours;
	bool is_kept = !cpus_get_affinity(0, &ours);

	if (cpus_set_affinity(0, cpus) || cpus_get_affinity(0, cpus))
		memset(cpus, 0, sizeof(*cpus));
	/* If the allowed CPUs have changed meanwhile, the kernel has chosen others already. */
	if (is_kept)
		ignore(cpus_set_affinity(0, &ours));
}

void cpus_fill(struct cpus *cpus)
{
	memset(cpus, 0xff, sizeof(*cpus));
}

size_t cpus_length(const struct cpus *cpus)
{
	size_t length = sizeof(cpus->bits);
	uint64_t word;

	/* Most machines have few of the possible CPUs: eight bytes at a time. */
	for (; length; length -= sizeof(word)) {
		memcpy(&word, cpus->bits + length - sizeof(word), sizeof(word));
		if (word)
			break;
	}
	while (length && !cpus->bits[length - 1])
		length--;
	return length;
}

static bool parse_cpu_number(const char **at, unsigned long *number)
{
	char *end;

	if (**at < '0' || **at > '9')
		return false;
	*number = strtoul(*at, &end, 10);
	*at = end;
	return *number < MOST_CPUS;
}

bool cpus_parse(const char *list, struct cpus *cpus)
{
	unsigned long first, last;

	memset(cpus, 0, sizeof(*cpus));
	while (*list && *list != '\n') {
		if (!parse_cpu_number(&list, &first))
			return false;
		last = first;
		if (*list == '-' && (list++, !parse_cpu_number(&list, &last)))
			return false;
		for (unsigned long cpu = first; cpu <= last; cpu++)
			cpus->bits[cpu / 8] |= 1 << cpu % 8;
		if (*list == ',')
			list++;
		else if (*list && *list != '\n')
			return false;
	}
	return true;
}
