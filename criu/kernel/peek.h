/*
 * peek.h - reads the kernel's memory, for facts that no file of /proc and no call tells.
 */
#ifndef CRIU_KERNEL_PEEK_H
#define CRIU_KERNEL_PEEK_H

#include <stddef.h>
#include <stdint.h>
#include "compiler.h"

#define PEEK_MOST 4095 /* bytes in one piece */

struct peek {
	int program, map;
	int cpu_program; /* -1: peek_prepare_cpus() was not called */
	char *window;	 /* where the kernel puts what was read */
};

/* Needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN, here and not in a user namespace. 0 or -errno, recorded. */
int peek_open(struct peek *peek) must_check;
void peek_close(struct peek *peek); /* also after a failure */
/* -EFAULT or another -errno, not recorded: there is no memory at that address. */
int peek_read(const struct peek *peek, uint64_t address, void *buffer, uint32_t size) must_check;

/*
 * Reads members of one struct in one run of the program, which takes longer than to copy what is between them. `place`
 * is the index of the member's offset in `offsets`. -EFAULT or another -errno, not recorded; also for members that lie
 * too far apart.
 */
struct peek_member {
	uint32_t place;
	void *value;
	uint32_t size;
};
int peek_read_members(const struct peek *peek, uint64_t struct_at, const uint32_t *offsets,
		      const struct peek_member *members, size_t count) must_check;
/* The address of the struct task_struct of this thread; 0: unknown. */
uint64_t peek_self(const struct peek *peek) must_check;

/*
 * For variables that each CPU has: how far those of a CPU are from the addresses that the kernel notes. `variable` is
 * the number of "this_cpu_off" (btf_find_variable()).
 */
int peek_prepare_cpus(struct peek *peek, uint32_t variable) must_check;
int peek_cpu(const struct peek *peek, unsigned cpu, uint64_t *distance) must_check; /* -errno, not recorded */

#endif
