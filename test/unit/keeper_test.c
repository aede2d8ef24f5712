/*
 * keeper_test.c - from its start until tracking.img is removed, a keeper can be found, and gives back the descriptors
 * that it keeps.
 */
#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
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

static char directory_name[] = "/tmp/keeper_test.XXXXXX";

static int make_directory(void **state unused)
{
	strcpy(strrchr(directory_name, '.'), ".XXXXXX");
	return mkdtemp(directory_name) ? 0 : -1;
}

static int remove_directory(void **state unused)
{
	return rmdir(directory_name);
}

static void put_tracking(void)
{
	autofree char *path = format_text("%s/tracking.img", directory_name);

	close(open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600));
}

static void remove_tracking(void)
{
	autofree char *path = format_text("%s/tracking.img", directory_name);

	assert_int_equal(unlink(path), 0);
}

static void start(struct keeper *keeper, const struct kept *kept)
{
	int directory = open(directory_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

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
	put_tracking();
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
	remove_tracking();
}

/*
 * Until the snapshot is confirmed, an older tracking.img in the same directory may be removed; later its own must
 * exist.
 */
static void ends_with_tracking(void **state unused)
{
	for (int is_there = 0; is_there <= 1; is_there++) {
		struct kept kept = make_kept(0);
		struct keeper keeper;
		pid_t pid;

		put_tracking();
		start(&keeper, &kept);
		pid = keeper.pid;
		remove_tracking();
		if (is_there)
			put_tracking();
		assert_int_equal(keeper_confirm(&keeper), 0);
		if (is_there) {
			usleep(50000);
			assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
			remove_tracking();
		}
		wait_for(pid);
		keeper_forget(&keeper);
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

/* It is killed before it is confirmed: criu gets an error, not a signal. */
static void killed_before_it_is_confirmed(void **state unused)
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
#define test(function) cmocka_unit_test_setup_teardown(function, make_directory, remove_directory)
	const struct CMUnitTest tests[] = {
		test(is_found_at_once),
		test(ends_with_tracking),
		test(ends_when_it_is_not_confirmed),
		test(killed_before_it_is_confirmed),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
