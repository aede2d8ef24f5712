/*
 * hand_over.c - gives every thread its registers and lets it go.
 *
 * All threads wait in the restorer, completely restored except for registers and signal mask. ptrace sets those, so no
 * code of criu has to run in the task at the end: the leader's last calls (unmapping the restorer among them) are made
 * by ptrace, too. Until release, the tree dies with criu (PTRACE_O_EXITKILL).
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include "arch.h"
#include "arch/arch.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "calls.h"
#include "compel.h"
#include "files/kind.h"
#include "files/kinds/io_uring.h"
#include "restore/lives.h"
#include "restore/restore.h"
#include "task/part.h"

#define PATIENCE 10.0 /* seconds, for a thread to stop */

/* From now on the task dies with criu, even if its parent death signal, which a change of user ids clears, is lost. */
static int trace_task(struct task *task)
{
	struct victim *victim = task->victim = allocate(sizeof(*victim));
	int result;

	victim->pid = task->here;
	victim->thread_count = task->thread_count;
	victim->threads = allocate_array(task->thread_count, sizeof(*victim->threads));
	result = trace_with_exitkill(&victim->threads[0], task->here);
	return result == -ESRCH ? fail_for_death(task) : result;
}

int restore_trace(void *context)
{
	struct restore *restore = context;
	struct task *task;
	int result = 0;

	for_each_task (task, &restore->snapshot)
		if (!result && task->state != TASK_DEAD)
			result = trace_task(task);
	return result;
}

static int interrupt_threads(struct task *task)
{
	struct traced_thread *threads = task->victim->threads;
	int result = trace_interrupt(&threads[0]);

	for (size_t i = 1; !result && i < task->thread_count; i++)
		result = trace_seize(&threads[i], task->threads[i].here, false);
	return result == -ESRCH ? fail_for_death(task) : result;
}

static int await_threads(struct task *task, uint64_t deadline)
{
	struct traced_thread *threads = task->victim->threads;
	int result = 0;

	for (size_t i = 0; !result && i < task->thread_count; i++)
		result = trace_wait(&threads[i], deadline) ?: trace_exit_kill(&threads[i], true);
	return result == -ESRCH ? fail_for_death(task) : result;
}

static int make_last_call(uint64_t region, struct traced_thread *thread, const struct call_list *calls,
			  size_t index)
{
	const struct restorer_header *header = (const struct restorer_header *)restorer_blob_start;
	long answer;
	int result = trace_syscall(thread, region + header->syscall,
				   arch_stack_pointer(&thread->context.registers), calls->calls[index].number,
				   calls->calls[index].arguments, &answer);

	if (!result && answer < 0 && answer != calls->calls[index].result)
		result = fail(-answer, "cannot %s", calls->purposes[index]);
	return result;
}

/* From here on the root dies only with criu (PTRACE_O_EXITKILL), until it gets its own parent death signal. */
static int change_parent(struct restore *restore, struct task *root)
{
	struct call_list calls;
	int result;

	calls_init(&calls, 0);
	add_call(&calls, "clear the parent death signal", SYS_prctl, PR_SET_PDEATHSIG, 0);
	result = make_last_call(region_of(restore, root), &root->victim->threads[0], &calls, 0);
	calls_free(&calls);
	if (!result)
		parent_leave(restore);
	return result;
}

static int finish_thread(struct restore *restore, struct task *task, size_t thread)
{
	uint64_t region = region_of(restore, task);
	struct call_list calls;
	int result = 0;

	calls_init(&calls, region + RESTORER_ARGUMENTS); /* no longer read */
	for (size_t part = 0; part < task_part_count; part++)
		if (task_parts[part]->finish && part_concerns(task_parts[part], task, thread))
			task_parts[part]->finish(&restore->snapshot, task, thread, &calls);
	if (!thread)
		stop_hush(task, &calls);
	if (!thread)
		add_call(&calls, "unmap the restorer", SYS_munmap, region, REGION_ROOM);
	if (calls.size)
		result = victim_write(task->victim, calls.base, calls.bytes, calls.size);
	for (size_t i = 0; !result && i < calls.count; i++)
		result = make_last_call(region, &task->victim->threads[thread], &calls, i);
	calls_free(&calls);
	return result;
}

/*
 * Makes the calls that have to wait until all threads are restored; the leader is last, and unmaps the restorer, which
 * cannot do that itself.
 */
static int make_last_calls(struct restore *restore, struct task *task)
{
	int result = 0;

	for (size_t i = task->thread_count; !result && i-- > 0;)
		result = finish_thread(restore, task, i);
	return result;
}

