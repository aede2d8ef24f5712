/*
 * syscalls.h - system calls without a libc: sys_name() returns what the kernel returned, -errno if it failed.
 *
 * Freestanding: the blobs have nothing else, and criu uses it where a libc wrapper would get in the way (after a raw
 * clone, in a child that shares memory). Arguments have the types of the kernel's interface; structures that only pass
 * through are `void *`.
 */
#ifndef SYSCALLS_H
#define SYSCALLS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>

#if defined(__x86_64__)
#include "arch/x86/syscall.h"
#else
#error "this architecture needs an include/arch/NAME/syscall.h"
#endif

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

/* clang-format off: a table */

/* memory */
SYSTEM_CALL_6(mmap, void *, size_t, int, int, int, off_t)
SYSTEM_CALL_2(munmap, void *, size_t)
SYSTEM_CALL_5(mremap, void *, size_t, size_t, int, void *)
SYSTEM_CALL_3(mprotect, void *, size_t, int)
SYSTEM_CALL_4(pkey_mprotect, void *, size_t, int, int)
SYSTEM_CALL_2(pkey_alloc, unsigned, unsigned)
SYSTEM_CALL_1(pkey_free, int)
SYSTEM_CALL_3(madvise, void *, size_t, int)
SYSTEM_CALL_3(msync, void *, size_t, int)
SYSTEM_CALL_3(mincore, void *, size_t, unsigned char *)
SYSTEM_CALL_3(mlock2, const void *, size_t, int)
SYSTEM_CALL_2(munlock, const void *, size_t)
SYSTEM_CALL_1(mlockall, int)
SYSTEM_CALL_1(brk, void *)
SYSTEM_CALL_6(mbind, void *, unsigned long, int, const void *, unsigned long, unsigned)
SYSTEM_CALL_3(set_mempolicy, int, const void *, unsigned long)
SYSTEM_CALL_5(get_mempolicy, int *, void *, unsigned long, void *, unsigned long)
SYSTEM_CALL_5(remap_file_pages, void *, size_t, int, size_t, int)
SYSTEM_CALL_2(memfd_create, const char *, unsigned)
SYSTEM_CALL_1(userfaultfd, int)
SYSTEM_CALL_3(shmat, int, const void *, int)
SYSTEM_CALL_1(shmdt, const void *)
SYSTEM_CALL_3(shmget, int, size_t, int)
SYSTEM_CALL_3(shmctl, int, int, void *)
SYSTEM_CALL_6(process_vm_readv, pid_t, const void *, unsigned long, const void *, unsigned long,
	      unsigned long)
SYSTEM_CALL_6(process_vm_writev, pid_t, const void *, unsigned long, const void *, unsigned long,
	      unsigned long)

/* files */
SYSTEM_CALL_4(openat, int, const char *, int, unsigned)
SYSTEM_CALL_4(openat2, int, const char *, const void *, size_t)
SYSTEM_CALL_1(close, int)
SYSTEM_CALL_3(close_range, unsigned, unsigned, unsigned)
SYSTEM_CALL_3(read, int, void *, size_t)
SYSTEM_CALL_3(write, int, const void *, size_t)
SYSTEM_CALL_3(readv, int, const void *, int)
SYSTEM_CALL_3(writev, int, const void *, int)
SYSTEM_CALL_4(pread64, int, void *, size_t, off_t)
SYSTEM_CALL_4(pwrite64, int, const void *, size_t, off_t)
SYSTEM_CALL_5(preadv, int, const void *, int, long, long)
SYSTEM_CALL_5(pwritev, int, const void *, int, long, long)
SYSTEM_CALL_3(lseek, int, off_t, int)
SYSTEM_CALL_2(ftruncate, int, off_t)
SYSTEM_CALL_4(fallocate, int, int, off_t, off_t)
SYSTEM_CALL_1(fsync, int)
SYSTEM_CALL_2(fstat, int, void *)
SYSTEM_CALL_5(statx, int, const char *, int, unsigned, void *)
SYSTEM_CALL_3(fcntl, int, int, long)
SYSTEM_CALL_3(ioctl, int, unsigned long, long)
SYSTEM_CALL_2(flock, int, int)
SYSTEM_CALL_1(dup, int)
SYSTEM_CALL_3(dup3, int, int, int)
SYSTEM_CALL_2(pipe2, int *, int)
SYSTEM_CALL_6(splice, int, off_t *, int, off_t *, size_t, unsigned)
SYSTEM_CALL_4(vmsplice, int, const void *, unsigned long, unsigned)
SYSTEM_CALL_4(tee, int, int, size_t, unsigned)
SYSTEM_CALL_4(sendfile, int, int, off_t *, size_t)
SYSTEM_CALL_5(ppoll, void *, unsigned, void *, const void *, size_t)
SYSTEM_CALL_3(unlinkat, int, const char *, int)
SYSTEM_CALL_4(readlinkat, int, const char *, char *, size_t)
SYSTEM_CALL_3(getdents64, int, void *, size_t)
SYSTEM_CALL_1(chroot, const char *)
SYSTEM_CALL_1(chdir, const char *)
SYSTEM_CALL_1(fchdir, int)
SYSTEM_CALL_1(umask, unsigned)

