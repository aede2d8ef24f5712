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

static const struct {
	const char *name;
	int number;
} plain_calls[] = {
	{ "clock_gettime", SYS_clock_gettime },
	{ "clock_getres", SYS_clock_getres },
	{ "gettimeofday", SYS_gettimeofday },
	{ "time", SYS_time },
	{ "getcpu", SYS_getcpu },
};

/* mov $number,%eax; syscall; ret */
static size_t put_call(unsigned char *code, int number)
{
	static const unsigned char call[] = { 0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0xc3 };

	memcpy(code, call, sizeof(call));
	memcpy(code + 1, &number, sizeof(number));
	return sizeof(call);
}

size_t arch_vdso_code(unsigned char code[ARCH_VDSO_CODE], const char *name, uint64_t target)
{
	/* movabs $target,%rax; jmp *%rax */
	static const unsigned char jump[] = { 0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0 };
	/* mov $-ENOSYS,%rax; ret */
	static const unsigned char no_such_call[] = { 0x48, 0xc7, 0xc0, 0xda, 0xff, 0xff, 0xff, 0xc3 };
	/* cmp $-1,%r8; je to what follows the call: there is no layout to report when the caller asks for it */
	static const unsigned char unless_asked[] = { 0x49, 0x83, 0xf8, 0xff, 0x74, 0x08 };

	/* The program owns the state that getrandom works on, in the layout of the other kernel's code. */
	if (!strcmp(name, "getrandom")) {
		size_t size = sizeof(unless_asked);

		memcpy(code, unless_asked, size);
		size += put_call(code + size, SYS_getrandom);
		memcpy(code + size, no_such_call, sizeof(no_such_call));
		return size + sizeof(no_such_call);
	}
	if (target) {
		memcpy(code, jump, sizeof(jump));
		memcpy(code + 2, &target, sizeof(target));
		return sizeof(jump);
	}
	for (size_t i = 0; i < array_size(plain_calls); i++)
		if (!strcmp(name, plain_calls[i].name))
			return put_call(code, plain_calls[i].number);
	memcpy(code, no_such_call, sizeof(no_such_call));
	return sizeof(no_such_call);
}

uint64_t arch_instruction(const CoreEntry *core)
{
	return core->thread_info->gpregs->ip;
}
