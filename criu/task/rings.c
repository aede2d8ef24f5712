/*
 * rings.c - what a thread has of an io_uring: registered descriptors (files/kinds/io_uring_slots.c), and requests that
 * wait (io_uring_requests.c). Both are saved with the ring; the thread registers and submits them again.
 *
 * A ring may have no descriptor and no mapping, but a slot of a thread (IORING_SETUP_REGISTERED_FD_ONLY). Only the
 * thread can find it, by entering the ring of that slot, without a request. If it has never used a ring, that fails with
 * EINVAL, for any slot; if the slot is empty, with EBADF.
 */
#include <errno.h>
#include <sys/syscall.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/kinds/io_uring.h"
#include "task/part.h"

#define ENTER_SLOT 16u /* IORING_ENTER_REGISTERED_RING: Linux 5.18 */

struct asked {
	call_handle first_slot;
};

static void *rings_ask(const struct snapshot *snapshot unused, const struct task *task unused,
		       size_t thread unused, struct call_list *calls)
{
	struct asked *asked = allocate(sizeof(*asked));

	asked->first_slot = add_call(calls, "ask for an io_uring of its own", SYS_io_uring_enter, 0, 0, 0,
				     ENTER_SLOT);
	return asked;
}

static int rings_hear(const struct snapshot *snapshot, struct task *task, size_t thread,
		      const struct call_list *calls, const void *state)
{
	const struct asked *asked = state;
	struct remote_call enter[URING_MOST_SLOTS];
	long first = calls_result(calls, asked->first_slot);
	int result;

	if (first < 0 && first != -EBADF && first != -EBADFD) /* it is disabled (IORING_SETUP_R_DISABLED) */
		return 0;
	for (uint64_t slot = 0; slot < URING_MOST_SLOTS; slot++)
		enter[slot] = (struct remote_call){ SYS_io_uring_enter, { slot, 0, 0, ENTER_SLOT }, 0 };
	result = victim_call_thread(task->victim, thread, enter, URING_MOST_SLOTS);
	for (unsigned slot = 0; !result && slot < URING_MOST_SLOTS; slot++)
		if (enter[slot].result != -EBADF && !io_uring_knows_slot(snapshot, task, thread, slot)) {
			fail_advice("let it close that ring, or keep a descriptor of it");
			result =
				fail(EOPNOTSUPP,
				     "it has an io_uring that no process of the tree has open (registered as "
				     "descriptor %u), which is not supported yet",
				     slot);
		}
	return result;
}

static int rings_check(const struct snapshot *snapshot, const struct task *task, size_t thread)
{
	return io_uring_check_holder(snapshot, task, thread) ?:
							       io_uring_check_requester(snapshot, task, thread);
}

static void rings_make(const struct snapshot *snapshot, const struct task *task, size_t thread,
		       struct call_list *calls)
{
	io_uring_plan_slots(snapshot, task, thread, calls);
	io_uring_plan_requests(snapshot, task, thread, calls);
}

const struct task_part part_rings = {
	.name = "rings",
	.ask = rings_ask,
	.hear = rings_hear,
	.check = rings_check,
	.make = rings_make,
};
