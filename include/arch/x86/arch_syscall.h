/*
 * arch_syscall.h - how x86-64 makes a system call. Freestanding; included by syscalls.h only.
 */
#ifndef ARCH_SYSCALL_H
#define ARCH_SYSCALL_H

static inline long system_call(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

/*
 * clone3() with a stack in `arguments` (struct clone_args) and all memory shared: the child calls work(argument) there,
 * and exits with code 0 when that returns. Returns to the parent only: the child's pid, or -errno.
 */
static inline long system_clone3(const void *arguments, unsigned long size, void (*work)(void *),
				 void *argument)
{
	register void *child_argument __asm__("r8") = argument;
	long result;

	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t" /* the first frame */
			 "mov %%r8, %%rdi\n\t"
			 "call *%%rdx\n\t"
			 "xor %%edi, %%edi\n\t"
			 "mov %[exit], %%eax\n\t"
			 "syscall\n\t"
			 "1:"
			 : "=a"(result)
			 : "a"(SYS_clone3), "D"(arguments), "S"(size), "d"(work),
			   "r"(child_argument), [exit] "i"(SYS_exit_group)
			 : "rcx", "r11", "memory", "cc");
	return result;
}

#endif
