/*
 * registers.c - converts x86-64 registers between ptrace and the image format.
 *
 * The extended state is an XSAVE area in the standard (not compacted) format. The kernel converts to it for
 * NT_X86_XSTATE, whatever the CPU itself uses. CPUID leaf 0xD has the offsets and sizes of its components.
 */
#include <cpuid.h>
#include <errno.h>
#include <string.h>
#include <sys/ptrace.h>
#include "arch/arch.h"
#include "base/error.h"
#include "base/memory.h"
#include "image/message.h"

#define LEGACY_SIZE	  512 /* FXSAVE */
#define HEADER_XSTATE_BV  LEGACY_SIZE
#define AREA_START	  (LEGACY_SIZE + 64) /* behind the header */
#define FIRST_TLS_SEGMENT 12		     /* GDT_ENTRY_TLS_MIN of a 64-bit kernel; there are three */

const CoreEntry__March arch_image_type = CORE_ENTRY__MARCH__X86_64;

/* The field of the image for one component of the XSAVE area. */
struct component {
	int bit;
	const char *name;
	size_t size; /* as the format stores it */
	size_t count_offset, array_offset, member_size;
};

#define component(bit, name, field, type, count)                                           \
	{                                                                                  \
		bit, name, (count) * sizeof(type), offsetof(UserX86XsaveEntry, n_##field), \
			offsetof(UserX86XsaveEntry, field), sizeof(type)                   \
	}

static const struct component components[] = {
	component(2, "AVX", ymmh_space, uint32_t, 64),
	component(3, "MPX bound registers", bndreg_state, uint64_t, 8),
	component(4, "MPX configuration", bndcsr_state, uint64_t, 8),
	component(5, "AVX-512 mask registers", opmask_reg, uint64_t, 8),
	component(6, "AVX-512 upper halves", zmm_upper, uint64_t, 64),
	component(7, "AVX-512 upper registers", hi16_zmm, uint64_t, 128),
	component(9, "protection keys", pkru, uint32_t, 2),
};

#define KNOWN_COMPONENTS 0x2ffULL

/*
 * How this machine lays out the area. CPUID is slow under a hypervisor (20 us for each here), and the answers never
 * change: arch_prepare() asks once.
 */
static struct {
	bool is_known;
	uint64_t enabled;   /* XCR0: the components that the kernel has enabled */
	size_t size;	    /* of the area with all of them */
	size_t offsets[64]; /* of a component in the standard format; 0: this CPU does not have it */
} machine;

static uint64_t enabled_components(void)
{
	unsigned a, b, c, d;

	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
		return 3;
	__asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
	return a | (uint64_t)d << 32;
}

void arch_prepare(void)
{
	unsigned a, size, offset, c, d;

	if (machine.is_known)
		return;
	machine.is_known = true;
	machine.enabled = enabled_components();
	machine.size = AREA_START;
	if (!__get_cpuid_max(0, NULL) || __get_cpuid_max(0, NULL) < 0xd)
		return;
	__cpuid_count(0xd, 0, a, size, c, d);
	machine.size = size;
	for (size_t i = 0; i < array_size(components); i++) {
		if (!(machine.enabled >> components[i].bit & 1))
			continue;
		__cpuid_count(0xd, components[i].bit, size, offset, c, d);
		machine.offsets[components[i].bit] = size ? offset : 0;
	}
}

/* The registers by their names in the kernel and in the image. The order has no meaning. */
#define for_each_register(with)                                                                         \
	with(r15, r15) with(r14, r14) with(r13, r13) with(r12, r12) with(bp, rbp) with(bx, rbx)         \
		with(r11, r11) with(r10, r10) with(r9, r9) with(r8, r8) with(ax, rax) with(cx, rcx)     \
			with(dx, rdx) with(si, rsi) with(di, rdi) with(orig_ax, orig_rax) with(ip, rip) \
				with(cs, cs) with(flags, eflags) with(sp, rsp) with(ss, ss)             \
					with(fs_base, fs_base) with(gs_base, gs_base) with(ds, ds)      \
						with(es, es) with(fs, fs) with(gs, gs)

static UserX86RegsEntry *save_general(const struct user_regs_struct *registers)
{
	UserX86RegsEntry *entry = message_new(UserX86RegsEntry, user_x86_regs_entry);

#define save(image_name, kernel_name) entry->image_name = registers->kernel_name;
	for_each_register(save);
#undef save
	message_set(entry, mode, USER_X86_REGS_MODE__NATIVE);
	return entry;
}

static void load_general(const UserX86RegsEntry *entry, struct user_regs_struct *registers)
{
#define load(image_name, kernel_name) registers->kernel_name = entry->image_name;
	for_each_register(load);
#undef load
}

static UserX86XsaveEntry *save_components(const char *area, size_t size)
{
	UserX86XsaveEntry *xsave = message_new(UserX86XsaveEntry, user_x86_xsave_entry);

	arch_prepare();
	memcpy(&xsave->xstate_bv, area + HEADER_XSTATE_BV, sizeof(xsave->xstate_bv));
	for (size_t i = 0; i < array_size(components); i++) {
		const struct component *part = &components[i];
		size_t offset = machine.offsets[part->bit];
		void *copy;

		if (!offset || offset + part->size > size)
			continue;
		copy = copy_bytes(area + offset, part->size);
		*(size_t *)((char *)xsave + part->count_offset) = part->size / part->member_size;
		*(void **)((char *)xsave + part->array_offset) = copy;
	}
	return xsave;
}

/* The legacy region: the layout of FXSAVE64. */
struct legacy {
	uint16_t control, status, tag, opcode;
	uint64_t instruction, data;
	uint32_t mxcsr, mxcsr_mask;
	uint32_t x87[32], sse[64], padding[24];
};

static int save_extended(pid_t tid, const struct thread_context *context, ThreadInfoX86 *info)
{
	UserX86FpregsEntry *entry = message_new(UserX86FpregsEntry, user_x86_fpregs_entry);
	const struct legacy *legacy = context->extended;
	uint64_t held;

	info->fpregs = entry;
	if (context->extended_size < AREA_START)
		return fail(EINVAL, "the kernel has no XSAVE area for thread %d", tid);
	memcpy(&held, (const char *)context->extended + HEADER_XSTATE_BV, sizeof(held));
	if (held & ~KNOWN_COMPONENTS)
		return refuse(
			"thread %d has CPU state that the image format cannot hold (XSAVE components %#llx)",
			tid, (unsigned long long)(held & ~KNOWN_COMPONENTS));
	entry->cwd = legacy->control;
	entry->swd = legacy->status;
	entry->twd = legacy->tag;
	entry->fop = legacy->opcode;
	entry->rip = legacy->instruction;
	entry->rdp = legacy->data;
	entry->mxcsr = legacy->mxcsr;
	entry->mxcsr_mask = legacy->mxcsr_mask;
	message_array(entry, st_space, 32);
	memcpy(entry->st_space, legacy->x87, sizeof(legacy->x87));
	message_array(entry, xmm_space, 64);
	memcpy(entry->xmm_space, legacy->sse, sizeof(legacy->sse));
	entry->xsave = save_components(context->extended, context->extended_size);
	return 0;
}

static void save_segments(pid_t tid, ThreadInfoX86 *info)
{
	info->n_tls = 3;
	info->tls = allocate_array(3, sizeof(*info->tls));
	for (int i = 0; i < 3; i++) {
		/* struct user_desc of <asm/ldt.h>; its bit fields in the order of the ABI */
		struct {
			uint32_t number, base, limit, bits;
		} segment = { .bits = 1 << 3 | 1 << 5 }; /* read_exec_only, seg_not_present: an empty one */
		UserDescT *entry = message_new(UserDescT, user_desc_t);

		ptrace(PTRACE_GET_THREAD_AREA, tid, (void *)(long)(FIRST_TLS_SEGMENT + i), &segment);
		entry->entry_number = FIRST_TLS_SEGMENT + i;
		entry->base_addr = segment.base;
		entry->limit = segment.limit;
		entry->seg_32bit = segment.bits & 1;
		entry->contents_l = segment.bits >> 1 & 1;
		entry->contents_h = segment.bits >> 2 & 1;
		entry->read_exec_only = segment.bits >> 3 & 1;
		entry->limit_in_pages = segment.bits >> 4 & 1;
		entry->seg_not_present = segment.bits >> 5 & 1;
		entry->usable = segment.bits >> 6 & 1;
		info->tls[i] = entry;
	}
}

int arch_save_registers(pid_t tid, const struct thread_context *context, CoreEntry *core)
{
	ThreadInfoX86 *info = message_new(ThreadInfoX86, thread_info_x86);

	core->mtype = arch_image_type;
	core->thread_info = info;
	info->gpregs = save_general(&context->registers.user);
	save_segments(tid, info);
	return save_extended(tid, context, info);
}

static int load_components(const UserX86XsaveEntry *xsave, char *area, size_t size)
{
	uint64_t lacking = xsave->xstate_bv & ~machine.enabled;

	if (lacking)
		return fail(EINVAL,
			    "this CPU lacks register sets that the process used (XSAVE components %#llx)",
			    (unsigned long long)lacking);
	for (size_t i = 0; i < array_size(components); i++) {
		const struct component *part = &components[i];
		size_t count = *(const size_t *)((const char *)xsave + part->count_offset);
		size_t offset = machine.offsets[part->bit];

		if (!(xsave->xstate_bv >> part->bit & 1))
			continue;
		if (count * part->member_size != part->size)
			return fail(EINVAL, "the core image holds %zu bytes of %s registers instead of %zu",
				    count * part->member_size, part->name, part->size);
		if (!offset || offset + part->size > size)
			return fail(EINVAL, "this CPU has %s registers of another size", part->name);
		memcpy(area + offset, *(void *const *)((const char *)xsave + part->array_offset), part->size);
	}
	memcpy(area + HEADER_XSTATE_BV, &xsave->xstate_bv, sizeof(xsave->xstate_bv));
	return 0;
}

static int load_extended(const UserX86FpregsEntry *entry, struct thread_context *context)
{
	struct legacy *legacy;

	if (entry->n_st_space != 32 || entry->n_xmm_space != 64)
		return fail(EINVAL, "the core image holds a wrong number of x87 or SSE registers");
	arch_prepare();
	context->extended_size = machine.size;
	legacy = context->extended = allocate(context->extended_size);
	legacy->control = entry->cwd;
	legacy->status = entry->swd;
	legacy->tag = entry->twd;
	legacy->opcode = entry->fop;
	legacy->instruction = entry->rip;
	legacy->data = entry->rdp;
	legacy->mxcsr = entry->mxcsr;
	legacy->mxcsr_mask = entry->mxcsr_mask;
	memcpy(legacy->x87, entry->st_space, sizeof(legacy->x87));
	memcpy(legacy->sse, entry->xmm_space, sizeof(legacy->sse));
	if (entry->xsave)
		return load_components(entry->xsave, context->extended, context->extended_size);
	memcpy((char *)context->extended + HEADER_XSTATE_BV, &(uint64_t){ 3 }, 8);
	return 0;
}

int arch_load_registers(const CoreEntry *core, struct thread_context *context)
{
	const ThreadInfoX86 *info = core->thread_info;

	memset(context, 0, sizeof(*context));
	if (!info)
		return fail(EINVAL, "the core image has no x86 registers");
	if (info->gpregs->has_mode && info->gpregs->mode != USER_X86_REGS_MODE__NATIVE)
		return fail(EINVAL, "32-bit processes are not supported yet");
	load_general(info->gpregs, &context->registers.user);
	return load_extended(info->fpregs, context);
}

uint64_t arch_clear_tid(const CoreEntry *core)
{
	return core->thread_info->clear_tid_addr;
}

void arch_set_clear_tid(CoreEntry *core, uint64_t address)
{
	core->thread_info->clear_tid_addr = address;
}
