/*
 * file_lister.c - lists descriptors by a BPF iterator. See file_lister.h.
 *
 * The kernel runs a program for each descriptor of a task (the iterator "task_file"; for one chosen task since Linux
 * 6.1), and what the program writes is read from a descriptor, like a file of /proc. The type information tells where
 * members are. bpf_probe_read_kernel() survives any address, and stores zeros if there is nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/bpf_code.h"
#include "kernel/btf.h"
#include "kernel/file_lister.h"

struct file_lister {
	int program;
};

/* What the program writes for a descriptor. */
struct record {
	uint64_t file;
	int64_t position;
	uint64_t locks;	 /* of the inode; 0: there has never been one */
	uint64_t owner;	 /* 0: none */
	uint64_t lines;	 /* the function that writes them into fdinfo; 0: none */
	uint64_t closes; /* the part of the bitmap that has the bit of this descriptor */
	uint32_t fd, flags, mount, signal;
};

/* Where a step of the program keeps an address on its stack, below the record. */
#define RECORD	   (-(int)sizeof(struct record))
#define SCRATCH	   (RECORD - 8)
#define AT(member) (RECORD + (int)offsetof(struct record, member))

enum place {
	POSITION,
	FLAGS,
	INODE,
	LOCKS,
	OPERATIONS,
	LINES,
	VFSMOUNT,
	MOUNT,
	MOUNT_ID,
	FILES,
	TABLE,
	CLOSES,
	OWNER,
	PLACES
};

static const struct kernel_member places[PLACES] = {
	[POSITION] = { "file", "f_pos" },      [FLAGS] = { "file", "f_flags" },
	[INODE] = { "file", "f_inode" },       [LOCKS] = { "inode", "i_flctx" },
	[OPERATIONS] = { "file", "f_op" },     [LINES] = { "file_operations", "show_fdinfo" },
	[VFSMOUNT] = { "file", "f_path.mnt" }, [MOUNT] = { "mount", "mnt" },
	[MOUNT_ID] = { "mount", "mnt_id" },    [FILES] = { "task_struct", "files" },
	[TABLE] = { "files_struct", "fdt" },   [CLOSES] = { "fdtable", "close_on_exec" },
	[OWNER] = { "file", "f_owner" },
};

/* ---- the program ---- */

struct code {
	struct bpf_insn items[192];
	size_t count;
};

static void add(struct code *code, struct bpf_insn instruction)
{
	if (code->count < array_size(code->items))
		code->items[code->count] = instruction;
	code->count++;
}

#define ADD_CODE(code, ...) add((code), (struct bpf_insn)__VA_ARGS__)

/* Copies what BPF_REG_3 points to. */
static void add_copy(struct code *code, int to, int size)
{
	ADD_CODE(code, COPY(BPF_REG_1, BPF_REG_10));
	ADD_CODE(code, ADD(BPF_REG_1, to));
	ADD_CODE(code, SET(BPF_REG_2, size));
	ADD_CODE(code, CALL(BPF_FUNC_probe_read_kernel));
}

/* Copies a member of a struct of the kernel, whose address is in a register. */
static void add_member(struct code *code, int base, uint32_t offset, int to, int size)
{
	ADD_CODE(code, COPY(BPF_REG_3, base));
	ADD_CODE(code, ADD(BPF_REG_3, (int)offset));
	add_copy(code, to, size);
}

/* The same for a struct whose address is in SCRATCH. */
static void add_member_behind(struct code *code, int offset, int to, int size)
{
	ADD_CODE(code, LOAD(BPF_DW, BPF_REG_3, BPF_REG_10, SCRATCH));
	ADD_CODE(code, ADD(BPF_REG_3, offset));
	add_copy(code, to, size);
}

/* Since Linux 6.12 f_owner is a pointer, before that it is a struct. */
static void add_owner(struct code *code, const struct btf *btf, const uint32_t *offsets, int file)
{
	uint32_t pid, signal;
	const bool is_struct = btf_find_offset(btf, "file", "f_owner.pid", &pid) &&
			       btf_find_offset(btf, "file", "f_owner.signum", &signal);

	add_member(code, file, is_struct ? pid : offsets[OWNER], AT(owner), 8);
	if (is_struct)
		add_member(code, file, signal, AT(signal), 4);
	else
		ADD_CODE(code, INSTRUCTION(BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, AT(signal), 0));
}

