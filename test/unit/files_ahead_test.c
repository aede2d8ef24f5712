/*
 * files_ahead_test.c - what was prepared for the open files of a running process is used for what is still so, and only
 * for that. The process is a child of this test, which changes what it has open when it is told to.
 */
#include "unit.h"
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"
#include "image/image.h"
#include "image/message.h"

static char directory[] = "/tmp/files_ahead_test.XXXXXX";
static struct snapshot snapshot;
static pid_t child;
static int many; /* descriptors of the child */

static bool is_any(const struct snapshot *any unused, const struct seen_file *seen unused)
{
	return true;
}

static int describe(struct snapshot *any unused, struct file *file unused)
{
	return 0;
}

const struct file_kind file_kind_regular = {
	.name = "file",
	.type = FD_TYPES__REG,
	.message = offsetof(FileEntry, reg),
	.recognizes = is_any,
	.describe = describe,
};
const struct file_kind *const file_kinds[] = { &file_kind_regular };
const size_t file_kind_count = 1;

/* ---- the process ---- */

static const char *path_of(const char *name, int number)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s.%d", directory, name, number);
	return path;
}

static void open_at(int fd, const char *path)
{
	int opened = open(path, O_RDWR | O_CREAT, 0600);

	if (opened < 0 || (opened != fd && (dup2(opened, fd) < 0 || close(opened))))
		_exit(1);
}

static void stop(void)
{
	raise(SIGSTOP);
}

static does_not_return void live(void (*change)(void))
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	syscall(SYS_close_range, 0, ~0U, 0);
	for (int fd = 0; fd < many; fd++)
		open_at(fd, path_of("file", fd));
	stop();
	change();
	stop();
	_exit(1);
}

static void await_stop(void)
{
	int status;

	assert_int_equal(waitpid(child, &status, WUNTRACED), child);
	assert_true(WIFSTOPPED(status));
}

/* Prepares for the process, then lets it change, then looks at it. */
static void look_at(void (*change)(void))
{
	struct task *task;

	failure_clear();
	log_level = 0;
	assert_non_null(mkdtemp(directory));
	child = fork();
	assert_true(child >= 0);
	if (!child)
		live(change);
	await_stop();
	snapshot_init(&snapshot);
	files_look_ahead(&snapshot, &child, 1);
	assert_int_equal(files_ahead(&snapshot, child)->count, many);
	kill(child, SIGCONT);
	await_stop();
	task = snapshot_add_task_here(&snapshot, NULL, child);
	task->proc = proc_open(child);
	task->pidfd = syscall(SYS_pidfd_open, child, 0);
	assert_int_equal(files_collect(&snapshot), 0);
	files_let_go(&snapshot, DUMP_RUNS_ON);
}

static void forget(void)
{
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	for (size_t i = 0; i < snapshot.file_count; i++) {
		seen_file_free(snapshot.files[i]->seen);
		free(snapshot.files[i]->seen);
	}
	snapshot_free(&snapshot);
	for (int i = 0; i < many; i++) {
		unlink(path_of("file", i));
		unlink(path_of("other", i));
	}
	assert_int_equal(rmdir(directory), 0);
	strcpy(strrchr(directory, '.'), ".XXXXXX");
}

static const struct seen_file *seen_at(int fd)
{
	return task_find_descriptor(snapshot.root, fd)->file->seen;
}

static void expect_path(int fd, const char *name, int number)
{
	assert_string_equal(seen_at(fd)->link, path_of(name, number));
	assert_true(seen_at(fd)->is_at_path);
}

/* ---- the tests ---- */

static void change_nothing(void)
{
}

static void nothing_changed(void **state unused)
{
	look_at(change_nothing);
	assert_int_equal(snapshot.file_count, many);
	for (int fd = 0; fd < many; fd++)
		expect_path(fd, "file", fd);
	/* The paths were taken over, not read again. */
	assert_null(table_ahead_find(files_ahead(&snapshot, child), 7)->link);
	forget();
}

