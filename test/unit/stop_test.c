/*
 * stop_test.c - the signal that stops a restored process: which signals an image may name, and their actions in it.
 */
#include "unit.h"
#include <errno.h>
#include <signal.h>
#include "base/error.h"
#include "image/message.h"
#include "task/part.h"

#define ACTIONS 62 /* SIGKILL and SIGSTOP have none */

static struct task *new_task(void)
{
	struct task *task = allocate(sizeof(*task));
	TaskCoreEntry *core = message_new(TaskCoreEntry, task_core_entry);

	list_init(&task->children);
	task->cores = allocate(sizeof(*task->cores));
	task->cores[0] = message_new(CoreEntry, core_entry);
	task->cores[0]->thread_core = message_new(ThreadCoreEntry, thread_core_entry);
	task->cores[0]->tc = core;
	message_array(core, sigactions, ACTIONS);
	for (int i = 0; i < ACTIONS; i++)
		core->sigactions[i] = message_new(SaEntry, sa_entry);
	return task;
}

static void free_task(struct task *task)
{
	image_free(task->cores[0]);
	free(task->cores);
	free(task);
}

static void signals_that_stop(void **state unused)
{
	const uint32_t stops[] = { SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU },
		       others[] = { 0, SIGKILL, SIGCONT, 65, ~0u };
	const struct snapshot snapshot = { 0 };
	struct task *task = new_task();

	for (size_t i = 0; i < array_size(stops); i++) {
		message_set(task->cores[0]->tc, stop_signo, stops[i]);
		assert_int_equal(part_process.check(&snapshot, task, 0), 0);
	}
	for (size_t i = 0; i < array_size(others); i++) {
		message_set(task->cores[0]->tc, stop_signo, others[i]);
		assert_int_equal(part_process.check(&snapshot, task, 0), -EINVAL);
		failure_clear();
	}
	free_task(task);
}

static void actions_of_signals(void **state unused)
{
	struct task *task = new_task();

	for (int signal = 1; signal <= 64; signal++)
		assert_true(signal_has_default_action(task, signal));
	task->cores[0]->tc->sigactions[SIGTSTP - 3]->sigaction =
		1; /* SIG_IGN; two signals before it have no action */
	for (int signal = 1; signal <= 64; signal++)
		assert_int_equal(signal_has_default_action(task, signal), signal != SIGTSTP);
	free_task(task);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(signals_that_stop),
		cmocka_unit_test(actions_of_signals),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
