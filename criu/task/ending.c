/*
 * ending.c - see ending.h. In the kernel (kernel/futex/core.c, 6.18) a list is empty if its head points to itself. The
 * lowest bit of each pointer tells that the futex inherits priority.
 */
#include <linux/futex.h>
#include "arch/arch.h"
#include "task/ending.h"

#define NO_INHERITANCE (~1UL)

bool ending_marks_futexes(const struct task *task, size_t thread, ending_reader *read)
{
	uint64_t address = task->cores[thread]->thread_core->futex_rla;
	struct robust_list_head head;

	if (!address || !read(task, address, &head, sizeof(head)))
		return false;
	return ((uintptr_t)head.list.next & NO_INHERITANCE) != address ||
	       (uintptr_t)head.list_op_pending & NO_INHERITANCE;
}

bool ending_clears_word(const struct task *task, size_t thread)
{
	const struct vma *vma = vmas_find(&task->vmas, arch_clear_tid(task->cores[thread]));

	return vma && vma->flags & MAP_SHARED;
}