/* The same numbers, and something else behind them. */
static void change_files(void)
{
	char old[PATH_MAX];

	lseek(3, 4711, SEEK_SET);
	fcntl(4, F_SETFD, FD_CLOEXEC);
	fcntl(5, F_SETFL, O_APPEND);
	open_at(6, path_of("other", 6));
	strcpy(old, path_of("file", 7));
	rename(old, path_of("other", 7));
	unlink(path_of("file", 8));
	unlink(path_of("file", 9));
	close(open(path_of("file", 9), O_RDWR | O_CREAT, 0600));
	strcpy(old, path_of("file", 10));
	link(old, path_of("other", 10));
	open_at(10, path_of("other", 10));
	dup2(12, 11);
	strcpy(old, path_of("file", 14));
	rename(old, path_of("other", 14));
	symlink(path_of("other", 14), old);
}

static void files_changed(void **state unused)
{
	look_at(change_files);
	assert_int_equal(snapshot.file_count, many - 1);
	assert_int_equal(seen_at(3)->info.position, 4711);
	assert_true(task_find_descriptor(snapshot.root, 4)->closes_on_exec);
	assert_false(task_find_descriptor(snapshot.root, 3)->closes_on_exec);
	assert_true(seen_at(5)->info.flags & O_APPEND);
	expect_path(6, "other", 6);
	expect_path(7, "other", 7);
	assert_false(seen_at(8)->is_at_path);
	assert_false(seen_at(9)->is_at_path);
	expect_path(10, "other", 10);
	expect_path(11, "file", 12);
	assert_ptr_equal(seen_at(11), seen_at(12));
	expect_path(13, "file", 13);
	expect_path(14, "other", 14); /* not the link to it that has its old name now */
	forget();
}

/* As many numbers as before, but two others. */
static void change_numbers(void)
{
	open_at(many + 10, path_of("other", 1));
	open_at(many + 20, path_of("other", 2));
	close(20);
	close(30);
}

static void numbers_changed(void **state unused)
{
	look_at(change_numbers);
	assert_int_equal(snapshot.root->table->count, many);
	assert_null(task_find_descriptor(snapshot.root, 20));
	assert_null(task_find_descriptor(snapshot.root, 30));
	expect_path(many + 10, "other", 1);
	expect_path(many + 20, "other", 2);
	expect_path(19, "file", 19);
	forget();
}

static void close_some(void)
{
	syscall(SYS_close_range, 40, many - 2, 0);
	open_at(60, path_of("other", 60));
}

static void fewer_numbers(void **state unused)
{
	look_at(close_some);
	assert_int_equal(snapshot.root->table->count, 42);
	expect_path(39, "file", 39);
	expect_path(60, "other", 60);
	expect_path(many - 1, "file", many - 1);
	forget();
}

static void only_these_are_closed(void **state unused)
{
	int numbers[] = { 307, 300, 302, 301, 305 };

	for (int fd = 299; fd < 310; fd++)
		assert_int_equal(dup2(STDERR_FILENO, fd), fd);
	descriptors_close(numbers, array_size(numbers));
	for (int fd = 299; fd < 310; fd++) {
		bool is_closed = fcntl(fd, F_GETFD) < 0;

		assert_int_equal(is_closed, (fd >= 300 && fd <= 302) || fd == 305 || fd == 307);
		close(fd);
	}
	descriptors_close(numbers, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_changed),	 cmocka_unit_test(files_changed),
		cmocka_unit_test(numbers_changed),	 cmocka_unit_test(fewer_numbers),
		cmocka_unit_test(only_these_are_closed),
	};
	struct rlimit before;
	int failed;

	descriptors_unlimit(&before);
	many = 200;
	failed = cmocka_run_group_tests_name("each is looked at", tests, NULL, NULL);
	many = 1200;
	return failed + cmocka_run_group_tests_name("they are listed at once", tests, NULL, NULL);
}
