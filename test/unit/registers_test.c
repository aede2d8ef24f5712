/*
 * registers_test.c - saves x86-64 registers into a core and loads them again: all content is preserved. A core that
 * does not fit this CPU is an error.
 */
#include "unit.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "arch/arch.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "image/message.h"

#if defined(__x86_64__)

#define AREA_SIZE   16384 /* more than any CPU has */
#define LEGACY_SIZE 416	  /* without padding */
#define HELD	    512	  /* where the area has the set of its components */
#define STORED	    0x2ff /* components for which the format has fields */

static uint64_t enabled(void)
{
	unsigned a, d;

	__asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
	return (a | (uint64_t)d << 32) & STORED;
}

static int start_clean(void **state unused)
{
	failure_clear();
	log_level = 0;
	return 0;
}

static void fill_randomly(void *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		((unsigned char *)bytes)[i] = random();
}

static void make_context(struct thread_context *context)
{
	uint64_t held = enabled();

	memset(context, 0, sizeof(*context));
	fill_randomly(&context->registers, sizeof(context->registers));
	context->extended_size = AREA_SIZE;
	context->extended = allocate(AREA_SIZE);
	fill_randomly(context->extended, AREA_SIZE);
	memcpy((char *)context->extended + HELD, &held, sizeof(held));
}

static CoreEntry *save(const struct thread_context *context)
{
	CoreEntry *core = message_new(CoreEntry, core_entry);

	assert_int_equal(arch_save_registers(getpid(), context, core), 0);
	return core;
}

static void assert_equal_cores(const CoreEntry *one, const CoreEntry *other)
{
	size_t size = protobuf_c_message_get_packed_size(&one->base);
	autofree uint8_t *packed = allocate(size), *packed_too = allocate(size);

	assert_int_equal(protobuf_c_message_get_packed_size(&other->base), size);
	protobuf_c_message_pack(&one->base, packed);
	protobuf_c_message_pack(&other->base, packed_too);
	assert_memory_equal(packed, packed_too, size);
}

static void there_and_back(void **state unused)
{
	srandom(4711);
	for (int round = 0; round < 100; round++) {
		struct thread_context first, second;
		CoreEntry *core, *again;

		make_context(&first);
		core = save(&first);
		assert_int_equal(core->mtype, arch_image_type);
		assert_int_equal(arch_load_registers(core, &second), 0);
		assert_memory_equal(&first.registers, &second.registers, sizeof(first.registers));
		assert_memory_equal(first.extended, second.extended, LEGACY_SIZE);
		assert_memory_equal((char *)first.extended + HELD, (char *)second.extended + HELD, 8);
		again = save(&second);
		assert_equal_cores(core, again);
		image_free(core);
		image_free(again);
		trace_free_context(&first);
		trace_free_context(&second);
	}
}

static void assert_load(const CoreEntry *core, int expected, const char *says)
{
	struct thread_context context;
	char report[4096];

	assert_int_equal(arch_load_registers(core, &context), expected);
	trace_free_context(&context);
	failure_report(report, sizeof(report), "test", NULL);
	if (!strstr(report, says))
		fail_msg("the report does not say \"%s\":\n%s", says, report);
	failure_clear();
}

static void wrong_cores(void **state unused)
{
	struct thread_context context;
	CoreEntry *core;
	UserX86FpregsEntry *registers;
	uint64_t held;

	make_context(&context);
	core = save(&context);
	registers = core->thread_info->fpregs;
	registers->n_st_space--;
	assert_load(core, -EINVAL, "x87");
	registers->n_st_space++;
	registers->n_xmm_space = 0;
	assert_load(core, -EINVAL, "SSE");
	registers->n_xmm_space = 64;
	if (enabled() & 4) {
		registers->xsave->n_ymmh_space = 63;
		assert_load(core, -EINVAL, "AVX");
		registers->xsave->n_ymmh_space = 0;
		assert_load(core, -EINVAL, "AVX");
		registers->xsave->n_ymmh_space = 64;
	}
	held = registers->xsave->xstate_bv;
	registers->xsave->xstate_bv |= 1ULL << 62;
	assert_load(core, -EINVAL, "lacks");
	registers->xsave->xstate_bv = held;
	message_set(core->thread_info->gpregs, mode, USER_X86_REGS_MODE__COMPAT);
	assert_load(core, -EINVAL, "32-bit");
	core->thread_info->gpregs->mode = USER_X86_REGS_MODE__NATIVE;
	assert_load(core, 0, "");
	image_free(core);
	trace_free_context(&context);
}

static void no_registers(void **state unused)
{
	CoreEntry core = CORE_ENTRY__INIT;

	assert_load(&core, -EINVAL, "no x86 registers");
}

/* Counts are checked if the component is used. The data of unused components may be missing. */
static void unused_components(void **state unused)
{
	struct thread_context context;
	CoreEntry *core;

	make_context(&context);
	core = save(&context);
	core->thread_info->fpregs->xsave->xstate_bv = 3;
	core->thread_info->fpregs->xsave->n_ymmh_space = 0;
	core->thread_info->fpregs->xsave->n_zmm_upper = 0;
	assert_load(core, 0, "");
	image_free(core->thread_info->fpregs->xsave);
	core->thread_info->fpregs->xsave = NULL;
	assert_load(core, 0, "");
	image_free(core);
	trace_free_context(&context);
}

static void unknown_component(void **state unused)
{
	struct thread_context context;
	CoreEntry *core = message_new(CoreEntry, core_entry);
	uint64_t held = 1ULL << 18; /* AMX */

	make_context(&context);
	memcpy((char *)context.extended + HELD, &held, sizeof(held));
	assert_int_equal(arch_save_registers(getpid(), &context, core), -REFUSED);
	assert_int_equal(refusals(), 1);
	image_free(core);
	core = message_new(CoreEntry, core_entry);
	context.extended_size = 512;
	assert_int_equal(arch_save_registers(getpid(), &context, core), -EINVAL);
	image_free(core);
	trace_free_context(&context);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(there_and_back, start_clean),
		cmocka_unit_test_setup(wrong_cores, start_clean),
		cmocka_unit_test_setup(no_registers, start_clean),
		cmocka_unit_test_setup(unused_components, start_clean),
		cmocka_unit_test_setup(unknown_component, start_clean),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

int main(void)
{
	return 0;
}

#endif
