/*
 * place_test.c - run_in() as far as it needs no privileges: what the child and its parent share, and how the parent
 * learns of the child's failures and death. test/live/place_test.c has namespaces, ids and pids.
 */
#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/place.h"

static const struct place here = PLACE_HERE;

static int setup(void **state unused)
{
	failure_clear();
	return 0;
}

/* After each test there is no child, and the signal mask and the dumpable flag have not changed. */
static int nothing_is_left(void **state unused)
{
	sigset_t mask;

	sigprocmask(SIG_SETMASK, NULL, &mask);
	return waitpid(-1, NULL, WNOHANG | __WALL) >= 0 || errno != ECHILD || sigismember(&mask, SIGTERM) ||
	       prctl(PR_GET_DUMPABLE) != 1;
}

struct finding {
	pid_t pid, parent;
	char *text;
	int fd;
};

static int look_around(void *argument)
{
	struct finding *finding = argument;

	finding->pid = getpid();
	finding->parent = getppid();
	finding->text = format_text("written by %d", finding->pid);
	finding->fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
	errno = 0;
	return 4711;
}

static void memory_and_descriptors_are_ours(void **state unused)
{
	struct finding finding = { .fd = -1 };
	autofree char *expected = NULL;

	assert_int_equal(run_in(&here, look_around, &finding), 4711);
	assert_int_equal(finding.parent, getpid());
	assert_int_not_equal(finding.pid, getpid());
	expected = format_text("written by %d", finding.pid);
	assert_string_equal(finding.text, expected);
	assert_true(fcntl(finding.fd, F_GETFD) == FD_CLOEXEC);
	assert_false(has_failed());
	close(finding.fd);
	free(finding.text);
}

static int fail_here(void *argument)
{
	return fail(ENOENT, "no such %s", (const char *)argument);
}

static void a_failure_is_ours(void **state unused)
{
	int result = run_in(&here, fail_here, "thing");

	assert_int_equal(result, -ENOENT);
	assert_int_equal(fail_in(result, "file %d", 7), -ENOENT);
	assert_string_equal(failure_text(), "file 7: no such thing: No such file or directory");
}

static void the_first_failure_stays(void **state unused)
{
	fail(EIO, "something else");
	assert_int_equal(run_in(&here, fail_here, "thing"), -ENOENT);
	assert_string_equal(failure_text(), "something else: Input/output error");
}

static int end_by_signal(void *argument)
{
	syscall(SYS_kill, syscall(SYS_getpid), *(const int *)argument);
	return 0;
}

static int exit_early(void *unused_argument unused)
{
	syscall(SYS_exit_group, 3);
	return 0;
}

static void a_death_is_a_failure(void **state unused)
{
	int signo = SIGKILL;

	assert_int_equal(run_in(&here, end_by_signal, &signo), -ECHILD);
	assert_non_null(strstr(failure_text(), "was killed by signal 9"));
	failure_clear();
	assert_int_equal(run_in(&here, exit_early, NULL), -ECHILD);
	assert_non_null(strstr(failure_text(), "ended too early"));
}

static void other_signals_do_nothing(void **state unused)
{
	int signo = SIGTERM;

	assert_int_equal(run_in(&here, end_by_signal, &signo), 0);
}

static int use_stack(void *argument)
{
	volatile char bytes[4096];

	memset((char *)bytes, 1, sizeof(bytes));
	return *(size_t *)argument == 0 ? bytes[0] :
					  (--*(size_t *)argument, use_stack(argument)) + bytes[1] - 1;
}

/* The guard page protects what is behind the stack. */
static void the_stack_has_an_end(void **state unused)
{
	size_t enough = 200, too_much = 300;

	assert_int_equal(run_in(&here, use_stack, &enough), 1);
#ifdef __SANITIZE_ADDRESS__ /* its SIGSEGV handler would die with locks held, and it keeps the dead child's frames */
	(void)too_much;
#else
	assert_int_equal(run_in(&here, use_stack, &too_much), -ECHILD);
	assert_non_null(strstr(failure_text(), "was killed by signal 11"));
#endif
}

