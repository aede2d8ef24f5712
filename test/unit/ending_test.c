/*
 * ending_test.c - would the kernel write to memory when a thread ends? That depends on its list of robust futexes,
 * and on where its clear_child_tid leads.
 */
#include "unit.h"
#include <linux/futex.h>
#include <string.h>
#include "arch/arch.h"
#include "image/message.h"
#include "task/ending.h"

#define LIST 0x700000001000ULL

static struct robust_list_head head;
static bool is_mapped;

static bool read_head(const struct task *task unused, uint64_t address, void *buffer, size_t size)
{
	assert_int_equal(address, LIST);
	assert_int_equal(size, sizeof(head));
	memcpy(buffer, &head, size);
	return is_mapped;
}

static struct vma areas[] = {
	{ .start = 0x1000, .end = 0x3000, .flags = MAP_PRIVATE },
	{ .start = 0x3000, .end = 0x4000, .flags = MAP_SHARED },
	{ .start = 0x8000, .end = 0x9000, .flags = MAP_SHARED },
	{ .start = 0x1000, .end = 0x2000, .status = VMA_GUARD_RANGE },
	{ .start = 0x8000, .end = 0x9000, .status = VMA_GUARD_RANGE },
};

static CoreEntry *new_core(void)
{
	CoreEntry *core = message_new(CoreEntry, core_entry);

	core->thread_core = message_new(ThreadCoreEntry, thread_core_entry);
	core->thread_info = message_new(ThreadInfoX86, thread_info_x86);
	return core;
}

static bool marks(uint64_t list, uint64_t next, uint64_t pending)
{
	CoreEntry *core = new_core();
	struct task task = { .cores = &core, .thread_count = 1 };
	bool result;

	core->thread_core->futex_rla = list;
	head.list.next = (void *)(uintptr_t)next;
	head.list_op_pending = (void *)(uintptr_t)pending;
	result = ending_marks_futexes(&task, 0, read_head);
	image_free(core);
	return result;
}

static void lists(void **state unused)
{
	is_mapped = true;
	assert_false(marks(0, 0, 0));
	assert_false(marks(LIST, LIST, 0));
	assert_true(marks(LIST, LIST + 64, 0));
	assert_true(marks(LIST, (LIST + 64) | 1, 0)); /* with priority inheritance */
	assert_true(marks(LIST, LIST, LIST + 64));
	assert_true(marks(LIST, LIST, (LIST + 64) | 1));
	assert_false(marks(LIST, LIST | 1,
			   1)); /* the kernel checks for the end of the list before it looks at the bit */
	is_mapped = false;
	assert_false(marks(LIST, LIST + 64, 0));
}

static bool clears(uint64_t word)
{
	CoreEntry *core = new_core();
	struct address_space space = { .vmas = { areas, array_size(areas) } };
	struct task task = { .cores = &core, .thread_count = 1, .space = &space };
	bool result;

	arch_set_clear_tid(core, word);
	result = ending_clears_word(&task, 0);
	image_free(core);
	return result;
}

static void words(void **state unused)
{
	assert_false(clears(0));
	assert_false(clears(0x2ffc));
	assert_true(clears(0x3000));
	assert_true(clears(0x3ffc));
	assert_false(clears(0x4000));
	assert_true(clears(0x8ffc));
	assert_false(clears(0x9000));
}

static void areas_found(void **state unused)
{
	const struct vmas vmas = { areas, array_size(areas) }, none = { NULL, 0 };

	assert_null(vmas_find(&none, 0x1000));
	assert_null(vmas_find(&vmas, 0xfff));
	assert_ptr_equal(vmas_find(&vmas, 0x1000), &areas[0]);
	assert_ptr_equal(vmas_find(&vmas, 0x2fff), &areas[0]);
	assert_ptr_equal(vmas_find(&vmas, 0x3000), &areas[1]);
	assert_null(vmas_find(&vmas, 0x4000));
	assert_ptr_equal(vmas_find(&vmas, 0x8000), &areas[2]);
	assert_null(vmas_find(&vmas, ~0ULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lists),
		cmocka_unit_test(words),
		cmocka_unit_test(areas_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
