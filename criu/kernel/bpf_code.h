/*
 * bpf_code.h - BPF programs as arrays of instructions: each has a few, so no compiler is needed for them.
 */
#ifndef CRIU_KERNEL_BPF_CODE_H
#define CRIU_KERNEL_BPF_CODE_H

#include <errno.h>
#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#define INSTRUCTION(code, to, from, offset, number)      \
	{                                                \
		(code), (to), (from), (offset), (number) \
	}
#define CALL(function)		     INSTRUCTION(BPF_JMP | BPF_CALL, 0, 0, 0, (function))
#define LOAD(size, to, from, offset) INSTRUCTION(BPF_LDX | BPF_MEM | (size), (to), (from), (offset), 0)
#define COPY(to, from)		     INSTRUCTION(BPF_ALU64 | BPF_MOV | BPF_X, (to), (from), 0, 0)
#define SET(to, number)		     INSTRUCTION(BPF_ALU64 | BPF_MOV | BPF_K, (to), 0, 0, (number))
#define ADD(to, number)		     INSTRUCTION(BPF_ALU64 | BPF_ADD | BPF_K, (to), 0, 0, (number))
#define POINT_TO_WINDOW(to, map)                                                      \
	INSTRUCTION(BPF_LD | BPF_IMM | BPF_DW, (to), BPF_PSEUDO_MAP_VALUE, 0, (map)), \
		INSTRUCTION(0, 0, 0, 0, 0)

static inline int bpf_call(int command, union bpf_attr *arguments)
{
	return (int)syscall(SYS_bpf, command, arguments, sizeof(*arguments));
}

/*
 * Returns a descriptor. The kernel gives up (EAGAIN) if it wants the thread to do something else meanwhile: once in the
 * 30 ms after the thread has closed an io_uring.
 */
static inline int bpf_load(union bpf_attr *program)
{
	int fd = -1;

	for (int i = 0; i < 10 && fd < 0 && (!i || errno == EAGAIN); i++)
		fd = bpf_call(BPF_PROG_LOAD, program);
	return fd;
}

#endif