static int nest(void *argument)
{
	return run_in(&here, look_around, argument);
}

static void one_in_another(void **state unused)
{
	struct finding finding = { .fd = -1 };

	assert_int_equal(run_in(&here, nest, &finding), 4711);
	assert_int_not_equal(finding.parent, getpid());
	close(finding.fd);
	free(finding.text);
}

static atomic_bool is_over;

static void *allocate_all_the_time(void *unused_argument unused)
{
	while (!is_over)
		free(copy_text("some text that is neither long nor short"));
	return NULL;
}

static int allocate_much(void *argument)
{
	char **texts = argument;

	for (int i = 0; i < 100; i++) {
		free(texts[i]);
		texts[i] = format_text("%0*d", i * 20, i);
	}
	return 0;
}

static void *run_often(void *unused_argument unused)
{
	char *texts[100] = {};

	for (int i = 0; i < 200; i++)
		if (run_in(&here, allocate_much, texts))
			return "failed";
	for (int i = 0; i < 100; i++) {
		if (strtol(texts[i], NULL, 10) != i)
			return "wrong";
		free(texts[i]);
	}
	return NULL;
}

/* run_in() in a second thread, while another one uses malloc(). */
static void beside_other_threads(void **state unused)
{
	pthread_t other, runner;
	void *answer;

	is_over = false;
	assert_int_equal(pthread_create(&other, NULL, allocate_all_the_time, NULL), 0);
	assert_int_equal(pthread_create(&runner, NULL, run_often, NULL), 0);
	pthread_join(runner, &answer);
	is_over = true;
	pthread_join(other, NULL);
	assert_null(answer);
}

static int do_nothing(void *argument unused)
{
	return 0;
}

/* 1: it cannot have the groups; 2: it can have others. */
static int try_groups_as_user(void)
{
	const gid_t own[] = { 1005, 1007 }, others[] = { 1005, 1008 };
	struct place place = PLACE_HERE;

	if (setgroups(2, own) < 0 || setresgid(1000, 1000, 1000) < 0 || setresuid(1000, 1000, 1000) < 0)
		return 3;
	place.group_count = 2;
	place.groups = own;
	if (run_in(&place, do_nothing, NULL))
		return 1;
	place.groups = others;
	return run_in(&place, do_nothing, NULL) == -EPERM ? 0 : 2;
}

static void own_groups_need_no_right(void **state unused)
{
	int status;
	pid_t child;

	if (geteuid())
		skip();
	child = fork();
	if (!child)
		_exit(try_groups_as_user());
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void what_cannot_be_joined(void **state unused)
{
	autoclose int fd = open("/dev/null", O_RDONLY);
	struct place place = PLACE_HERE;

	place.net = fd;
	assert_int_equal(run_in(&place, fail_here, "thing"), -EINVAL);
	assert_string_equal(failure_text(), "cannot join a network namespace");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(memory_and_descriptors_are_ours, setup, nothing_is_left),
		cmocka_unit_test_setup_teardown(a_failure_is_ours, setup, nothing_is_left),
		cmocka_unit_test_setup_teardown(the_first_failure_stays, setup, nothing_is_left),
		cmocka_unit_test_setup_teardown(a_death_is_a_failure, setup, nothing_is_left),
		cmocka_unit_test_setup_teardown(other_signals_do_nothing, setup, nothing_is_left),
		cmocka_unit_test_setup_teardown(the_stack_has_an_end, setup, nothing_is_left),
		cmocka_unit_test_setup_teardown(one_in_another, setup, nothing_is_left),
		cmocka_unit_test_setup_teardown(beside_other_threads, setup, nothing_is_left),
		cmocka_unit_test_setup_teardown(own_groups_need_no_right, setup, nothing_is_left),
		cmocka_unit_test_setup_teardown(what_cannot_be_joined, setup, nothing_is_left),
	};

	/* setpriv's change of ids, or an unreadable executable, may have cleared it */
	prctl(PR_SET_DUMPABLE, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
