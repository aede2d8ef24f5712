/*
 * keeper_test.c - a keeper can be found, and gives what it keeps, from the moment on in which it was started.
 */
#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "memory/keeper.h"

#define ROUNDS 50

static void wait_for(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
}

/* An eventfd stands for a userfaultfd. */
static struct kept make_kept(int number)
{
	return (struct kept){ .pidfd = syscall(SYS_pidfd_open, getpid(), 0),
			      .userfaultfd = eventfd(number, EFD_CLOEXEC) };
}

static void start(struct keeper *keeper, const struct kept *kept)
{
	int directory = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	assert_true(directory >= 0);
	assert_int_equal(keeper_start(keeper, kept, 1, directory), 0);
	close(directory);
}

static void drop(const struct kept *kept)
{
	close(kept->pidfd);
	close(kept->userfaultfd);
}

static void is_found_at_once(void **state unused)
{
	for (int i = 0; i < ROUNDS; i++) {
		struct kept kept = make_kept(i);
		struct keeper keeper, found;
		uint64_t number;
		pid_t pid;
		int taken;

		start(&keeper, &kept);
		pid = keeper.pid;
		assert_int_equal(keeper_find(&found, keeper.pid, keeper.started), 0);
		assert_int_equal(keeper_confirm(&keeper), 0);
		taken = keeper_take(&found, kept.userfaultfd);
		assert_true(taken >= 0);
		if (i)
			assert_int_equal(read(taken, &number, sizeof(number)), sizeof(number));
		close(taken);
		keeper_end(&found);
		keeper_forget(&keeper);
		wait_for(pid);
		drop(&kept);
	}
}

static void ends_when_it_is_not_confirmed(void **state unused)
{
	struct kept kept = make_kept(0);
	struct keeper keeper;
	pid_t pid;

	start(&keeper, &kept);
	pid = keeper.pid;
	keeper_forget(&keeper);
	wait_for(pid);
	drop(&kept);
}

/* Somebody kills it before it is confirmed: that is an error, and no signal. */
static void is_told_to_be_gone(void **state unused)
{
	struct kept kept = make_kept(0);
	struct keeper keeper;

	start(&keeper, &kept);
	kill(keeper.pid, SIGKILL);
	wait_for(keeper.pid);
	assert_int_equal(keeper_confirm(&keeper), -EPIPE);
	failure_clear();
	keeper_forget(&keeper);
	drop(&kept);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_found_at_once),
		cmocka_unit_test(ends_when_it_is_not_confirmed),
		cmocka_unit_test(is_told_to_be_gone),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
