/*
 * arch_syscall.h - how aarch64 makes a system call. Freestanding; included by syscalls.h only.
 */
#ifndef ARCH_SYSCALL_H
#define ARCH_SYSCALL_H

/* The kernel keeps all registers but x0. */
static inline long system_call(long number, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc #0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return x0;
}

/*
 * clone3() with a stack in `arguments` (struct clone_args) and all memory shared: the child calls work(argument)
 * there, and exits with code 0 when that returns. Returns to the parent only: the child's pid, or -errno.
 */
static inline long system_clone3(const void *arguments, unsigned long size, void (*work)(void *),
				 void *argument)
{
	register long x8 __asm__("x8") = SYS_clone3;
	register long x0 __asm__("x0") = (long)arguments;
	register long x1 __asm__("x1") = (long)size;
	register void (*x2)(void *) __asm__("x2") = work;
	register void *x3 __asm__("x3") = argument;

	__asm__ volatile("svc #0\n\t"
			 "cbnz x0, 1f\n\t"
			 "mov x29, xzr\n\t" /* the first frame */
			 "mov x30, xzr\n\t"
			 "mov x0, x3\n\t"
			 "blr x2\n\t"
			 "mov x0, xzr\n\t"
			 "mov x8, %[exit]\n\t"
			 "svc #0\n\t"
			 "1:"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), [exit] "i"(SYS_exit_group)
			 : "memory");
	return x0;
}

#endif
