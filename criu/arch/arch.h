/*
 * arch.h - what differs between architectures, for dump and restore. `criu/arch/generic/X.c` serves every architecture
 * whose own directory has no X.c.
 */
#ifndef CRIU_ARCH_ARCH_H
#define CRIU_ARCH_ARCH_H

#include <stdint.h>
#include <sys/types.h>
#include "calls.h"
#include "compel.h"
#include "compiler.h"
#include "core.pb-c.h"

extern const CoreEntry__March arch_image_type; /* core_entry.mtype of this machine */

/*
 * Learns about this machine. The other functions do so on demand, but it is slow, so it is better done before anything
 * is frozen.
 */
void arch_prepare(void);

/* Registers of a stopped thread into a core image and back. arch_save_registers() creates `core->thread_info`. */
int arch_save_registers(pid_t tid, const struct thread_context *context, CoreEntry *core) must_check;
/* Checks that this CPU can hold these registers (before any task exists), and builds the data for PTRACE_SETREGSET. */
int arch_load_registers(const CoreEntry *core, struct thread_context *context) must_check;

/*
 * Adds a question to a process: has it tables of the CPU that the image format has no place for? If it has, the
 * answer is greater than 0, and arch_tables_name is what to call them.
 */
call_handle arch_ask_for_tables(struct call_list *calls);
extern const char arch_tables_name[];

/* clear_child_tid, which the image format stores with the registers. */
uint64_t arch_clear_tid(const CoreEntry *core);
void arch_set_clear_tid(CoreEntry *core, uint64_t address);

/*
 * Code to write over a function of a vdso that another kernel made. Each returns its size; only that of getrandom may
 * be longer than the alignment of the functions.
 */
#define ARCH_VDSO_CODE 32
/* Continues at `target`, this kernel's function. */
size_t arch_vdso_jump(unsigned char code[ARCH_VDSO_CODE], uint64_t target);
/* Makes the system call with the arguments of the function. */
size_t arch_vdso_call(unsigned char code[ARCH_VDSO_CODE], long number);
/* Returns -ENOSYS. */
size_t arch_vdso_refuse(unsigned char code[ARCH_VDSO_CODE]);
/* Makes the system call; but asked for its layout (a size of -1, the fifth argument), it returns -ENOSYS. */
size_t arch_vdso_getrandom(unsigned char code[ARCH_VDSO_CODE]);
/* The instruction pointer of a thread. */
uint64_t arch_instruction(const CoreEntry *core);

/* Jumps to `address` with `stack` as the stack pointer: the end of a stack, 16-byte aligned. */
void arch_jump(uint64_t address, uint64_t stack) does_not_return;

#endif
