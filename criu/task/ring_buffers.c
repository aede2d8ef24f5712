/*
 * ring_buffers.c - memory of the process that is registered with an io_uring (files/kinds/io_uring_buffers.c). It is
 * saved with the ring; the first thread registers it again.
 *
 * The kernel compares the memory that a user has registered with RLIMIT_MEMLOCK of the process that registers more. A
 * process may have lowered this limit since. So it registers its memory before it has its limits.
 */
#include <sys/resource.h>
#include "files/kinds/io_uring.h"
#include "task/part.h"

static int ring_buffers_check(const struct snapshot *snapshot, const struct task *task, size_t thread)
{
	return thread ? 0 : io_uring_check_owner(snapshot, task);
}

/* As high as criu may: if that is not enough, the kernel says so. */
static int ring_buffers_prepare(const struct snapshot *snapshot, const struct task *task)
{
	struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };

	if (!io_uring_has_buffers(snapshot, task) || setrlimit(RLIMIT_MEMLOCK, &limit) == 0 ||
	    getrlimit(RLIMIT_MEMLOCK, &limit) < 0)
		return 0;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_MEMLOCK, &limit);
	return 0;
}

static void ring_buffers_make(const struct snapshot *snapshot, const struct task *task, size_t thread,
			      struct call_list *calls)
{
	if (!thread)
		io_uring_plan_buffers(snapshot, task, calls);
}

const struct task_part part_ring_buffers = {
	.name = "ring buffers",
	.check = ring_buffers_check,
	.prepare = ring_buffers_prepare,
	.make = ring_buffers_make,
};