/* Its argument: { meta: { seq }, task, fd (32 bits), file }, 8 bytes each (struct bpf_iter__task_file). */
static void make_code(struct code *code, const struct btf *btf, const uint32_t *offsets)
{
	enum { ARGUMENT = BPF_REG_6, FILE = BPF_REG_7, TASK = BPF_REG_8, FD = BPF_REG_9 };

	ADD_CODE(code, COPY(ARGUMENT, BPF_REG_1));
	ADD_CODE(code, LOAD(BPF_DW, TASK, ARGUMENT, 8));
	ADD_CODE(code, LOAD(BPF_W, FD, ARGUMENT, 16));
	ADD_CODE(code, LOAD(BPF_DW, FILE, ARGUMENT, 24));
	/* There is one more call, without a file, at the end. */
	ADD_CODE(code, INSTRUCTION(BPF_JMP | BPF_JEQ | BPF_K, FILE, 0, 1, 0));
	ADD_CODE(code, INSTRUCTION(BPF_JMP | BPF_JNE | BPF_K, TASK, 0, 2, 0));
	ADD_CODE(code, SET(BPF_REG_0, 0));
	ADD_CODE(code, INSTRUCTION(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
	ADD_CODE(code, INSTRUCTION(BPF_STX | BPF_MEM | BPF_DW, BPF_REG_10, FILE, AT(file), 0));
	ADD_CODE(code, INSTRUCTION(BPF_STX | BPF_MEM | BPF_W, BPF_REG_10, FD, AT(fd), 0));
	add_member(code, FILE, offsets[POSITION], AT(position), 8);
	add_member(code, FILE, offsets[FLAGS], AT(flags), 4);
	add_member(code, FILE, offsets[INODE], SCRATCH, 8);
	add_member_behind(code, (int)offsets[LOCKS], AT(locks), 8);
	add_member(code, FILE, offsets[OPERATIONS], SCRATCH, 8);
	add_member_behind(code, (int)offsets[LINES], AT(lines), 8);
	add_member(code, FILE, offsets[VFSMOUNT], SCRATCH, 8);
	add_member_behind(code, (int)offsets[MOUNT_ID] - (int)offsets[MOUNT], AT(mount), 4);
	add_owner(code, btf, offsets, FILE);
	add_member(code, TASK, offsets[FILES], SCRATCH, 8);
	add_member_behind(code, (int)offsets[TABLE], SCRATCH, 8);
	add_member_behind(code, (int)offsets[CLOSES], SCRATCH, 8);
	ADD_CODE(code, INSTRUCTION(BPF_ALU64 | BPF_RSH | BPF_K, FD, 0, 0, 6));
	ADD_CODE(code, INSTRUCTION(BPF_ALU64 | BPF_LSH | BPF_K, FD, 0, 0, 3));
	ADD_CODE(code, LOAD(BPF_DW, BPF_REG_3, BPF_REG_10, SCRATCH));
	ADD_CODE(code, INSTRUCTION(BPF_ALU64 | BPF_ADD | BPF_X, BPF_REG_3, FD, 0, 0));
	add_copy(code, AT(closes), 8);
	ADD_CODE(code, LOAD(BPF_DW, BPF_REG_1, ARGUMENT, 0));
	ADD_CODE(code, LOAD(BPF_DW, BPF_REG_1, BPF_REG_1, 0));
	ADD_CODE(code, COPY(BPF_REG_2, BPF_REG_10));
	ADD_CODE(code, ADD(BPF_REG_2, RECORD));
	ADD_CODE(code, SET(BPF_REG_3, sizeof(struct record)));
	ADD_CODE(code, CALL(BPF_FUNC_seq_write));
	ADD_CODE(code, SET(BPF_REG_0, 0));
	ADD_CODE(code, INSTRUCTION(BPF_JMP | BPF_EXIT, 0, 0, 0, 0));
}

static int load_program(const struct btf *btf, int *program)
{
	uint32_t offsets[PLACES];
	struct code code = { .count = 0 };
	union bpf_attr load = { .prog_type = BPF_PROG_TYPE_TRACING,
				.expected_attach_type = BPF_TRACE_ITER,
				.attach_btf_id = btf_find_function(btf, "bpf_iter_task_file"),
				.license = (uintptr_t) "GPL" };
	int result = btf_find_members(btf, places, PLACES, offsets, "files");

	if (result)
		return result;
	make_code(&code, btf, offsets);
	if (code.count > array_size(code.items))
		return fail(E2BIG, "the program that lists files is too long");
	load.insns = (uintptr_t)code.items;
	load.insn_cnt = (uint32_t)code.count;
	*program = bpf_load(&load);
	return *program < 0 ? fail(errno, "cannot list files by BPF: BPF_PROG_LOAD") : 0;
}

/* ---- a list ---- */

/* Returns a descriptor. */
static int begin_list(const struct file_lister *lister, pid_t thread)
{
	union bpf_iter_link_info which = { .task.tid = (uint32_t)thread };
	union bpf_attr link = { .link_create = { .prog_fd = (uint32_t)lister->program,
						 .attach_type = BPF_TRACE_ITER,
						 .iter_info = (uintptr_t)&which,
						 .iter_info_len = sizeof(which) } };
	autoclose int attached = bpf_call(BPF_LINK_CREATE, &link);
	union bpf_attr create = { .iter_create.link_fd = (uint32_t)attached };
	int list;

	if (attached < 0)
		return fail(errno, "cannot list files by BPF: BPF_LINK_CREATE");
	list = bpf_call(BPF_ITER_CREATE, &create);
	return list < 0 ? fail(errno, "cannot list files by BPF: BPF_ITER_CREATE") : list;
}

static struct listed_file understand(const struct record *record)
{
	const bool closes = record->closes >> record->fd % 64 & 1;

	return (struct listed_file){
		.fd = (int)record->fd,
		.file = record->file,
		.position = record->position,
		.flags = (record->flags & ~(unsigned)O_CLOEXEC) | (closes ? O_CLOEXEC : 0),
		.mount = (int)record->mount,
		.had_locks = record->locks,
		.had_owner = record->owner || record->signal,
		.has_lines = record->lines,
	};
}

/* Before Linux 6.1 a task cannot be chosen: the kernel lists the descriptors of all, one task after the other. */
static int check_list(ssize_t last_size, const struct listed_file *files, size_t count)
{
	if (last_size)
		return fail(last_size < 0 ? errno : EIO, "cannot list files by BPF: read");
	for (size_t i = 1; i < count; i++)
		if (files[i].fd <= files[i - 1].fd)
			return fail(EOPNOTSUPP,
				    "cannot list files by BPF: they are not those of one process");
	return 0;
}

int file_lister_list(const struct file_lister *lister, pid_t thread, struct listed_file **files,
		     size_t *count)
{
	autoclose int list = begin_list(lister, thread);
	struct record records[512]; /* as many as the kernel gives at a time */
	ssize_t size;
	int result;

	*files = NULL;
	*count = 0;
	if (list < 0)
		return list;
	while ((size = read(list, records, sizeof(records))) > 0 && size % sizeof(*records) == 0)
		for (size_t i = 0; i < (size_t)size / sizeof(*records); i++)
			*grow(files, count) = understand(&records[i]);
	result = check_list(size, *files, *count);
	if (result) {
		free(steal_pointer(files));
		*count = 0;
	}
	return result;
}

int file_lister_open(struct file_lister **lister)
{
	struct file_lister *made = *lister = allocate(sizeof(*made));
	struct btf *btf = NULL;
	int result;

	made->program = -1;
	result = btf_load(&btf) ?: load_program(btf, &made->program) ?: file_lister_test(made);
	btf_free(btf);
	if (result) {
		file_lister_close(made);
		*lister = NULL;
	}
	return result;
}

void file_lister_close(struct file_lister *lister)
{
	if (!lister)
		return;
	autoclose_clean(&lister->program);
	free(lister);
}
