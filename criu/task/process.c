/*
 * process.c - small properties of a whole process: personality, subreaper, oom_score_adj, loginuid, state.
 *
 * oom_score_adj and loginuid are files of /proc, written on restore by the newborn before it leaves our code
 * (restore/newborn.c); here they are read and checked.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include "base/error.h"
#include "image/message.h"
#include "task/part.h"

#define ASK_SUBREAPER "ask whether it is a child subreaper"

static int look(struct task *task, size_t thread, const struct thread_facts *facts unused)
{
	TaskCoreEntry *core = task->cores[thread]->tc;
	struct proc_stat stat;
	long long number;

	if (thread)
		return 0;
	if (proc_read_stat(task->proc, &stat))
		return -EINVAL;
	core->task_state = task->state;
	core->flags = stat.flags;
	core->comm = copy_text(stat.comm);
	if (task->state == TASK_STOPPED)
		message_set(core, stop_signo, task->stop_signal);
	if (proc_read_number(task->proc, "personality", 16, &number) < 0)
		return fail(EACCES, "cannot read the personality");
	core->personality = number;
	if (proc_read_number(task->proc, "oom_score_adj", 10, &number) == 0)
		message_set(core, oom_score_adj, number);
	if (proc_read_number(task->proc, "loginuid", 10, &number) == 0)
		message_set(core, loginuid, number);
	return 0;
}

static void ask(const struct task *task unused, size_t thread, struct call_list *calls)
{
	if (!thread)
		call(calls, ASK_SUBREAPER, SYS_prctl, PR_GET_CHILD_SUBREAPER,
		     calls_bytes(calls, NULL, sizeof(int)));
}

static int hear(struct task *task, size_t thread, const struct call_list *calls)
{
	const struct remote_call *asked = calls_find(calls, ASK_SUBREAPER);

	if (thread)
		return 0;
	if (asked->result < 0)
		return fail(-asked->result, "cannot " ASK_SUBREAPER);
	message_set(task->cores[0]->tc, child_subreaper, *(int *)calls_at(calls, asked->arguments[1]));
	return 0;
}

static int check(const struct task *task, size_t thread)
{
	const TaskCoreEntry *core = task->cores[thread]->tc;
	long long ours = 0;
	autoclose int self = -1;

	if (thread || !core->has_oom_score_adj)
		return 0;
	self = proc_open(getpid());
	/* Lowering it needs CAP_SYS_RESOURCE (proc(5)). */
	if (self >= 0 && proc_read_number(self, "oom_score_adj", 10, &ours) == 0 &&
	    core->oom_score_adj < ours && prctl(PR_CAPBSET_READ, 24 /* CAP_SYS_RESOURCE */) != 1) {
		fail_advice("run criu with CAP_SYS_RESOURCE, or with an oom_score_adj of %d or less",
			    core->oom_score_adj);
		return fail(EPERM, "oom_score_adj cannot be lowered from %lld to %d", ours,
			    core->oom_score_adj);
	}
	return 0;
}

static void make(const struct task *task, size_t thread, struct call_list *calls)
{
	const TaskCoreEntry *core = task->cores[thread]->tc;

	if (thread)
		return;
	call(calls, "set the personality", SYS_personality, core->personality);
	call(calls, "set the child subreaper", SYS_prctl, PR_SET_CHILD_SUBREAPER, core->child_subreaper);
}

const struct task_part part_process = {
	.name = "process",
	.look = look,
	.ask = ask,
	.hear = hear,
	.check = check,
	.make = make,
};
