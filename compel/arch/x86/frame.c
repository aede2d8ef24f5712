/*
 * frame.c - builds the signal frame that brings a thread back to where it was. No signal delivers it.
 *
 * rt_sigreturn takes all registers, the signal mask and the FPU state from the frame. On x86-64 the frame is at rsp - 8
 * when the system call is made, because `ret` has just popped its first word: the address of the gadget itself:
 *
 *	entry ─▶ sigreturn | ucontext … | siginfo | (to 64) XSAVE, its magic behind it | red zone | the thread's rsp
 *	or       pop_return | 15 | syscall_return | ucontext …
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/memory.h"
#include "../../internal.h"
#include "machine.h"

#define UC_FP_XSTATE	     1
#define UC_SIGCONTEXT_SS     2
#define UC_STRICT_RESTORE_SS 4
#define INVALID_ALTSTACK \
	7 /* invalid for do_sigaltstack(), whose error rt_sigreturn ignores: the stack stays as it is */

/* As in the kernel's asm/ucontext.h; that of glibc is longer. */
struct kernel_ucontext {
	uint64_t flags, link;
	stack_t stack;
	struct sigcontext machine;
	uint64_t signal_mask;
};

struct signal_frame {
	uint64_t return_address;
	struct kernel_ucontext context;
	char siginfo[128];
};

/* The bytes in use, up to the last component that is not in its initial state; *features: the components that fit. */
static size_t extended_in_use(const struct thread_context *context, uint64_t *features)
{
	uint64_t in_use = *(uint64_t *)((char *)context->extended + XSAVE_IN_USE);
	uint64_t supported = *(uint64_t *)((char *)context->extended + XSAVE_SUPPORTED);
	size_t total = XSAVE_LEGACY;

	*features = supported & 3;
	for (unsigned bit = 2; bit < XSAVE_COMPONENTS; bit++) {
		const struct xsave_component *component = xsave_component(bit);

		if (!(in_use & supported & 1ULL << bit) || !component->size)
			continue;
		total = max(total, (size_t)component->offset + component->size);
		*features |= 1ULL << bit;
	}
	return min(total, context->extended_size);
}

static void fill_registers(struct sigcontext *to, const struct user_regs_struct *from)
{
	to->r8 = from->r8, to->r9 = from->r9, to->r10 = from->r10, to->r11 = from->r11;
	to->r12 = from->r12, to->r13 = from->r13, to->r14 = from->r14, to->r15 = from->r15;
	to->rdi = from->rdi, to->rsi = from->rsi, to->rbp = from->rbp, to->rbx = from->rbx;
	to->rdx = from->rdx, to->rax = from->rax, to->rcx = from->rcx, to->rsp = from->rsp;
	to->rip = from->rip, to->eflags = from->eflags;
	to->cs = (uint16_t)from->cs, to->__pad0 = (uint16_t)from->ss /* ss */;
	to->gs = to->fs = 0;
}

static void fill_extended(char *to, const struct thread_context *context, size_t size, uint64_t features)
{
	struct _fpx_sw_bytes words = { .magic1 = FP_XSTATE_MAGIC1,
				       .extended_size = (uint32_t)size + FP_XSTATE_MAGIC2_SIZE,
				       .xstate_bv = features,
				       .xstate_size = (uint32_t)size };
	uint32_t magic = FP_XSTATE_MAGIC2;

	memcpy(to, context->extended, size);
	memcpy(to + XSAVE_SUPPORTED, &words, sizeof(words));
	memcpy(to + size, &magic, sizeof(magic));
}

static void fill_frame(struct signal_frame *frame, const struct user_regs_struct *registers, uint64_t mask,
		       uint64_t extended)
{
	frame->context.flags = UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS;
	frame->context.stack.ss_flags = INVALID_ALTSTACK;
	fill_registers(&frame->context.machine, registers);
	frame->context.machine.__fpstate_word = extended;
	frame->context.signal_mask = mask;
}

/* The number of words before the first word of a frame, which lead into it. */
static size_t count_words(const struct gadgets *gadgets)
{
	return gadgets->at[GADGET_SIGRETURN] ? 0 : 2;
}

static void fill_words(char *to, const struct gadgets *gadgets)
{
	uint64_t words[] = { gadgets->at[GADGET_POP_RETURN], 15, gadgets->at[GADGET_SYSCALL_RETURN] };

	if (gadgets->at[GADGET_SIGRETURN])
		words[0] = gadgets->at[GADGET_SIGRETURN];
	memcpy(to, words, (count_words(gadgets) + 1) * sizeof(*words));
}

int frame_build(struct return_frame *frame, struct traced_thread *thread, const struct gadgets *gadgets)
{
	struct thread_context context = thread->context; /* `extended` is only read */
	int result = trace_settle_context(thread, &context);
	uint64_t features, start;
	size_t first = count_words(gadgets), size;

	if (result < 0)
		return result;
	size = extended_in_use(&context, &features);
	frame->extended =
		round_down(context.registers.user.rsp - ARCH_RED_ZONE - size - FP_XSTATE_MAGIC2_SIZE, 64UL);
	start = round_down(frame->extended - sizeof(struct signal_frame), 16UL);
	frame->entry = start - first * sizeof(uint64_t);
	frame->size = frame->extended + size + FP_XSTATE_MAGIC2_SIZE - frame->entry;
	frame->bytes = allocate(frame->size);
	fill_frame((struct signal_frame *)(frame->bytes + first * sizeof(uint64_t)), &context.registers.user,
		   context.signal_mask, frame->extended);
	fill_extended(frame->bytes + (frame->extended - frame->entry), &context, size, features);
	fill_words(frame->bytes, gadgets);
	return 0;
}

/*
 * The frame of a call is directly below what comes next, whose entry is on top of the stack when the call returns. It
 * has the FPU state of the last frame: without any, the kernel would reset the rights of protection keys to its
 * default, and the stack may have a key.
 */
void frame_add_call(struct return_frame *frame, const struct traced_thread *thread,
		    const struct gadgets *gadgets, const struct remote_call *call)
{
	size_t first = count_words(gadgets);
	uint64_t start = round_down(frame->entry - sizeof(struct signal_frame), 16UL);
	struct return_frame added = { .entry = start - first * sizeof(uint64_t),
				      .extended = frame->extended };
	struct arch_registers registers = thread->context.registers;
	struct signal_frame *signal_frame;

	arch_prepare_call(&registers, gadgets->at[GADGET_SYSCALL_RETURN], frame->entry, call->number,
			  call->arguments);
	added.size = frame->entry - added.entry + frame->size;
	added.bytes = allocate(added.size);
	signal_frame = (struct signal_frame *)(added.bytes + first * sizeof(uint64_t));
	fill_frame(signal_frame, &registers.user, ALL_SIGNALS, frame->extended);
	fill_words(added.bytes, gadgets);
	memcpy(added.bytes + (frame->entry - added.entry), frame->bytes, frame->size);
	free(frame->bytes);
	*frame = added;
}