/* sockets */
SYSTEM_CALL_3(socket, int, int, int)
SYSTEM_CALL_4(socketpair, int, int, int, int *)
SYSTEM_CALL_3(connect, int, const void *, unsigned)
SYSTEM_CALL_6(sendto, int, const void *, size_t, int, const void *, unsigned)
SYSTEM_CALL_6(recvfrom, int, void *, size_t, int, void *, unsigned *)
SYSTEM_CALL_3(sendmsg, int, const void *, int)
SYSTEM_CALL_3(recvmsg, int, void *, int)
SYSTEM_CALL_2(shutdown, int, int)
SYSTEM_CALL_5(getsockopt, int, int, int, void *, unsigned *)
SYSTEM_CALL_5(setsockopt, int, int, int, const void *, unsigned)

/* tasks */
SYSTEM_CALL_0(getpid)
SYSTEM_CALL_0(gettid)
SYSTEM_CALL_0(getppid)
SYSTEM_CALL_0(fork)
SYSTEM_CALL_5(clone, unsigned long, void *, int *, int *,
	      unsigned long) /* the order of arguments is x86-64's */
SYSTEM_CALL_2(clone3, void *, size_t)
SYSTEM_CALL_1(exit, int)
SYSTEM_CALL_1(exit_group, int)
SYSTEM_CALL_4(wait4, pid_t, int *, int, void *)
SYSTEM_CALL_5(waitid, int, pid_t, void *, int, void *)
SYSTEM_CALL_0(setsid)
SYSTEM_CALL_2(setpgid, pid_t, pid_t)
SYSTEM_CALL_1(getsid, pid_t)
SYSTEM_CALL_1(getpgid, pid_t)
SYSTEM_CALL_2(kill, pid_t, int)
SYSTEM_CALL_3(tgkill, pid_t, pid_t, int)
SYSTEM_CALL_1(unshare, int)
SYSTEM_CALL_2(setns, int, int)
SYSTEM_CALL_5(prctl, int, unsigned long, unsigned long, unsigned long, unsigned long)
SYSTEM_CALL_2(arch_prctl, int, unsigned long)
SYSTEM_CALL_1(personality, unsigned long)
SYSTEM_CALL_1(set_tid_address, int *)
SYSTEM_CALL_2(set_robust_list, void *, size_t)
SYSTEM_CALL_3(get_robust_list, int, void *, size_t *)
SYSTEM_CALL_4(rseq, void *, unsigned, int, unsigned)
SYSTEM_CALL_3(seccomp, unsigned, unsigned, void *)
SYSTEM_CALL_6(futex, void *, int, unsigned, const void *, void *, unsigned)
SYSTEM_CALL_4(ptrace, long, pid_t, void *, void *)
SYSTEM_CALL_2(pidfd_open, pid_t, unsigned)
SYSTEM_CALL_3(pidfd_getfd, int, int, unsigned)
SYSTEM_CALL_4(prlimit64, pid_t, unsigned, const void *, void *)
SYSTEM_CALL_0(sched_yield)
SYSTEM_CALL_3(sched_setscheduler, pid_t, int, const void *)
SYSTEM_CALL_3(sched_setattr, pid_t, void *, unsigned)
SYSTEM_CALL_3(sched_setaffinity, pid_t, unsigned, const void *)
SYSTEM_CALL_3(sched_getaffinity, pid_t, unsigned, void *)
SYSTEM_CALL_3(setpriority, int, int, int)
SYSTEM_CALL_3(ioprio_set, int, int, int)

/* credentials */
SYSTEM_CALL_3(setresuid, uid_t, uid_t, uid_t)
SYSTEM_CALL_3(setresgid, gid_t, gid_t, gid_t)
SYSTEM_CALL_1(setfsuid, uid_t)
SYSTEM_CALL_1(setfsgid, gid_t)
SYSTEM_CALL_2(setgroups, int, const gid_t *)
SYSTEM_CALL_2(capget, void *, void *)
SYSTEM_CALL_2(capset, void *, const void *)
SYSTEM_CALL_5(add_key, const char *, const char *, const void *, size_t, int)
SYSTEM_CALL_5(keyctl, int, long, long, long, long)

/* signals, timers, asynchronous input and output */
SYSTEM_CALL_4(rt_sigaction, int, const void *, void *, size_t)
SYSTEM_CALL_4(rt_sigprocmask, int, const void *, void *, size_t)
SYSTEM_CALL_3(rt_sigqueueinfo, pid_t, int, void *)
SYSTEM_CALL_4(rt_tgsigqueueinfo, pid_t, pid_t, int, void *)
SYSTEM_CALL_4(rt_sigtimedwait, const void *, void *, const void *, size_t)
SYSTEM_CALL_2(sigaltstack, const void *, void *)
SYSTEM_CALL_2(nanosleep, const void *, void *)
SYSTEM_CALL_2(clock_gettime, int, void *)
SYSTEM_CALL_3(setitimer, int, const void *, void *)
SYSTEM_CALL_2(getitimer, int, void *)
SYSTEM_CALL_3(timer_create, int, void *, int *)
SYSTEM_CALL_4(timer_settime, int, int, const void *, void *)
SYSTEM_CALL_2(timer_gettime, int, void *)
SYSTEM_CALL_1(timer_getoverrun, int)
SYSTEM_CALL_1(timer_delete, int)
SYSTEM_CALL_4(timerfd_settime, int, int, const void *, void *)
SYSTEM_CALL_2(io_setup, unsigned, unsigned long *)
SYSTEM_CALL_1(io_destroy, unsigned long)
SYSTEM_CALL_3(io_submit, unsigned long, long, void *)
SYSTEM_CALL_5(io_getevents, unsigned long, long, long, void *, const void *)

/* clang-format on */

#endif
