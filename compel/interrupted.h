/*
 * interrupted.h - the kernel's rules for a system call that was interrupted: whether it is repeated, and with which
 * timeout.
 *
 * Only values go in and come out. settle.c and reenter.c ask the thread and change its registers.
 */
#ifndef COMPEL_INTERRUPTED_H
#define COMPEL_INTERRUPTED_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include "arch.h"

/* The kernel's own codes, on all architectures. A program never sees them, a tracer does. */
#define ERESTARTSYS	      512
#define ERESTARTNOINTR	      513
#define ERESTARTNOHAND	      514
#define ERESTART_RESTARTBLOCK 516

enum interrupted_end {
	CALL_IS_OVER,
	CALL_IS_REPEATED, /* with the same arguments */
	CALL_IS_CONTINUED, /* by restart_syscall(), with the remaining time, which the kernel keeps in the thread */
};
enum interrupted_end interrupted_end(long result);

/* Did it end with EINTR although no handler ran? If no signal is pending either, it was only a stop. */
bool interrupted_by_stop(const struct arch_call *call);
/* Calls that can be continued, and the call that continues them. */
bool interrupted_can_continue(long number);
/*
 * The original call of a thread that waits in restart_syscall() in the kernel's function `where` (/proc/TID/wchan);
 * `first` is its first argument. 0: unknown.
 */
long interrupted_original(const char *where, uint64_t first);

/* ---- timeouts; `asleep` and the remaining time are in nanoseconds ---- */

#define SECOND_NS 1000000000ULL

/* The index of the argument that points to a relative timeout in memory; -1: this call has none. */
int interrupted_timeout(const struct arch_call *call);
/* Does it end without telling the remaining time? */
bool interrupted_hides_time(const struct arch_call *call);
/* If the timeout is an argument, in milliseconds: reduces it by the time that the thread has slept. */
void interrupted_shorten(struct arch_call *call, uint64_t asleep);
/* A sleep that has told its remaining time in memory: uses this as the timeout. false: it has not. */
bool interrupted_use_told(struct arch_call *call);
/* What remains of a timeout in memory; at least 1. */
uint64_t interrupted_remaining(const struct timespec *timeout, uint64_t asleep);

#endif
