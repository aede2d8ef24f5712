/*
 * answers_test.c - the questions that parts of a task ask a thread in a dump, and what they save of the answers.
 */
#include "unit.h"
#include <errno.h>
#include <linux/securebits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include "base/error.h"
#include "base/log.h"
#include "task/part.h"
#include "task_of_two.h"

#define BASE 0x10000000000ULL

static struct snapshot snapshot; /* empty */

static int start_clean(void **state unused)
{
	failure_clear();
	log_level = 0;
	return 0;
}

/* Answers like a kernel. All answers differ, so that a part that takes the answer of another is noticed. */
static void answer(struct call_list *calls, struct remote_call *made)
{
	static const struct {
		int what;
		long result;
	} results[] = {
		{ PR_GET_SECUREBITS, SECBIT_KEEP_CAPS },
		{ PR_GET_TIMERSLACK, 50000 },
		{ PR_MCE_KILL_GET, PR_MCE_KILL_EARLY },
		{ PR_GET_DUMPABLE, 1 },
	};
	const uint64_t *arguments = made->arguments;
	uint64_t *words;

	made->result = 0;
	switch (made->number) {
	case SYS_rt_sigaction:
		words = calls_at(calls, arguments[2]);
		words[0] = 0x1000 + arguments[0];
		break;
	case SYS_sigaltstack:
		((stack_t *)calls_at(calls, arguments[1]))->ss_size = 0x9000;
		break;
	case SYS_getitimer:
		((struct itimerval *)calls_at(calls, arguments[1]))->it_value.tv_sec = 100 + arguments[0];
		break;
	case SYS_timer_gettime:
		((struct itimerspec *)calls_at(calls, arguments[1]))->it_value.tv_sec = 200 + arguments[0];
		break;
	case SYS_timer_getoverrun:
		made->result = 300 + arguments[0];
		break;
	case SYS_pkey_mprotect:
		made->result = arguments[3] % 5 == 2 ? -ENOMEM : -EINVAL;
		break;
	case SYS_io_uring_enter:
		made->result = -EINVAL; /* it has no ring */
		break;
	case SYS_brk:
		made->result = 0x400000;
		break;
	case SYS_waitid:
		((siginfo_t *)calls_at(calls, arguments[2]))->si_pid = arguments[1] == 12 ? 12 : 0;
		break;
	case SYS_membarrier:
		made->result = 5;
		break;
	case SYS_prctl:
		for (size_t i = 0; i < array_size(results); i++)
			made->result = arguments[0] == (uint64_t)results[i].what ? results[i].result :
										   made->result;
		if (arguments[0] == PR_GET_PDEATHSIG)
			*(int *)calls_at(calls, arguments[1]) = SIGUSR2;
		if (arguments[0] == PR_GET_TSC)
			*(int *)calls_at(calls, arguments[1]) = PR_TSC_SIGSEGV;
		break;
	}
}

static void add_child(struct task *task, struct task *child, pid_t pid, enum task_state state)
{
	child->pid = pid;
	task_make_threads(child, 1);
	child->state = state;
	child->cores = allocate(sizeof(*child->cores));
	child->cores[0] = message_new(CoreEntry, core_entry);
	child->cores[0]->tc = message_new(TaskCoreEntry, task_core_entry);
	list_add(&child->sibling, &task->children);
}

static void check_answers(const struct task *task)
{
	const ThreadCoreEntry *own = task->cores[0]->thread_core;
	const TaskCoreEntry *core = task->cores[0]->tc;

	assert_int_equal(core->n_sigactions, 62);
	assert_int_equal(core->sigactions[0]->sigaction, 0x1001);
	assert_int_equal(core->sigactions[8]->sigaction, 0x100a); /* SIGKILL is skipped */
	assert_int_equal(core->sigactions[61]->sigaction, 0x1040);
	assert_int_equal(own->sas->ss_size, 0x9000);
	assert_int_equal(core->timers->real->vsec, 100 + ITIMER_REAL);
	assert_int_equal(core->timers->prof->vsec, 100 + ITIMER_PROF);
	assert_int_equal(core->timers->posix[0]->vsec, 203);
	assert_int_equal(core->timers->posix[1]->vsec, 205);
	assert_int_equal(core->timers->posix[1]->overrun, 305);
	assert_int_equal(task->space->mm->keys, 1 << 2 | 1 << 7 | 1 << 12);
	assert_int_equal(task->space->mm->mm_brk, 0x400000);
	assert_int_equal(task->space->mm->dumpable, 1);
	assert_int_equal(core->membarrier_registration_mask, 5);
	assert_int_equal(own->creds->secbits, SECBIT_KEEP_CAPS);
	assert_int_equal(own->timer_slack, 50000);
	assert_int_equal(own->memory_failure, PR_MCE_KILL_EARLY);
	assert_int_equal(own->time_stamps, PR_TSC_SIGSEGV);
	assert_int_equal(own->pdeath_sig, SIGUSR2);
}

