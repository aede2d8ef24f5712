/*
 * vdso.c - the code that replaces the functions of a vdso that another kernel made.
 *
 * All code fits into 16 bytes, the alignment of the functions, except for getrandom, which is a long function. rax is
 * free at the entry of each.
 */
#include <string.h>
#include <sys/syscall.h>
#include "arch/arch.h"
#include "compiler.h"

/* movabs $target,%rax; jmp *%rax */
size_t arch_vdso_jump(unsigned char code[ARCH_VDSO_CODE], uint64_t target)
{
	static const unsigned char jump[] = { 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0 };

	memcpy(code, jump, sizeof(jump));
	memcpy(code + 2, &target, sizeof(target));
	return sizeof(jump);
}

/* mov $number,%eax; syscall; ret */
static size_t put_call(unsigned char *code, int number)
{
	static const unsigned char call[] = { 0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0xc3 };

	memcpy(code, call, sizeof(call));
	memcpy(code + 1, &number, sizeof(number));
	return sizeof(call);
}

size_t arch_vdso_call(unsigned char code[ARCH_VDSO_CODE], long number)
{
	return put_call(code, (int)number);
}

/* mov $-ENOSYS,%rax; ret */
static size_t put_refusal(unsigned char *code)
{
	static const unsigned char no_such_call[] = { 0x48, 0xc7, 0xc0, 0xda, 0xff, 0xff, 0xff, 0xc3 };

	memcpy(code, no_such_call, sizeof(no_such_call));
	return sizeof(no_such_call);
}

size_t arch_vdso_refuse(unsigned char code[ARCH_VDSO_CODE])
{
	return put_refusal(code);
}

size_t arch_vdso_getrandom(unsigned char code[ARCH_VDSO_CODE])
{
	/* cmp $-1,%r8; je to what follows the call */
	static const unsigned char unless_asked[] = { 0x49, 0x83, 0xf8, 0xff, 0x74, 0x08 };
	size_t size = sizeof(unless_asked);

	memcpy(code, unless_asked, size);
	size += put_call(code + size, SYS_getrandom);
	return size + put_refusal(code + size);
}

uint64_t arch_instruction(const CoreEntry *core)
{
	return core->thread_info->gpregs->ip;
}
