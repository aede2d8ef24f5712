/*
 * arch_types.h - the registers of a thread on x86-64. Only the folders arch/x86 look inside; everybody else calls the
 * functions of arch.h.
 */
#ifndef ARCH_TYPES_H
#define ARCH_TYPES_H

#include <sys/user.h>

#define ARCH_CALL_SIZE	      2 /* `syscall` */
#define ARCH_CODE_BEFORE_CALL 26
#define ARCH_RED_ZONE	      128

struct arch_registers {
	struct user_regs_struct user; /* as PTRACE_GETREGSET gives them: with fs_base, gs_base, orig_rax */
};

#endif
