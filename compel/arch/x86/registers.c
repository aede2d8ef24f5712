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
#define XSAVE_LEAF    0xd /* of CPUID */
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

uint64_t arch_instruction_pointer(const struct arch_registers *registers)
{
	return registers->user.rip;
}

void arch_set_instruction_pointer(struct arch_registers *registers, uint64_t ip)
{
	registers->user.rip = ip;
}

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

static struct {
	uint64_t known; /* bits of the components that the CPU was asked for */
	unsigned most;	/* the last leaf of CPUID; 0: not asked */
	struct xsave_component components[XSAVE_COMPONENTS];
} machine;

const struct xsave_component *xsave_component(unsigned bit)
{
	struct xsave_component *component = &machine.components[bit];
	unsigned c, d;

	if (machine.known >> bit & 1)
		return component;
	if (!machine.most)
		machine.most = __get_cpuid_max(0, NULL);
	if (machine.most >= XSAVE_LEAF)
		__cpuid_count(XSAVE_LEAF, bit, component->size, component->offset, c, d);
	machine.known |= 1ULL << bit;
	return component;
}

/* Those that the kernel has enabled. */
void arch_look_ahead(void)
{
	unsigned a, b, c, d, enabled;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
		return;
	__asm__ volatile("xgetbv" : "=a"(enabled), "=d"(d) : "c"(0));
	for (unsigned bit = 2; bit < 32; bit++)
		if (enabled >> bit & 1)
			xsave_component(bit);
}

#define PKRU_BIT      9
#define PKRU_KEY_ZERO 3 /* access, writing */

bool arch_denies_data(const struct thread_context *context)
{
	const struct xsave_component *rights = xsave_component(PKRU_BIT);
	const char *area = context->extended;
	uint32_t pkru = 0;

	if (!area || context->extended_size < XSAVE_LEGACY ||
	    !(*(const uint64_t *)(area + XSAVE_IN_USE) & 1 << PKRU_BIT) || !rights->size ||
	    rights->offset + sizeof(pkru) > context->extended_size)
		return false;
	memcpy(&pkru, area + rights->offset, sizeof(pkru));
	return pkru & PKRU_KEY_ZERO;
}

/* ---- a call that was interrupted ---- */

void arch_get_call(const struct arch_registers *registers, struct arch_call *call)
{
	const struct user_regs_struct *user = &registers->user;

	*call = (struct arch_call){
		.number = (long)user->orig_rax < 0 ? -1 : (long)user->orig_rax,
		.result = (long)user->rax,
		.arguments = { user->rdi, user->rsi, user->rdx, user->r10, user->r8, user->r9 },
	};
}

void arch_set_call(struct arch_registers *registers, long number, long result)
{
	registers->user.orig_rax = number < 0 ? NO_CALL : (uint64_t)number;
	registers->user.rax = (uint64_t)result;
}

long arch_next_call(const struct arch_registers *registers)
{
	return (long)registers->user.rax;
}

static void set_arguments(struct user_regs_struct *user, const uint64_t arguments[6])
{
	user->rdi = arguments[0];
	user->rsi = arguments[1];
	user->rdx = arguments[2];
	user->r10 = arguments[3];
	user->r8 = arguments[4];
	user->r9 = arguments[5];
}

void arch_make_again(struct arch_registers *registers, const struct arch_call *call)
{
	set_arguments(&registers->user, call->arguments);
	registers->user.rax = (uint64_t)call->number;
	registers->user.rip -= ARCH_CALL_SIZE;
	registers->user.orig_rax = NO_CALL;
}

bool arch_is_call_instruction(const unsigned char code[ARCH_CALL_SIZE])
{
	return code[0] == 0x0f && code[1] == 0x05;
}

/* mov $NUMBER,%eax: b8 NUMBER, or 48 c7 c0 NUMBER */
long arch_loaded_number(const unsigned char code[ARCH_CODE_BEFORE_CALL], bool (*accepts)(long number))
{
	int32_t number;

	for (size_t at = ARCH_CODE_BEFORE_CALL - sizeof(number) + 1; at-- > 1;) {
		memcpy(&number, code + at, sizeof(number));
		if ((code[at - 1] == 0xb8 || code[at - 1] == 0xc0) && accepts(number))
			return number;
	}
	return -1;
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
	set_arguments(&registers->user, arguments);
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
	arch_prepare_jump(registers, gadgets->at[GADGET_SYSCALL_RETURN] + ARCH_CALL_SIZE, entry);
}
