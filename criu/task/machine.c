/*
 * machine.c - requests of a thread to the machine and the kernel: how it is killed on a memory failure (PR_MCE_KILL),
 * whether it may read the time stamp counter (PR_SET_TSC), that it writes back memory of others (PR_SET_IO_FLUSHER),
 * which speculation it disables (PR_SET_SPECULATION_CTRL).
 *
 * A thread that never made such a request, as nearly all, adds nothing to the image.
 */
#include <errno.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include "arch/arch.h"
#include "base/error.h"
#include "image/message.h"
#include "task/part.h"

#define SPECULATION_CONTROLS 3 /* PR_SPEC_STORE_BYPASS, _INDIRECT_BRANCH, _L1D_FLUSH */
#define IO_FLUSHER	     (0x00080000 | 0x00100000) /* PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE: only with both */

struct asked {
	call_handle memory_failure, time_stamps, tables;
	call_handle speculation[SPECULATION_CONTROLS];
};

/* A thread can ask for it with CAP_SYS_RESOURCE only. */
void machine_hear_flags(ThreadCoreEntry *core, unsigned flags)
{
	if ((flags & IO_FLUSHER) == IO_FLUSHER)
		message_set(core, is_io_flusher, true);
}

static void *machine_ask(const struct snapshot *snapshot unused, const struct task *task unused,
			 size_t thread, struct call_list *calls)
{
	struct asked *asked = allocate(sizeof(*asked));

	asked->memory_failure = add_call(calls, "ask for the policy for memory failures", SYS_prctl,
					 PR_MCE_KILL_GET);
	asked->time_stamps = add_call(calls, "ask whether it may read time stamps", SYS_prctl, PR_GET_TSC,
				      calls_bytes(calls, NULL, sizeof(int)));
	for (int control = 0; control < SPECULATION_CONTROLS; control++)
		asked->speculation[control] = add_call(calls, "ask for speculation", SYS_prctl,
						       PR_GET_SPECULATION_CTRL, control);
	if (!thread)
		asked->tables = arch_ask_for_tables(calls);
	return asked;
}

/*
 * Only states that a request of the thread can have caused: "enabled" is the default, and without per-thread control no
 * request is possible.
 */
static bool was_asked_for(long speculation)
{
	return speculation > 0 && speculation & PR_SPEC_PRCTL && !(speculation & PR_SPEC_ENABLE);
}

static int machine_hear(const struct snapshot *snapshot unused, struct task *task, size_t thread,
			const struct call_list *calls, const void *state)
{
	ThreadCoreEntry *core = task->cores[thread]->thread_core;
	const struct asked *asked = state;
	long memory_failure = calls_result(calls, asked->memory_failure);

	if (calls_result(calls, asked->tables) > 0)
		return fail(0, "it has %s, which are not supported", arch_tables_name);
	if (memory_failure >= 0 && memory_failure != PR_MCE_KILL_DEFAULT)
		message_set(core, memory_failure, memory_failure);
	if (calls_result(calls, asked->time_stamps) == 0 &&
	    *(const int *)calls_answer(calls, asked->time_stamps, 1) == PR_TSC_SIGSEGV)
		message_set(core, time_stamps, PR_TSC_SIGSEGV);
	for (int control = 0; control < SPECULATION_CONTROLS; control++) {
		long speculation = calls_result(calls, asked->speculation[control]);

		if (was_asked_for(speculation))
			message_set(core, speculation,
				    core->speculation | (uint32_t)(speculation & 0xff) << (8 * control));
	}
	return 0;
}

/* Bits of PR_GET_SPECULATION_CTRL, as stored in the image. */
static unsigned speculation_of(const ThreadCoreEntry *core, int control)
{
	return core->speculation >> (8 * control) & 0xff & ~(unsigned)PR_SPEC_PRCTL;
}

static int machine_check(const struct snapshot *snapshot unused, const struct task *task, size_t thread)
{
	const ThreadCoreEntry *core = task->cores[thread]->thread_core;

	for (int control = 0; control < SPECULATION_CONTROLS; control++) {
		int ours = prctl(PR_GET_SPECULATION_CTRL, control, 0, 0, 0);

		/* Not affected (0), or already in the wanted state: there is nothing to set. */
		if (speculation_of(core, control) && ours & PR_SPEC_ENABLE && !(ours & PR_SPEC_PRCTL))
			return fail(
				0,
				"thread %d had speculation control %d, which this machine does not support",
				thread_shown_id(&task->threads[thread]), control);
	}
	return 0;
}

static void machine_make(const struct snapshot *snapshot unused, const struct task *task, size_t thread,
			 struct call_list *calls)
{
	const ThreadCoreEntry *core = task->cores[thread]->thread_core;

	if (core->has_memory_failure)
		add_call(calls, "set the policy for memory failures", SYS_prctl, PR_MCE_KILL, PR_MCE_KILL_SET,
			 core->memory_failure);
	else if (prctl(PR_MCE_KILL_GET, 0, 0, 0, 0) != PR_MCE_KILL_DEFAULT) /* criu's own, inherited */
		add_call(calls, "reset the policy for memory failures", SYS_prctl, PR_MCE_KILL,
			 PR_MCE_KILL_CLEAR);
	if (core->is_io_flusher)
		add_call(calls, "make it an I/O flusher", SYS_prctl, PR_SET_IO_FLUSHER, 1);
	for (int control = 0; control < SPECULATION_CONTROLS; control++)
		if (speculation_of(core, control) &&
		    prctl(PR_GET_SPECULATION_CTRL, control, 0, 0, 0) & PR_SPEC_PRCTL)
			add_call(calls, "set speculation", SYS_prctl, PR_SET_SPECULATION_CTRL, control,
				 speculation_of(core, control));
	if (core->has_time_stamps)
		add_call(calls, "forbid time stamps", SYS_prctl, PR_SET_TSC, core->time_stamps);
}

const struct task_part part_machine = {
	.name = "machine",
	.ask = machine_ask,
	.hear = machine_hear,
	.check = machine_check,
	.make = machine_make,
};
