/*
 * settle.h - what settle.c and reenter.c share: timeouts of system calls that were interrupted.
 */
#ifndef COMPEL_X86_SETTLE_H
#define COMPEL_X86_SETTLE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/user.h>
#include "compel.h"

/* Of a stopped thread's memory; false: nothing is there. */
bool settle_read(pid_t tid, uint64_t address, void *buffer, size_t size);

/* The register that points to a relative timeout; NULL: this call has none in memory. */
unsigned long long *timeout_in_memory(struct user_regs_struct *registers, long number);
/* Of that, what remains: into thread->remaining, if it is known how long it has been asleep. */
void settle_remaining(struct traced_thread *thread, struct user_regs_struct *registers, long number);

#endif
