/*
 * process.c - small properties of a whole process: personality, subreaper, membarrier, oom_score_adj, loginuid, core
 * dump filter, state.
 *
 * oom_score_adj, loginuid and coredump_filter are files of /proc, which a newborn writes while it still runs criu's
 * code.
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/membarrier.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "image/message.h"
#include "kernel_constants.h"
#include "task/part.h"

#define GET_PERSONALITY	  0xffffffff
#define GET_REGISTRATIONS (1 << 9) /* MEMBARRIER_CMD_GET_REGISTRATIONS, Linux 6.3 */

/*
 * Wine and emulators let the kernel dispatch their system calls to user space: the calls of the parasite would go
 * there, too.
 */
static int refuse_dispatch(const struct task *task, size_t thread)
{
	uint64_t dispatch[4] = { 0 }; /* mode, selector, offset, length */

	if (ptrace(PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, task->threads[thread].here, sizeof(dispatch),
		   dispatch) < 0 ||
	    !dispatch[0])
		return 0; /* off, or the kernel has no such request */
	return refuse(
		"process %d (%s): thread %d dispatches its system calls (PR_SET_SYSCALL_USER_DISPATCH), which is not "
		"supported",
		task->here, task->name, task->threads[thread].here);
}

static int process_look(struct snapshot *snapshot unused, struct task *task, size_t thread,
			const struct thread_facts *facts unused)
{
	TaskCoreEntry *core = task->cores[thread]->tc;
	struct proc_stat stat;
	long long number;

	if (thread)
		return refuse_dispatch(task, thread);
	if (proc_read_stat(task->proc, &stat))
		return -EINVAL;
	core->task_state = task->state;
	core->flags = stat.flags;
	core->comm = copy_text(stat.comm);
	if (stat.exit_signal != SIGCHLD)
		message_set(core, exit_signal, stat.exit_signal);
	if (task->state == TASK_STOPPED)
		message_set(core, stop_signo, task->stop_signal);
	if (proc_read_number(task->proc, "oom_score_adj", 10, &number) == 0)
		message_set(core, oom_score_adj, number);
	if (proc_read_number(task->proc, "loginuid", 10, &number) == 0)
		message_set(core, loginuid, number);
	if (proc_read_number(task->proc, "coredump_filter", 16, &number) == 0)
		message_set(core, core_filter, number);
	return refuse_dispatch(task, thread);
}

/*
 * Before Linux 6.3 no call reports the registrations. But a barrier fails with EPERM in a process that has not
 * registered for it, and each registration is the bit above its barrier. A registration for the global barrier alone
 * cannot be detected.
 */
static const uint32_t barriers_to_try[] = {
	MEMBARRIER_CMD_PRIVATE_EXPEDITED,
	MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE,
	MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ,
};

struct asked {
	call_handle personality;
	call_handle subreaper, registrations; /* the leader is asked for these and the following */
	call_handle tries[array_size(barriers_to_try)];
	size_t child_count;
	struct asked_child {
		const struct task *child;
		call_handle stop; /* has it waited for the stop? */
	} children[];		  /* stopped children */
};

static struct asked *new_questions(const struct task *task)
{
	const struct task *child;
	size_t stopped = 0;

	list_for_each (child, &task->children, sibling)
		stopped += child->state == TASK_STOPPED;
	return allocate(sizeof(struct asked) + stopped * sizeof(struct asked_child));
}

/* The kernel keeps the stop signal of a child until its parent has waited for it. */
static void ask_for_children(const struct task *task, struct call_list *calls, struct asked *asked)
{
	const struct task *child;

	list_for_each (child, &task->children, sibling)
		if (child->state == TASK_STOPPED)
			asked->children[asked->child_count++] = (struct asked_child){
				child,
				add_call(calls, "ask whether it has waited for a stopped child", SYS_waitid,
					 P_PID, thread_id_seen_by(&child->threads[0], task),
					 calls_bytes(calls, NULL, sizeof(siginfo_t)),
					 WSTOPPED | WNOWAIT | WNOHANG | __WALL)
			};
}

static void hear_of_children(const struct call_list *calls, const struct asked *asked)
{
	for (size_t i = 0; i < asked->child_count; i++) {
		const struct asked_child *of = &asked->children[i];
		const siginfo_t *info = calls_answer(calls, of->stop, 2);

		if (calls_result(calls, of->stop) == 0 && !info->si_pid)
			message_set(of->child->cores[0]->tc, stop_reported, true);
	}
}

static void *process_ask(const struct snapshot *snapshot unused, const struct task *task, size_t thread,
			 struct call_list *calls)
{
	struct asked *asked = thread ? allocate(sizeof(*asked)) : new_questions(task);
	long commands;

	asked->personality = add_call(calls, "ask for the personality", SYS_personality, GET_PERSONALITY);
	if (thread)
		return asked;
	ask_for_children(task, calls, asked);
	asked->subreaper = add_call(calls, "ask whether it is a child subreaper", SYS_prctl,
				    PR_GET_CHILD_SUBREAPER, calls_bytes(calls, NULL, sizeof(int)));
	asked->registrations = add_call(calls, "ask for its memory barriers", SYS_membarrier,
					GET_REGISTRATIONS);
	commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
	if (commands >= 0 && commands & GET_REGISTRATIONS)
		return asked;
	for (size_t i = 0; i < array_size(barriers_to_try); i++)
		asked->tries[i] = add_call(calls, "try a memory barrier", SYS_membarrier, barriers_to_try[i]);
	return asked;
}

