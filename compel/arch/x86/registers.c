/*
 * registers.c - the registers of a thread on x86-64: read and set by ptrace, and prepared for a thread that is sent
 * somewhere.
 */
#include <cpuid.h>
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include "../../internal.h"
#include "base/memory.h"
#include "machine.h"

#define XSAVE_LARGEST (64 * 1024)
#define CS_64_BIT     0x33
#define X32_CALL      0x40000000L
#define FLAGS	      0x202 /* interrupts are on; above all no single step */

uint64_t arch_task_size(void)
{
	return 0x7ffffffff000; /* 47 bits less a page; what lies above needs an explicit hint to mmap() */
}

/* ---- by ptrace ---- */

int arch_get_registers(pid_t tid, struct arch_registers *registers)
{
	struct iovec piece = { registers, sizeof(*registers) };

	return ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &piece) < 0 ? -errno : 0;
}

int arch_set_registers(pid_t tid, const struct arch_registers *registers)
{
	struct iovec piece = { (void *)registers, sizeof(*registers) };

	return ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, &piece) < 0 ? -errno : 0;
}

/* An XSAVE area in the standard format. */
int arch_get_extended(pid_t tid, struct thread_context *context)
{
	autofree void *buffer = malloc(XSAVE_LARGEST); /* not zeroed: the kernel says how much it wrote */
	struct iovec piece = { buffer, XSAVE_LARGEST };

	if (!buffer || ptrace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &piece) < 0)
		return buffer ? -errno : -ENOMEM;
	context->extended = copy_bytes(buffer, piece.iov_len);
	context->extended_size = piece.iov_len;
	return 0;
}

int arch_set_extended(pid_t tid, const struct thread_context *context)
{
	struct iovec piece = { context->extended, context->extended_size };

	return ptrace(PTRACE_SETREGSET, tid, NT_X86_XSTATE, &piece) < 0 ? -errno : 0;
}

/* ---- what they say ---- */

uint64_t arch_stack_pointer(const struct arch_registers *registers)
{
	return registers->user.rsp;
}

uint64_t arch_thread_pointer(const struct arch_registers *registers)
{
	return registers->user.fs_base;
}

long arch_call_result(const struct arch_registers *registers)
{
	return (long)registers->user.rax;
}

enum call_abi arch_call_abi(const struct arch_registers *registers)
{
	if ((long)registers->user.orig_rax > 0 && registers->user.orig_rax & X32_CALL)
		return CALL_ABI_32_ON_64;
	return registers->user.cs == CS_64_BIT ? CALL_ABI_64 : CALL_ABI_32;
}

const char *arch_abi_name(enum call_abi abi)
{
	static const char *const names[] = {
		[CALL_ABI_64] = "64-bit", [CALL_ABI_32] = "32-bit", [CALL_ABI_32_ON_64] = "x32"
	};

	return names[abi];
}

#define PKRU_BIT      9
#define PKRU_KEY_ZERO 3 /* access, writing */

bool arch_denies_data(const struct thread_context *context)
{
	const char *area = context->extended;
	unsigned size, offset, c, d;
	uint32_t pkru = 0;

	if (!area || context->extended_size < XSAVE_LEGACY ||
	    !(*(const uint64_t *)(area + XSAVE_IN_USE) & 1 << PKRU_BIT) ||
	    !__get_cpuid_count(0xd, PKRU_BIT, &size, &offset, &c, &d) ||
	    offset + sizeof(pkru) > context->extended_size)
		return false;
	memcpy(&pkru, area + offset, sizeof(pkru));
	return pkru & PKRU_KEY_ZERO;
}

/* ---- for a thread that is sent somewhere ---- */

void arch_prepare_jump(struct arch_registers *registers, uint64_t ip, uint64_t sp)
{
	registers->user.orig_rax = NO_CALL;
	registers->user.rip = ip;
	registers->user.rsp = sp;
	registers->user.eflags = FLAGS;
}

void arch_prepare_call(struct arch_registers *registers, uint64_t ip, uint64_t sp, long number,
		       const uint64_t arguments[6])
{
	registers->user.rax = (uint64_t)number;
	registers->user.rdi = arguments[0];
	registers->user.rsi = arguments[1];
	registers->user.rdx = arguments[2];
	registers->user.r10 = arguments[3];
	registers->user.r8 = arguments[4];
	registers->user.r9 = arguments[5];
	arch_prepare_jump(registers, ip, sp);
}

void arch_prepare_work(struct arch_registers *registers, uint64_t ip, uint64_t sp, uint64_t desk)
{
	registers->user.rbx = desk;
	arch_prepare_jump(registers, ip, sp);
}

/* At the `ret` behind the `syscall`: the first word of a way home is where to return to. */
void arch_prepare_home(struct arch_registers *registers, const struct gadgets *gadgets, uint64_t entry)
{
	arch_prepare_jump(registers, gadgets->at[GADGET_SYSCALL_RETURN] + SYSCALL_SIZE, entry);
}
