/*
 * memory_locks.c - mlockall(MCL_FUTURE): the kernel locks new memory of the process as it is mapped. Whether an
 * existing mapping is locked is restored for each one (restore/space.c).
 *
 * No call tells whether it is on. But the parasite's own memory is new memory, and msync(MS_INVALIDATE) fails for
 * locked memory.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "base/error.h"
#include "image/message.h"
#include "task/part.h"

struct asked {
	call_handle locked;
};

static void *memory_locks_ask(const struct snapshot *snapshot unused, const struct task *task unused,
			      size_t thread unused, struct call_list *calls)
{
	struct asked *asked;

	asked = allocate(sizeof(*asked));
	asked->locked = add_call(calls, "ask whether new memory is locked", SYS_msync,
				 round_down(calls->base, PAGE_SIZE), PAGE_SIZE, MS_INVALIDATE);
	return asked;
}

/* Is new memory locked only when it is touched? smaps tells, but reading it takes long. */
static int look_closer(const struct task *task, uint64_t address, bool *on_fault)
{
	struct vmas vmas = { 0 };
	int result = proc_read_smaps(task->proc, &vmas);

	for (size_t i = 0; !result && i < vmas.count; i++)
		if (vmas.items[i].start <= address && address < vmas.items[i].end)
			*on_fault = vmas.items[i].locks_on_fault;
	vmas_free(&vmas);
	return result;
}

static int memory_locks_hear(const struct snapshot *snapshot unused, struct task *task, size_t thread unused,
			     const struct call_list *calls, const void *state)
{
	const struct asked *asked = state;
	bool on_fault = false;
	int result;

	if (calls_result(calls, asked->locked) != -EBUSY)
		return 0;
	result = look_closer(task, calls->base, &on_fault);
	message_set(task->space->mm, locks_future, MCL_FUTURE | (on_fault ? MCL_ONFAULT : 0));
	return result;
}

static int memory_locks_check(const struct snapshot *snapshot unused, const struct task *task,
			      size_t thread unused)
{
	uint32_t flags = task->space->mm->locks_future;

	if (flags && flags != MCL_FUTURE && flags != (MCL_FUTURE | MCL_ONFAULT))
		return fail(EINVAL, "the mm image has invalid flags of mlockall(): %#x", flags);
	return 0;
}

static void memory_locks_make(const struct snapshot *snapshot unused, const struct task *task,
			      size_t thread unused, struct call_list *calls)
{
	if (task->space->mm->locks_future)
		add_call(calls, "lock new memory", SYS_mlockall, task->space->mm->locks_future);
}

const struct task_part part_memory_locks = {
	.name = "memory locks",
	.is_of_object = true,
	.object = OBJECT_MEMORY,
	.ask = memory_locks_ask,
	.hear = memory_locks_hear,
	.check = memory_locks_check,
	.make = memory_locks_make,
};
