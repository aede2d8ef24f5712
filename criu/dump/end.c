/*
 * end.c - prepares the end of the processes. What the kernel writes into the memory of a dying thread (task/ending.h)
 * would be visible in files that live on, and to the threads themselves after a restore. So those threads drop their
 * robust futexes and their clear_child_tid first.
 *
 * This happens when the images are complete, directly before the processes are killed. If it fails, or if criu dies,
 * the threads get back what they have dropped (victim_call_for_now()).
 */
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include "arch/arch.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "compel.h"
#include "dump/dump.h"
#include "task/ending.h"

static bool read_frozen_memory(const struct task *task, uint64_t address, void *buffer, size_t size)
{
	struct iovec here = { buffer, size }, there = { (void *)(uintptr_t)address, size };

	return process_vm_readv(task->here, &here, 1, &there, 1, 0) == (ssize_t)size;
}

/* Calls act() for every thread in whose memory the kernel would write; stops at a failure. */
static int for_each_writer(struct dump *dump, int (*act)(struct task *, size_t thread))
{
	struct task *task;
	int result = 0;

	for_each_task (task, &dump->snapshot)
		for (size_t i = 0; task->victim && i < task->thread_count; i++) {
			if (ending_marks_futexes(task, i, read_frozen_memory) || ending_clears_word(task, i))
				result = act(task, i);
			if (result)
				return result;
		}
	return 0;
}

static int forget_addresses(struct task *task, size_t thread)
{
	const uint64_t size = sizeof(struct robust_list_head);
	struct remote_call calls[] = {
		{ SYS_set_robust_list, { 0, size }, 0 },
		{ SYS_set_tid_address, { 0 }, 0 },
	};
	const struct remote_call list = { SYS_set_robust_list,
					  { task->cores[thread]->thread_core->futex_rla, size },
					  0 };
	const struct remote_call word = { SYS_set_tid_address, { arch_clear_tid(task->cores[thread]) }, 0 };
	const struct remote_call back[] = { list, word };
	int result = victim_call_for_now(task->victim, thread, calls, array_size(calls), back,
					 array_size(back));

	log_debug("thread %d: the kernel must not write into its memory when it dies",
		  task->threads[thread].here);
	if (!result && calls[0].result < 0)
		result = fail((int)-calls[0].result, "thread %d: cannot set the robust futex list",
			      task->threads[thread].here);
	return result;
}

int dump_prepare_end(void *context)
{
	struct dump *dump = context;

	if (dump->request->policy.leave_running || dump->request->policy.leave_stopped)
		return 0;
	return for_each_writer(dump, forget_addresses) ?: dump_prepare_kill(dump);
}

/* Best effort: dead threads need nothing, and all others must get theirs back. */
void dump_withdraw_end(void *context)
{
	struct dump *dump = context;
	struct task *task;

	dump_abandon_kill(dump);
	for_each_task (task, &dump->snapshot)
		for (size_t i = 0; task->victim && i < task->thread_count; i++)
			ignore(victim_take_back(task->victim, i));
}
