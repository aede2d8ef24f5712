/*
 * arch.h - what differs between architectures, for dump and restore. `criu/arch/generic/X.c` serves every architecture
 * whose own folder has no X.c.
 */
#ifndef CRIU_ARCH_ARCH_H
#define CRIU_ARCH_ARCH_H

#include <stdint.h>
#include <sys/types.h>
#include "compel.h"
#include "compiler.h"
#include "core.pb-c.h"

extern const CoreEntry__March arch_image_type; /* core_entry.mtype of this machine */

/* Learns what it needs to know of this machine: done by the others if need be, but slow, so better before anything is frozen. */
void arch_prepare(void);

/* The end of a task's part of the address space, as this kernel draws it. */
uint64_t arch_task_size(void);

/* Registers, from a parked thread into a core and back. `core->thread_info` is made by the first. */
int arch_save_registers(pid_t tid, const struct thread_context *context, CoreEntry *core) must_check;
/*
 * Checks that this CPU can take these registers (run before any task exists), and lays out what PTRACE_SETREGSET takes.
 */
int arch_load_registers(const CoreEntry *core, struct thread_context *context) must_check;

/* clear_child_tid, which the format keeps beside the registers. */
uint64_t arch_clear_tid(const CoreEntry *core);
void arch_set_clear_tid(CoreEntry *core, uint64_t address);

/*
 * What to write over the function `name` ("clock_gettime") of a vdso that is of another kernel: code that goes on at `target`
 * (this kernel's function; 0: there is none), or makes the plain system call. Its size is returned.
 */
#define ARCH_VDSO_CODE 32
size_t arch_vdso_code(unsigned char code[ARCH_VDSO_CODE], const char *name, uint64_t target);
/* Where a thread goes on. */
uint64_t arch_instruction(const CoreEntry *core);

/* Jumps to `address` with the stack pointer at `stack` (the end of a stack, 16-byte aligned). */
void arch_jump(uint64_t address, uint64_t stack) does_not_return;

#endif
