/*
 * peek.c - a BPF program reads the kernel's memory. See peek.h.
 *
 * The program is attached to nothing: BPF_PROG_TEST_RUN (for this type of program since Linux 5.10) runs it once, in
 * this thread, with two numbers, an address and a size. bpf_probe_read_kernel() survives any address; it copies into
 * an array of one element, which is mapped here. For address 0 the program stores the address of this thread instead.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/bpf_code.h"
#include "kernel/peek.h"

#define MOST_SPAN 2048 /* bytes between the first and the last member of a struct that are read together */

static int cannot_peek(const char *what)
{
	int error = errno;

	fail_advice("root's capabilities CAP_BPF and CAP_PERFMON, outside of user namespaces");
	return fail(error, "cannot read the kernel's memory: %s", what);
}

static int make_window(struct peek *peek)
{
	union bpf_attr map = { .map_type = BPF_MAP_TYPE_ARRAY,
			       .key_size = sizeof(uint32_t),
			       .value_size = PEEK_MOST + 1,
			       .max_entries = 1,
			       .map_flags = BPF_F_MMAPABLE };

	peek->map = bpf_call(BPF_MAP_CREATE, &map);
	if (peek->map < 0)
		return cannot_peek("BPF_MAP_CREATE");
	peek->window = mmap(NULL, PEEK_MOST + 1, PROT_READ | PROT_WRITE, MAP_SHARED, peek->map, 0);
	if (peek->window == MAP_FAILED) {
		peek->window = NULL;
		return cannot_peek("mmap");
	}
	return 0;
}

/* The kernel lets only programs under the GPL, as criu is, read its memory. Returns a descriptor. */
static int load_code(const struct bpf_insn *code, uint32_t length)
{
	union bpf_attr program = { .prog_type = BPF_PROG_TYPE_RAW_TRACEPOINT,
				   .insns = (uintptr_t)code,
				   .insn_cnt = length,
				   .license = (uintptr_t) "GPL" };
	int fd = bpf_load(&program);

	if (fd < 0 && errno == EINVAL)
		return cannot_peek(
			"it accepts no such program (is it locked down: lockdown=confidentiality?)");
	return fd < 0 ? cannot_peek("BPF_PROG_LOAD") : fd;
}

static int load_program(struct peek *peek)
{
	const struct bpf_insn code[] = {
		INSTRUCTION(BPF_LDX | BPF_MEM | BPF_DW, BPF_REG_3, BPF_REG_1, 0, 0), /* the address */
		INSTRUCTION(BPF_LDX | BPF_MEM | BPF_DW, BPF_REG_2, BPF_REG_1, 8, 0), /* the size */
		INSTRUCTION(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_3, 0, 6, 0),
		CALL(BPF_FUNC_get_current_task),
		POINT_TO_WINDOW(BPF_REG_1, peek->map),
		INSTRUCTION(BPF_STX | BPF_MEM | BPF_DW, BPF_REG_1, BPF_REG_0, 0, 0),
		INSTRUCTION(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 0),
		INSTRUCTION(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
		POINT_TO_WINDOW(BPF_REG_1, peek->map),
		INSTRUCTION(BPF_ALU64 | BPF_AND | BPF_K, BPF_REG_2, 0, 0, PEEK_MOST),
		CALL(BPF_FUNC_probe_read_kernel),
		INSTRUCTION(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};

	peek->program = load_code(code, array_size(code));
	return min(peek->program, 0);
}

static int run_program(int program, uint64_t address, uint32_t size)
{
	uint64_t numbers[] = { address, size };
	union bpf_attr run = { .test = { .prog_fd = (uint32_t)program,
					 .ctx_in = (uintptr_t)numbers,
					 .ctx_size_in = sizeof(numbers) } };

	return bpf_call(BPF_PROG_TEST_RUN, &run) < 0 ? -errno : (int)run.test.retval;
}

int peek_open(struct peek *peek)
{
	*peek = (struct peek){ .program = -1, .map = -1, .cpu_program = -1 };
	return make_window(peek) ?: load_program(peek);
}

void peek_close(struct peek *peek)
{
	if (peek->window)
		munmap(peek->window, PEEK_MOST + 1);
	autoclose_clean(&peek->program);
	autoclose_clean(&peek->map);
	autoclose_clean(&peek->cpu_program);
	*peek = (struct peek){ .program = -1, .map = -1, .cpu_program = -1 };
}

int peek_read(const struct peek *peek, uint64_t address, void *buffer, uint32_t size)
{
	int result = address && size <= PEEK_MOST ? run_program(peek->program, address, size) : -EFAULT;

	if (!result)
		memcpy(buffer, peek->window, size);
	return result;
}

int peek_read_members(const struct peek *peek, uint64_t struct_at, const uint32_t *offsets,
		      const struct peek_member *members, size_t count)
{
	uint32_t start = UINT32_MAX, end = 0;
	char span[MOST_SPAN];
	int result;

	for (size_t i = 0; i < count; i++) {
		start = min(start, offsets[members[i].place]);
		end = max(end, offsets[members[i].place] + members[i].size);
	}
	if (!struct_at || end - start > sizeof(span))
		return -EFAULT;
	result = peek_read(peek, struct_at + start, span, end - start);
	for (size_t i = 0; !result && i < count; i++)
		memcpy(members[i].value, span + offsets[members[i].place] - start, members[i].size);
	return result;
}

uint64_t peek_self(const struct peek *peek)
{
	uint64_t self = 0;

	if (!run_program(peek->program, 0, 0))
		memcpy(&self, peek->window, sizeof(self));
	return self;
}

int peek_prepare_cpus(struct peek *peek, uint32_t variable)
{
	const struct bpf_insn code[] = {
		INSTRUCTION(BPF_LDX | BPF_MEM | BPF_DW, BPF_REG_2, BPF_REG_1, 0, 0), /* the CPU */
		INSTRUCTION(BPF_LD | BPF_IMM | BPF_DW, BPF_REG_1, BPF_PSEUDO_BTF_ID, 0, (int)variable),
		INSTRUCTION(0, 0, 0, 0, 0),
		CALL(BPF_FUNC_per_cpu_ptr),
		INSTRUCTION(BPF_JMP | BPF_JNE | BPF_K, BPF_REG_0, 0, 2, 0),
		INSTRUCTION(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, -ENXIO),
		INSTRUCTION(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
		INSTRUCTION(BPF_LDX | BPF_MEM | BPF_DW, BPF_REG_6, BPF_REG_0, 0, 0),
		POINT_TO_WINDOW(BPF_REG_1, peek->map),
		INSTRUCTION(BPF_STX | BPF_MEM | BPF_DW, BPF_REG_1, BPF_REG_6, 0, 0),
		INSTRUCTION(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 0),
		INSTRUCTION(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};

	peek->cpu_program = load_code(code, array_size(code));
	return min(peek->cpu_program, 0);
}

int peek_cpu(const struct peek *peek, unsigned cpu, uint64_t *distance)
{
	int result = run_program(peek->cpu_program, cpu, 0);

	if (!result)
		memcpy(distance, peek->window, sizeof(*distance));
	return result;
}
