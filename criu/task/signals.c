/*
 * signals.c - signal handling of a task: actions, alternate stacks, masks. Pending signals: pending_signals.c.
 *
 * A newborn blocks all signals until its threads get their registers, and their masks with them (restore/hand_over.c).
 */
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "image/message.h"
#include "task/part.h"

#define SIGNALS 64
#define ACTIONS (SIGNALS - 2) /* SIGKILL and SIGSTOP have none; the image skips them */

struct asked {
	call_handle alternate_stack;
	call_handle actions[SIGNALS + 1]; /* by the signal's number */
};

/* As in rt_sigaction(2) of the kernel; libc's struct differs. */
struct kernel_action {
	uint64_t handler, flags, restorer, mask;
};

static bool has_action(int signal)
{
	return signal != SIGKILL && signal != SIGSTOP;
}

static int signals_look(struct snapshot *snapshot unused, struct task *task, size_t thread,
			const struct thread_facts *facts)
{
	CoreEntry *core = task->cores[thread];

	message_set(core->thread_core, blk_sigset, facts->context->signal_mask);
	if (core->tc)
		core->tc->blk_sigset = facts->context->signal_mask;
	return 0;
}

static void *signals_ask(const struct snapshot *snapshot unused, const struct task *task unused,
			 size_t thread, struct call_list *calls)
{
	struct asked *asked = allocate(sizeof(*asked));

	asked->alternate_stack = add_call(calls, "ask for the alternate stack", SYS_sigaltstack, 0,
					  calls_bytes(calls, NULL, sizeof(stack_t)));
	for (int signal = 1; !thread && signal <= SIGNALS; signal++)
		if (has_action(signal))
			asked->actions[signal] = add_call(
				calls, "ask for a signal's action", SYS_rt_sigaction, signal, 0,
				calls_bytes(calls, NULL, sizeof(struct kernel_action)), sizeof(uint64_t));
	return asked;
}

static int hear_actions(TaskCoreEntry *core, const struct call_list *calls, const struct asked *asked)
{
	message_array(core, sigactions, ACTIONS);
	core->n_sigactions = 0;
	for (int signal = 1; signal <= SIGNALS; signal++) {
		long result = calls_result(calls, asked->actions[signal]);
		const struct kernel_action *action = calls_answer(calls, asked->actions[signal], 2);
		SaEntry *entry;

		if (!has_action(signal))
			continue;
		entry = core->sigactions[core->n_sigactions++] = message_new(SaEntry, sa_entry);
		if (result < 0)
			return fail(-result, "cannot read the action of signal %d", signal);
		entry->sigaction = action->handler;
		entry->flags = action->flags;
		entry->restorer = action->restorer;
		entry->mask = action->mask;
		message_set(entry, compat_sigaction, false);
	}
	return 0;
}

static int signals_hear(const struct snapshot *snapshot unused, struct task *task, size_t thread,
			const struct call_list *calls, const void *state)
{
	const struct asked *asked = state;
	long result = calls_result(calls, asked->alternate_stack);
	const stack_t *stack = calls_answer(calls, asked->alternate_stack, 1);
	ThreadSasEntry *entry = message_new(ThreadSasEntry, thread_sas_entry);

	task->cores[thread]->thread_core->sas = entry;
	if (result < 0)
		return fail(-result, "cannot read the alternate signal stack");
	entry->ss_sp = (uintptr_t)stack->ss_sp;
	entry->ss_size = stack->ss_size;
	entry->ss_flags = stack->ss_flags;
	return thread ? 0 : hear_actions(task->cores[0]->tc, calls, asked);
}

static int signals_check(const struct snapshot *snapshot unused, const struct task *task, size_t thread)
{
	if (!thread && task->cores[0]->tc->n_sigactions != ACTIONS)
		return fail(EINVAL, "the core image has %zu signal actions instead of %d",
			    task->cores[0]->tc->n_sigactions, ACTIONS);
	return 0;
}

/*
 * Signals that arrive from now on belong to the task, and stay pending. A raw call also blocks the signals that libc
 * keeps for itself.
 */
static int signals_prepare(const struct snapshot *snapshot unused, const struct task *task unused)
{
	uint64_t all = ~0ULL;

	return syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof(all)) < 0 ?
		       fail(errno, "cannot block all signals") :
		       0;
}

static void make_actions(const TaskCoreEntry *core, struct call_list *calls)
{
	for (int signal = 1, i = 0; signal <= SIGNALS; signal++) {
		const SaEntry *entry;

		if (!has_action(signal))
			continue;
		entry = core->sigactions[i++];
		add_call(calls, "set a signal's action", SYS_rt_sigaction, signal,
			 calls_bytes(calls,
				     &(struct kernel_action){ entry->sigaction, entry->flags, entry->restorer,
							      entry->mask },
				     sizeof(struct kernel_action)),
			 0, sizeof(uint64_t));
	}
}

static void signals_make(const struct snapshot *snapshot unused, const struct task *task, size_t thread,
			 struct call_list *calls)
{
	const ThreadSasEntry *sas = task->cores[thread]->thread_core->sas;
	stack_t stack = { .ss_flags = SS_DISABLE }; /* a newborn may have one of criu's */

	if (sas && !(sas->ss_flags & SS_DISABLE)) {
		stack.ss_sp = (void *)(uintptr_t)sas->ss_sp;
		stack.ss_size = sas->ss_size;
		stack.ss_flags = sas->ss_flags & ~SS_ONSTACK; /* SS_ONSTACK only reports that it was in use */
	}
	add_call(calls, "set the alternate stack", SYS_sigaltstack, calls_bytes(calls, &stack, sizeof(stack)),
		 0);
	if (!thread)
		make_actions(task->cores[0]->tc, calls);
}

uint64_t signals_blocked(const struct task *task, size_t thread)
{
	const CoreEntry *core = task->cores[thread];

	if (core->thread_core->has_blk_sigset)
		return core->thread_core->blk_sigset;
	return core->tc ? core->tc->blk_sigset : 0;
}

bool signal_has_default_action(const struct task *task, int signal)
{
	int skipped = (signal > SIGKILL) + (signal > SIGSTOP);

	return !has_action(signal) || !task->cores[0]->tc->sigactions[signal - 1 - skipped]->sigaction;
}

const struct task_part part_signals = {
	.name = "signals",
	.look = signals_look,
	.ask = signals_ask,
	.hear = signals_hear,
	.check = signals_check,
	.prepare = signals_prepare,
	.make = signals_make,
};