/* Each part finds its answers anywhere in the list: here all parts have asked twice, from the last to the first. */
/* hear() makes new ones. */
static void forget_itimers(struct task *task)
{
	TaskTimersEntry *timers = task->cores[0]->tc->timers;

	image_free(timers->real);
	image_free(timers->virt);
	image_free(timers->prof);
	timers->real = timers->virt = timers->prof = NULL;
}

static void answers_are_found(void **state unused)
{
	struct task *task = new_task();
	struct task children[3] = { 0 };
	autofree void **asked = allocate_array(task_part_count, sizeof(*asked));
	struct call_list calls;

	task->space->mm = message_new(MmEntry, mm_entry);
	list_init(&task->children);
	add_child(task, &children[0], 11, TASK_STOPPED);
	add_child(task, &children[1], 12, TASK_STOPPED);
	add_child(task, &children[2], 13, TASK_ALIVE);
	add_timer(task, 3, CLOCK_MONOTONIC, 0, 0);
	add_timer(task, 5, CLOCK_MONOTONIC, 0, 0);
	forget_itimers(task);
	task->cores[0]->tc->signals_s = message_new(SignalQueueEntry, signal_queue_entry);
	calls_init(&calls, BASE);
	for (size_t i = task_part_count; i-- > 0;)
		if (task_parts[i]->ask) {
			if (part_concerns(task_parts[i], task, 1))
				free(task_parts[i]->ask(&snapshot, task, 1, &calls));
			asked[i] = task_parts[i]->ask(&snapshot, task, 0, &calls);
		}
	for (size_t i = 0; i < calls.count; i++)
		answer(&calls, &calls.calls[i]);
	for (size_t i = 0; i < task_part_count; i++) {
		if (task_parts[i]->hear && task_parts[i] != &part_pending_signals) /* needs a tracee */
			assert_int_equal(task_parts[i]->hear(&snapshot, task, 0, &calls, asked[i]), 0);
		free(asked[i]);
	}
	check_answers(task);
	assert_true(children[0].cores[0]->tc->stop_reported);
	assert_false(children[1].cores[0]->tc->stop_reported);
	assert_false(children[2].cores[0]->tc->stop_reported);
	for (size_t i = 0; i < array_size(children); i++) {
		image_free(children[i].cores[0]);
		free(children[i].cores);
		task_free_threads(&children[i]);
	}
	calls_free(&calls);
	free_task(task);
}

/* If a call fails, the part that has asked reports it. */
static void answers_refused(void **state unused)
{
	static const struct {
		const struct task_part *part;
		const char *says;
	} rows[] = {
		{ &part_credentials, "cannot read the securebits" },
		{ &part_identity, "cannot read the addresses that the kernel has for thread 4711" },
		{ &part_signals, "cannot read the alternate signal stack" },
		{ &part_process, "cannot read whether it is a child subreaper" },
		{ &part_posix_timers, "cannot read timer 3" },
		{ &part_timers, "cannot read the timer of real time" },
	};

	for (size_t i = 0; i < array_size(rows); i++) {
		struct task *task = new_task();
		struct call_list calls;
		autofree void *asked = NULL;
		char report[4096];

		list_init(&task->children);
		add_timer(task, 3, CLOCK_MONOTONIC, 0, 0);
		forget_itimers(task);
		calls_init(&calls, BASE);
		asked = rows[i].part->ask(&snapshot, task, 0, &calls);
		for (size_t at = 0; at < calls.count; at++)
			calls.calls[at].result = -ENOSYS;
		assert_true(rows[i].part->hear(&snapshot, task, 0, &calls, asked) < 0);
		failure_report(report, sizeof(report), "test", NULL);
		assert_non_null(strstr(report, rows[i].says));
		failure_clear();
		calls_free(&calls);
		free_task(task);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(answers_are_found, start_clean),
		cmocka_unit_test_setup(answers_refused, start_clean),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
