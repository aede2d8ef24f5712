/*
 * arch_types.h - the registers of a thread on aarch64. Only the folders arch/aarch64 look inside; everybody else
 * calls the functions of arch.h. These do not exist yet: criu does not run on this architecture, but all that is not
 * under arch/ compiles for it (make cross).
 */
#ifndef ARCH_TYPES_H
#define ARCH_TYPES_H

#include <stdint.h>
#include <sys/user.h>

#define ARCH_CALL_SIZE	      4 /* `svc #0` */
#define ARCH_CODE_BEFORE_CALL 32
#define ARCH_RED_ZONE	      0

struct arch_registers {
	struct user_regs_struct user; /* NT_PRSTATUS: x0 to x30, sp, pc, pstate */
	uint64_t thread_pointer;      /* NT_ARM_TLS */
	int32_t call;		      /* NT_ARM_SYSTEM_CALL: which system call the thread is in; -1: none */
};

#endif