static int give_registers(struct task *task, size_t index)
{
	const CoreEntry *core = task->cores[index];
	struct thread_context context;
	int result = arch_load_registers(core, &context);

	context.signal_mask = signals_blocked(task, index);
	if (!result)
		result = trace_set_context(&task->victim->threads[index], &context);
	if (!result && core->thread_core->timeout_left)
		result = trace_reenter_call(&task->victim->threads[index], core->thread_core->timeout_left);
	trace_free_context(&context);
	return result;
}

static int complete(struct restore *restore, struct task *task)
{
	int result = 0;

	if (restore->middle && !task->parent)
		result = change_parent(restore, task);
	if (!result)
		result = thread_files_place(restore, task);
	if (!result)
		result = make_last_calls(restore, task);
	for (size_t i = 0; !result && i < task->thread_count; i++)
		result = give_registers(task, i);
	if (!result)
		result = stop_again(task);
	return result ? fail_in(result, "process %d (%s)", task->pid, task->name) : 0;
}

/* The parent of a stopped child is told of it before the parent itself is finished: see stop.c. */
static bool has_waiting_child(const struct task *task)
{
	const struct task *child;

	list_for_each (child, &task->children, sibling)
		if (child->state == TASK_STOPPED && child->newborn->waits)
			return true;
	return false;
}

static int hand_over(struct restore *restore, struct task *task)
{
	int result = await_threads(task, trace_deadline(PATIENCE));

	if (result)
		return fail_in(result, "process %d (%s)", task->pid, task->name);
	task->newborn->waits = identity_waits(task) || (restore->middle && !task->parent) ||
			       has_waiting_child(task);
	return task->newborn->waits ? 0 : complete(restore, task);
}

/* All are interrupted before waiting for the first: they stop in parallel. Children come before their parents. */
int restore_hand_over(void *context)
{
	struct restore *restore = context;
	struct task *task;
	int result = io_uring_check_submitted(&restore->snapshot) ?:
								    files_open_for_threads(&restore->snapshot);

	if (result)
		return result;
	for_each_task (task, &restore->snapshot) {
		result = task->state == TASK_DEAD ? 0 : interrupt_threads(task);
		if (result)
			return fail_in(result, "process %d (%s)", task->pid, task->name);
	}
	list_for_each_reverse (task, &restore->snapshot.tasks, link)
		if (!result && task->state != TASK_DEAD)
			result = hand_over(restore, task);
	return result;
}

/*
 * Completes the tasks whose last calls would be visible outside if the restore failed afterwards: now nothing else can
 * make it fail.
 */
static int complete_the_rest(struct restore *restore)
{
	struct task *task;
	int result = 0;

	list_for_each_reverse (task, &restore->snapshot.tasks, link)
		if (!result && task->newborn->waits)
			result = complete(restore, task);
	return result;
}

/* A failure here can no longer be undone. The thread no longer dies with criu, so the end of criu frees it. */
static void let_go(struct task *task)
{
	for (size_t i = 0; i < task->thread_count; i++) {
		struct attempt attempt;

		attempt_begin(&attempt);
		if (trace_release(&task->victim->threads[i]))
			log_warning("process %d (%s): %s; it continues when criu ends", task->pid, task->name,
				    failure_text());
		attempt_forget(&attempt);
	}
	victim_free(task->victim);
	free(steal_pointer(&task->victim));
}

int restore_release(void *context)
{
	struct restore *restore = context;
	struct task *task;
	int result = lives_check(restore) ?: complete_the_rest(restore);

	result = result ?: files_prepare_release(&restore->snapshot);

	if (result)
		return result;
	/*
	 * First all are released from dying with criu, then all are let go: nothing in between can fail but criu's own
	 * sudden death.
	 */
	for_each_task (task, &restore->snapshot)
		for (size_t i = 0; task->victim && i < task->thread_count; i++)
			result = trace_exit_kill(&task->victim->threads[i], false) ?: result;
	if (result)
		return result;
	files_release(&restore->snapshot);
	restore_close_files(restore); /* the tasks must not find criu's ends of their pipes */
	restore->is_running = true;
	watchdog_end(restore);
	for_each_task (task, &restore->snapshot) {
		if (!task->victim)
			continue;
		if (task->state != TASK_STOPPED && restore->request->policy.leave_stopped)
			kill(task->here, SIGSTOP);
		let_go(task);
	}
	prctl(PR_SET_CHILD_SUBREAPER, 0);
	return 0;
}
