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

uint64_t arch_stack_pointer(const struct arch_registers *registers);
/* Where thread-local storage is. */
uint64_t arch_thread_pointer(const struct arch_registers *registers);
/* What the system call that has just ended returned. */
long arch_call_result(const struct arch_registers *registers);
/* The ABI of the code that the thread runs, and what people call an ABI. */
enum call_abi arch_call_abi(const struct arch_registers *registers);
const char *arch_abi_name(enum call_abi abi);
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
 * Words that lie in front of a way home while the thread makes mmap() with GADGET_SYSCALL_RETURN: they unmap what it has mapped. Returns
 * how many they are; 0: not possible with these gadgets.
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

/* ---- settle.c, reenter.c; see also trace_settle_context() and trace_reenter_call() ---- */

/*
 * Called when a thread has just been parked: does what the kernel would do anyway, and undoes what the interrupt did.
 */
int settle_arrival(struct traced_thread *thread) must_check;
/* Before it is interrupted: is it in a call that ends without telling its remaining time, and since when? */
void settle_look_asleep(struct traced_thread *thread);

#endif