/* A bit for each registration, from the kernel, or as far as trying finds them. */
static uint32_t registered_barriers(const struct task *task, const struct call_list *calls,
				    const struct asked *asked)
{
	long told = calls_result(calls, asked->registrations);
	uint32_t barriers = 0;

	if (told >= 0)
		return told;
	log_info(
		"process %d: this kernel does not report a registration for the global memory barrier (Linux 6.3 does)",
		task->here);
	for (size_t i = 0; i < array_size(barriers_to_try); i++)
		if (calls_result(calls, asked->tries[i]) == 0)
			barriers |= barriers_to_try[i] << 1;
	return barriers;
}

static int process_hear(const struct snapshot *snapshot unused, struct task *task, size_t thread,
			const struct call_list *calls, const void *state)
{
	const struct asked *asked = state;
	uint32_t barriers, personality = calls_result(calls, asked->personality);
	long result;

	if (thread) {
		if (personality != task->cores[0]->tc->personality)
			message_set(task->cores[thread]->thread_core, personality, personality);
		return 0;
	}
	task->cores[0]->tc->personality = personality;
	hear_of_children(calls, asked);
	barriers = registered_barriers(task, calls, asked);
	if (barriers)
		message_set(task->cores[0]->tc, membarrier_registration_mask, barriers);
	result = calls_result(calls, asked->subreaper);
	if (result < 0)
		return fail(-result, "cannot read whether it is a child subreaper");
	message_set(task->cores[0]->tc, child_subreaper,
		    *(const int *)calls_answer(calls, asked->subreaper, 1));
	return 0;
}

static bool is_terminal_stop(uint32_t signal)
{
	return signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
}

/* Lowering it needs CAP_SYS_RESOURCE (proc(5)). */
static int check_oom(const TaskCoreEntry *core)
{
	autoclose int self = proc_open(getpid());
	struct proc_status status;
	long long ours = 0;
	bool may_lower;

	if (core->oom_score_adj < -1000 || core->oom_score_adj > 1000)
		return fail(EINVAL, "the core image has an invalid oom_score_adj: %d", core->oom_score_adj);
	if (!core->has_oom_score_adj || self < 0 || proc_read_number(self, "oom_score_adj", 10, &ours) < 0 ||
	    core->oom_score_adj >= ours)
		return 0;
	if (proc_read_status(self, &status))
		return -EINVAL;
	may_lower = status.effective >> CAP_SYS_RESOURCE & 1;
	proc_status_free(&status);
	if (may_lower)
		return 0;
	fail_advice("run criu with CAP_SYS_RESOURCE, or with an oom_score_adj of %d or less",
		    core->oom_score_adj);
	return fail(EPERM, "oom_score_adj cannot be lowered from %lld to %d", ours, core->oom_score_adj);
}

static int process_check(const struct snapshot *snapshot unused, const struct task *task, size_t thread)
{
	const TaskCoreEntry *core = task->cores[thread]->tc;
	long commands;

	if (thread)
		return 0;
	if (core->exit_signal >= NSIG)
		return fail(EINVAL, "core-%d.img has an invalid signal: %u", task->pid, core->exit_signal);
	if (core->has_stop_signo && core->stop_signo != SIGSTOP && !is_terminal_stop(core->stop_signo))
		return fail(EINVAL, "core-%d.img has a stop signal that does not stop a process: %u",
			    task->pid, core->stop_signo);
	commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
	if (core->membarrier_registration_mask & ~(commands < 0 ? 0u : (uint32_t)commands))
		return fail(EINVAL,
			    "this kernel does not support all of its memory barriers (membarrier %#x)",
			    core->membarrier_registration_mask);
	return check_oom(core);
}

/* Writes only a value that differs: writing may need a privilege, and a kernel may not have the file. */
static int set_number(int self, const char *name, int base, long long wanted)
{
	char text[32];
	long long now;
	int result;

	if (proc_read_number(self, name, base, &now) < 0 || now == wanted)
		return 0;
	snprintf(text, sizeof(text), "%lld", wanted);
	result = write_text_at(self, name, text);
	return result ? fail(-result, "cannot write %lld to /proc/self/%s", wanted, name) : 0;
}

static int process_prepare(const struct snapshot *snapshot unused, const struct task *task)
{
	autoclose int self = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
	const TaskCoreEntry *core = task->cores[0]->tc;
	int result = 0;

	if (core->has_oom_score_adj)
		result = set_number(self, "oom_score_adj", 10, core->oom_score_adj);
	if (!result && core->has_loginuid)
		result = set_number(self, "loginuid", 10, core->loginuid);
	if (!result && core->has_core_filter)
		result = set_number(self, "coredump_filter", 16, core->core_filter);
	return result;
}

static void process_make(const struct snapshot *snapshot unused, const struct task *task, size_t thread,
			 struct call_list *calls)
{
	const ThreadCoreEntry *own = task->cores[thread]->thread_core;
	const TaskCoreEntry *core = task->cores[thread]->tc;

	/* Each thread has its own personality, nearly always the same; threads other than the leader exist by now. */
	add_call(calls, "set the personality", SYS_personality,
		 own->has_personality ? own->personality : task->cores[0]->tc->personality);
	if (thread)
		return;
	add_call(calls, "set the child subreaper", SYS_prctl, PR_SET_CHILD_SUBREAPER, core->child_subreaper);
	for (int bit = 0; bit < 32; bit++)
		if (core->membarrier_registration_mask >> bit & 1)
			add_call(calls, "register for memory barriers", SYS_membarrier, 1u << bit);
}

const struct task_part part_process = {
	.name = "process",
	.look = process_look,
	.ask = process_ask,
	.hear = process_hear,
	.check = process_check,
	.prepare = process_prepare,
	.make = process_make,
};
