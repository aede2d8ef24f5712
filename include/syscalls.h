/*
 * syscalls.h - system calls without libc: sys_name() returns what the kernel returned, -errno if it failed.
 *
 * Freestanding: the blobs have nothing else, and criu uses it where a libc wrapper would do harm (after a raw clone, in
 * a child that shares memory). Arguments have the types of the kernel's interface; structures that are only passed on
 * are `void *`.
 */
#ifndef SYSCALLS_H
#define SYSCALLS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>

#include "arch_syscall.h"

/* SYSTEM_CALL_N(name, types of the N arguments) makes `static inline long sys_name(…)`. */
#define SYSTEM_CALL_0(name)                                       \
	static inline long sys_##name(void)                       \
	{                                                         \
		return system_call(SYS_##name, 0, 0, 0, 0, 0, 0); \
	}
#define SYSTEM_CALL_1(name, ta)                                         \
	static inline long sys_##name(ta a)                             \
	{                                                               \
		return system_call(SYS_##name, (long)a, 0, 0, 0, 0, 0); \
	}
#define SYSTEM_CALL_2(name, ta, tb)                                           \
	static inline long sys_##name(ta a, tb b)                             \
	{                                                                     \
		return system_call(SYS_##name, (long)a, (long)b, 0, 0, 0, 0); \
	}
#define SYSTEM_CALL_3(name, ta, tb, tc)                                             \
	static inline long sys_##name(ta a, tb b, tc c)                             \
	{                                                                           \
		return system_call(SYS_##name, (long)a, (long)b, (long)c, 0, 0, 0); \
	}
#define SYSTEM_CALL_4(name, ta, tb, tc, td)                                               \
	static inline long sys_##name(ta a, tb b, tc c, td d)                             \
	{                                                                                 \
		return system_call(SYS_##name, (long)a, (long)b, (long)c, (long)d, 0, 0); \
	}
#define SYSTEM_CALL_5(name, ta, tb, tc, td, te)                                                 \
	static inline long sys_##name(ta a, tb b, tc c, td d, te e)                             \
	{                                                                                       \
		return system_call(SYS_##name, (long)a, (long)b, (long)c, (long)d, (long)e, 0); \
	}
#define SYSTEM_CALL_6(name, ta, tb, tc, td, te, tf)                                                   \
	static inline long sys_##name(ta a, tb b, tc c, td d, te e, tf f)                             \
	{                                                                                             \
		return system_call(SYS_##name, (long)a, (long)b, (long)c, (long)d, (long)e, (long)f); \
	}

/* clang-format off: a table. It has only calls that are used. */

/* memory */
SYSTEM_CALL_6(mmap, void *, size_t, int, int, int, off_t)
SYSTEM_CALL_2(munmap, void *, size_t)
SYSTEM_CALL_3(madvise, void *, size_t, int)

/* files */
SYSTEM_CALL_1(close, int)
SYSTEM_CALL_3(close_range, unsigned, unsigned, unsigned)

/* sockets */
SYSTEM_CALL_6(sendto, int, const void *, size_t, int, const void *, unsigned)
SYSTEM_CALL_6(recvfrom, int, void *, size_t, int, void *, unsigned *)
SYSTEM_CALL_3(recvmsg, int, void *, int)

/* tasks */
SYSTEM_CALL_0(gettid)
SYSTEM_CALL_2(clone, unsigned long, void *) /* the order of the other three depends on the architecture */
SYSTEM_CALL_1(exit, int)
SYSTEM_CALL_1(exit_group, int)
SYSTEM_CALL_4(wait4, pid_t, int *, int, void *)
SYSTEM_CALL_0(setsid)
SYSTEM_CALL_2(setns, int, int)
SYSTEM_CALL_2(prctl, int, const void *)
SYSTEM_CALL_6(futex, void *, int, unsigned, const void *, void *, unsigned)
SYSTEM_CALL_3(sched_setaffinity, pid_t, unsigned, const void *)
SYSTEM_CALL_3(sched_getaffinity, pid_t, unsigned, void *)

/* signals, timers, asynchronous input and output */
SYSTEM_CALL_4(rt_sigaction, int, const void *, void *, size_t)
SYSTEM_CALL_2(rt_sigpending, uint64_t *, size_t)
SYSTEM_CALL_2(nanosleep, const void *, void *)
SYSTEM_CALL_2(io_setup, unsigned, unsigned long *)
SYSTEM_CALL_1(io_destroy, unsigned long)
SYSTEM_CALL_3(io_submit, unsigned long, long, void *)
SYSTEM_CALL_5(io_getevents, unsigned long, long, long, void *, const void *)

#endif
