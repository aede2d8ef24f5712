/*
 * arch.h - everything that compel and criu have to know of a CPU architecture and of the way it makes system calls.
 *
 * compel/arch/NAME has these functions. No other file names a register, a size or an instruction of one architecture:
 * for all others struct arch_registers is opaque. (criu/arch/arch.h writes registers to images.)
 */
#ifndef COMPEL_ARCH_H
#define COMPEL_ARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "compel.h"
#include "compiler.h"

struct gadgets;

/* The end of a task's part of the address space. */
uint64_t arch_task_size(void);

/* ---- registers.c ---- */

/* Of a thread that is stopped by ptrace; -errno, nothing is recorded. */
int arch_get_registers(pid_t tid, struct arch_registers *registers) must_check;
int arch_set_registers(pid_t tid, const struct arch_registers *registers) must_check;
/* The same for context->extended: floating point, vectors and whatever else the CPU keeps for a thread. */
int arch_get_extended(pid_t tid, struct thread_context *context) must_check;
int arch_set_extended(pid_t tid, const struct thread_context *context) must_check;

uint64_t arch_instruction_pointer(const struct arch_registers *registers);
void arch_set_instruction_pointer(struct arch_registers *registers, uint64_t ip);
uint64_t arch_stack_pointer(const struct arch_registers *registers);
/* Where thread-local storage is. */
uint64_t arch_thread_pointer(const struct arch_registers *registers);
/* What the system call that has just ended returned. */
long arch_call_result(const struct arch_registers *registers);
/* The ABI of the code that the thread runs, and what people call an ABI. */
enum call_abi arch_call_abi(const struct arch_registers *registers);
const char *arch_abi_name(enum call_abi abi);
/* Asks the CPU what the following need to know of it. That may be slow, so it comes before a process is stopped. */
void arch_look_ahead(void);
/* Do the thread's protection keys deny access to ordinary memory, such as the region of the parasite? */
bool arch_denies_data(const struct thread_context *context);

/*
 * These set the registers with which compel sends a thread to other code. A register that a function does not need
 * keeps its value. No system call is restarted, and the flags are those that a function expects.
 */
void arch_prepare_jump(struct arch_registers *registers, uint64_t ip, uint64_t sp);
/* To a system call instruction at `ip`. */
void arch_prepare_call(struct arch_registers *registers, uint64_t ip, uint64_t sp, long number,
		       const uint64_t arguments[6]);
/* To the parasite's code for any thread (parasite_work), which works at `desk`. */
void arch_prepare_work(struct arch_registers *registers, uint64_t ip, uint64_t sp, uint64_t desk);
/* To code of the task's own that follows the way home at `entry` (internal.h). */
void arch_prepare_home(struct arch_registers *registers, const struct gadgets *gadgets, uint64_t entry);

/* ---- gadgets.c: pieces of a task's own code ---- */

enum gadget {
	GADGET_SYSCALL_RETURN, /* makes a system call and returns */
	GADGET_SIGRETURN,      /* makes the system call rt_sigreturn */
	GADGET_POP_RETURN,     /* takes the number of a system call from the stack and returns */
	GADGET_COUNT,
};
#define GADGET_SIZE 16 /* bytes of the longest piece; also of all gadgets together when code is borrowed */

/* One row is one piece of code that serves as a gadget; there may be several for one. */
struct gadget_code {
	enum gadget gadget;
	size_t size;
	unsigned char bytes[GADGET_SIZE];
};
extern const struct gadget_code arch_gadget_codes[];
extern const size_t arch_gadget_code_count;
/* Bits 1 << GADGET_*: when these are found, nothing else is looked for. */
extern const unsigned arch_gadgets_wanted;
/* What borrowed code is overwritten with: all gadgets in one piece, and where each is in it. */
struct gadget_loan {
	size_t size;
	unsigned char bytes[GADGET_SIZE];
	size_t offsets[GADGET_COUNT];
};
extern const struct gadget_loan arch_gadget_loan;

/*
 * Words that lie in front of a way home while the thread makes mmap() with GADGET_SYSCALL_RETURN: they unmap what it
 * has mapped. Returns how many they are; 0: not possible with these gadgets.
 */
#define ARCH_CHAIN_WORDS 4
size_t arch_unmap_chain(uint64_t chain[ARCH_CHAIN_WORDS], const struct gadgets *gadgets);

/* ---- frame.c: signal frames that no signal has delivered ---- */

/* The words and the frame that bring a thread to where it was. They lie below its stack pointer. */
struct return_frame {
	uint64_t entry;	   /* where it must lie */
	uint64_t extended; /* where its extended state then is */
	size_t size;
	char *bytes;
};
int frame_build(struct return_frame *frame, struct traced_thread *thread, const struct gadgets *gadgets)
	must_check;
/*
 * Puts a second frame in front of `frame`: the thread makes a call, with all signals blocked, and goes on to the first.
 */
void frame_add_call(struct return_frame *frame, const struct traced_thread *thread,
		    const struct gadgets *gadgets, const struct remote_call *call);

/* ---- registers.c: a system call that was interrupted; settle.c and reenter.c decide what becomes of it ---- */

/*
 * The call that a stopped thread is in, or has just left. `number` is -1 if there is none; then the rest means nothing.
 *
 * settle.c expects a thread behind the call instruction, with all arguments of the call, and as the result -EINTR or
 * one of the kernel's own codes (interrupted.h). Some kernels are done with the call before a tracer sees the thread:
 * they have stepped back in front of the instruction, or overwritten the first argument with the result. On such an
 * architecture arch_get_registers() undoes this, and arch_set_registers() does it again.
 */
struct arch_call {
	long number;
	long result;
	uint64_t arguments[6];
};

/*
 * arch_types.h has these three sizes:
 *	ARCH_CALL_SIZE         bytes of a system call instruction
 *	ARCH_CODE_BEFORE_CALL  bytes before one: the instruction that loads the number of the call is among them
 *	ARCH_RED_ZONE          bytes below the stack pointer that belong to the program
 */

void arch_get_call(const struct arch_registers *registers, struct arch_call *call);
/* Sets number and result, as if the thread had been in that call. With -1 no call is restarted: the result stays. */
void arch_set_call(struct arch_registers *registers, long number, long result);
/* The number of the call that the thread makes if a system call instruction is next. */
long arch_next_call(const struct arch_registers *registers);
/* Steps back in front of the call instruction, with number and arguments of `call`. The thread is in no call then. */
void arch_make_again(struct arch_registers *registers, const struct arch_call *call);
bool arch_is_call_instruction(const unsigned char code[ARCH_CALL_SIZE]);
/* The last number of a call that an instruction in `code` loads and that `accepts` says true for; -1: none. */
long arch_loaded_number(const unsigned char code[ARCH_CODE_BEFORE_CALL], bool (*accepts)(long number));

#endif
