/*
 * jump.c - leaves C for good: used once, to enter the restorer.
 */
#include "arch/arch.h"

void arch_jump(uint64_t address, uint64_t stack)
{
	__asm__ volatile("mov %1, %%rsp\n\tjmp *%0" : : "r"(address), "r"(stack) : "memory");
	__builtin_unreachable();
}
