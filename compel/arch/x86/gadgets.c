/*
 * gadgets.c - which bytes of x86-64 code bring a thread in and home. They need not be meant as instructions.
 *
 *	0f 05 c3                           syscall; ret
 *	58 c3                              pop %rax; ret
 *	[48 c7 c0 | b8] 0f 00 00 00 0f 05  mov $15,%eax; syscall: rt_sigreturn
 *
 * The first two are enough: the number of rt_sigreturn can be popped from the stack.
 */
#include <sys/syscall.h>
#include "../../internal.h"

const struct gadget_code arch_gadget_codes[] = {
	{ GADGET_SYSCALL_RETURN, 3, { 0x0f, 0x05, 0xc3 } },
	{ GADGET_POP_RETURN, 2, { 0x58, 0xc3 } },
	{ GADGET_SIGRETURN, 7, { 0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05 } },
	{ GADGET_SIGRETURN, 9, { 0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05 } },
};
const size_t arch_gadget_code_count = array_size(arch_gadget_codes);
const unsigned arch_gadgets_wanted = 1 << GADGET_SYSCALL_RETURN | 1 << GADGET_POP_RETURN;

const struct gadget_loan arch_gadget_loan = {
	12,
	{ 0x0f, 0x05, 0xc3, 0x58, 0xc3, 0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05 },
	{ [GADGET_SYSCALL_RETURN] = 0, [GADGET_POP_RETURN] = 3, [GADGET_SIGRETURN] = 5 },
};

/* munmap() takes the two arguments that mmap() left in their registers. */
size_t arch_unmap_chain(uint64_t chain[ARCH_CHAIN_WORDS], const struct gadgets *gadgets)
{
	if (!gadgets->at[GADGET_POP_RETURN])
		return 0;
	chain[0] = gadgets->at[GADGET_POP_RETURN];
	chain[1] = SYS_munmap;
	chain[2] = gadgets->at[GADGET_SYSCALL_RETURN];
	return 3;
}
