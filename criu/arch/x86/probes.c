/*
 * probes.c - what the probes need of x86-64: a breakpoint, and a vdso at a given address. They run in a child; see
 * kernel/probe.h.
 */
#include <asm/prctl.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <unistd.h>
#include "kernel/probe_tests.h"

/* The debug registers: 0 holds the address, bit 0 of 7 switches it on. */
bool probe_set_breakpoint(pid_t child, void (*code)(void))
{
	return ptrace(PTRACE_POKEUSER, child, offsetof(struct user, u_debugreg[0]), code) == 0 &&
	       ptrace(PTRACE_POKEUSER, child, offsetof(struct user, u_debugreg[7]), 1) == 0;
}

bool probe_place_vdso(int bits, void *address)
{
	return syscall(SYS_arch_prctl, bits == 32 ? ARCH_MAP_VDSO_32 : ARCH_MAP_VDSO_64, address) > 0;
}
