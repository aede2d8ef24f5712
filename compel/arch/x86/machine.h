/*
 * machine.h - what the files of compel/arch/x86 know of the CPU and of the kernel's view of it.
 */
#ifndef COMPEL_X86_MACHINE_H
#define COMPEL_X86_MACHINE_H

#define NO_CALL ~0UL /* in orig_rax: the thread is in no system call, and none is restarted */

/* An XSAVE area begins with the x87 and SSE registers; then comes the header that says what follows. */
#define XSAVE_SUPPORTED \
	464 /* bytes for software: XCR0 in what ptrace returns, _fpx_sw_bytes in a signal frame */
#define XSAVE_IN_USE 512 /* XSTATE_BV: the components that are not in their initial state */
#define XSAVE_LEGACY 576

#define XSAVE_COMPONENTS 63

/* Where a component is in the standard format; size 0: this CPU does not have it. */
struct xsave_component {
	unsigned offset, size;
};

/* Asks the CPU the first time only: under a hypervisor CPUID takes 20 us. */
const struct xsave_component *xsave_component(unsigned bit);

#endif
