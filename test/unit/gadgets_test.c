/*
 * gadgets_test.c - code of a task is overwritten for a moment. It is restored, or there is an error.
 */
#include "unit.h"
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "internal.h"

static pid_t start_child(void)
{
	pid_t child = fork();

	while (child == 0)
		pause();
	return child;
}

static void end_child(pid_t child)
{
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
}

/* Is the code in the child the same as in this process? */
static void assert_code_is(pid_t child, uint64_t address, bool is_ours)
{
	char theirs[8];
	struct iovec here = { theirs, sizeof(theirs) }, there = { (void *)address, sizeof(theirs) };

	assert_int_equal(process_vm_readv(child, &here, 1, &there, 1, 0), sizeof(theirs));
	assert_int_equal(!memcmp(theirs, (void *)address, sizeof(theirs)), is_ours);
}

static void comes_back(void **state unused)
{
	struct gadgets gadgets = { .borrowed = (uintptr_t)end_child };
	pid_t child = start_child();

	assert_int_equal(gadgets_lend(&gadgets, child), 0);
	assert_code_is(child, gadgets.borrowed, false);
	/* The second time it does not save the code that it has written itself. */
	assert_int_equal(gadgets_lend(&gadgets, child), 0);
	assert_int_equal(gadgets_give_back(&gadgets, child), 0);
	assert_code_is(child, gadgets.borrowed, true);
	assert_int_equal(gadgets_give_back(&gadgets, child), 0);
	assert_false(has_failed());
	end_child(child);
}

static void cannot_come_back(void **state unused)
{
	struct gadgets gadgets = { .borrowed = (uintptr_t)end_child };
	pid_t child = start_child();

	assert_int_equal(gadgets_lend(&gadgets, child), 0);
	end_child(child);
	assert_true(gadgets_give_back(&gadgets, child) < 0);
	assert_non_null(strstr(failure_text(), "the code that was overwritten"));
	assert_true(gadgets.at[GADGET_SYSCALL_RETURN] != 0); /* it still has to be restored */
	failure_clear();
}

/* Who asks knows which process it is, and says so. */
static void nothing_found(void **state unused)
{
	struct gadgets gadgets = {};
	struct maps none = {};

	assert_true(gadgets_find(&gadgets, getpid(), &none) < 0);
	assert_non_null(strstr(failure_text(), "it has no code that could be used for a system call"));
	assert_null(strstr(failure_text(), "process"));
	failure_clear();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_found),
		cmocka_unit_test(comes_back),
		cmocka_unit_test(cannot_come_back),
	};

	error_init();
	log_level = 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
