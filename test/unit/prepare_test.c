/*
 * prepare_test.c - prepare() of parts of a task, which runs in a newborn before it leaves criu's code. Here the
 * newborn is a child of the test.
 */
#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "files/kind.h"
#include "task/part.h"
#include "task_of_two.h"

#ifndef PR_SET_MEMORY_MERGE /* Linux 6.4 */
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif

static struct snapshot snapshot;
static struct task *task;

static struct file *add_directory(uint32_t id, const char *name, int fd)
{
	struct file *file = snapshot_add_file(&snapshot, id);

	file->kind = &file_kind_regular;
	file->entry = message_new(FileEntry, file_entry);
	file->entry->reg = message_new(RegFileEntry, reg_file_entry);
	file->entry->reg->name = copy_text(name);
	file->fd = fd;
	return file;
}

static int set_up(void **state unused)
{
	failure_clear();
	log_level = 0;
	snapshot_init(&snapshot);
	task = new_task();
	task->directories->fs = message_new(FsEntry, fs_entry);
	task->directories->fs->root_id = 1;
	task->directories->fs->cwd_id = 2;
	add_directory(1, "/", open("/", O_RDONLY | O_CLOEXEC));
	add_directory(2, "/proc", open("/proc", O_RDONLY | O_CLOEXEC));
	return 0;
}

static int tear_down(void **state unused)
{
	free_task(task);
	for (size_t i = 0; i < snapshot.file_count; i++)
		close(snapshot.files[i]->fd);
	snapshot_free(&snapshot);
	return 0;
}

/* Runs prepare() in a child, and then `is_right` there. The failure record is shared. */
static void prepare(const struct task_part *part, bool (*is_right)(void), const char *says)
{
	char report[4096];
	pid_t child = fork();
	int status;

	if (!child) {
		int result = part->prepare(&snapshot, task);

		_exit(says ? result >= 0 : result < 0 || !is_right());
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	failure_report(report, sizeof(report), "test", NULL);
	if (status || (says && !strstr(report, says)))
		fail_msg("status %#x, expected: %s; recorded:\n%s", status, says ?: "success", report);
	failure_clear();
}

/* ---- directories ---- */

static bool is_in_proc(void)
{
	char path[64];

	return getcwd(path, sizeof(path)) && !strcmp(path, "/proc") && umask(0) == 027;
}

static void directories(void **state unused)
{
	message_set(task->directories->fs, umask, 027);
	prepare(&part_directories, is_in_proc, NULL);
}

static bool has_proc_as_root(void)
{
	char path[64];

	return access("/self/status", R_OK) == 0 && getcwd(path, sizeof(path)) && !strcmp(path, "/sys");
}

/* The path of the working directory does not exist below the new root; only its descriptor leads there. */
static void another_root(void **state unused)
{
	task->directories->fs->root_id = 2;
	task->directories->fs->cwd_id = 3;
	add_directory(3, "/proc/sys", open("/proc/sys", O_RDONLY | O_CLOEXEC));
	if (geteuid() == 0)
		prepare(&part_directories, has_proc_as_root, NULL);
	else
		prepare(&part_directories, NULL, "cannot change the root to /proc: Operation not permitted");
}

static void no_directories(void **state unused)
{
	add_directory(3, "/proc/version", open("/proc/version", O_RDONLY | O_CLOEXEC));
	task->directories->fs->cwd_id = 3;
	prepare(&part_directories, NULL, "cannot change the directory to /proc/version: Not a directory");
	task->directories->fs->cwd_id = 4;
	prepare(&part_directories, NULL, "its root and working directory are missing");
	task->directories->fs->cwd_id = 2;
	close(snapshot.files[0]->fd);
	snapshot.files[0]->fd = -1;
	prepare(&part_directories, NULL, "its root and working directory are missing");
}

static void check_says(const struct task_part *part, const char *says)
{
	int result = part->check(&snapshot, task, 0);
	char report[4096];

	failure_report(report, sizeof(report), "test", NULL);
	if (says ? result >= 0 || !strstr(report, says) : result < 0)
		fail_msg("%d, expected: %s; recorded:\n%s", result, says ?: "success", report);
	failure_clear();
}

static void directories_checked(void **state unused)
{
	check_says(&part_directories, NULL);
	task->directories->fs->cwd_id = 4;
	check_says(&part_directories, "files.img: its working directory (file 4) is missing");
	task->directories->fs->cwd_id = 2;
	snapshot.files[1]->is_only_path = true;
	check_says(&part_directories, "its working directory (file 2)");
	snapshot.files[1]->is_only_path = false;
	snapshot.files[0]->kind = &file_kind_pipe;
	check_says(&part_directories, "its root (file 1)");
	snapshot.files[0]->kind = &file_kind_regular;
	add_directory(3, "/proc/version", -1);
	task->directories->fs->root_id = 3;
	check_says(&part_directories, "its root, /proc/version");
}

/* ---- files of /proc ---- */

static bool has_numbers(void)
{
	autoclose int self = proc_open(getpid());
	long long adjustment, filter;

	return proc_read_number(self, "oom_score_adj", 10, &adjustment) == 0 && adjustment == 1000 &&
	       proc_read_number(self, "coredump_filter", 16, &filter) == 0 && filter == 0x21;
}

static void numbers(void **state unused)
{
	message_set(task->cores[0]->tc, oom_score_adj, 1000); /* every user may raise it */
	message_set(task->cores[0]->tc, core_filter, 0x21);
	prepare(&part_process, has_numbers, NULL);
	message_set(task->cores[0]->tc, oom_score_adj, 1001);
	prepare(&part_process, NULL, "cannot write 1001 to /proc/self/oom_score_adj");
	check_says(&part_process, "invalid oom_score_adj: 1001");
}

/* ---- signals, timers, memory ---- */

static bool blocks_all(void)
{
	uint64_t blocked = 0;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &blocked, sizeof(blocked));
	return blocked == ~(1ULL << (SIGKILL - 1) | 1ULL << (SIGSTOP - 1));
}

static void signals(void **state unused)
{
	prepare(&part_signals, blocks_all, NULL);
	assert_int_equal(signals_blocked(task, 1), 0);
	task->cores[0]->tc->blk_sigset = 5;
	assert_int_equal(signals_blocked(task, 0), 5);
	message_set(task->cores[0]->thread_core, blk_sigset, 6);
	assert_int_equal(signals_blocked(task, 0), 6);
}

static bool has_dead_timer(void)
{
	struct itimerval value;
	sigset_t pending;

	return getitimer(ITIMER_REAL, &value) == 0 && !value.it_value.tv_sec && !value.it_value.tv_usec &&
	       value.it_interval.tv_sec == 5 && sigpending(&pending) == 0 && !sigismember(&pending, SIGALRM);
}

static bool has_no_timer(void)
{
	struct itimerval value;

	return getitimer(ITIMER_REAL, &value) == 0 && !value.it_interval.tv_sec;
}

static void dead_timer(void **state unused)
{
	TaskTimersEntry *timers = task->cores[0]->tc->timers = message_new(TaskTimersEntry,
									   task_timers_entry);
	sigset_t all, before;

	timers->real = message_new(ItimerEntry, itimer_entry);
	prepare(&part_timers, has_no_timer, NULL);
	message_set(timers->real, dead_interval, 5000000);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before); /* part_signals has done that */
	prepare(&part_timers, has_dead_timer, NULL);
	sigprocmask(SIG_SETMASK, &before, NULL);
}

static bool merges_nothing(void)
{
	return prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) == 0;
}

static bool merges(void)
{
	return prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) == 1;
}

/* criu's own setting is cleared, unless the task had it, too. */
static void merging(void **state unused)
{
	if (prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) < 0)
		skip(); /* Linux 6.4, CAP_SYS_RESOURCE */
	prepare(&part_memory_layout, merges_nothing, NULL);
	message_set(task->cores[0]->tc, merges_memory, true);
	prepare(&part_memory_layout, merges, NULL);
	prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0);
}

/* ---- the table ---- */

static size_t place_of(const struct task_part *part)
{
	size_t place = 0;

	while (place < task_part_count && task_parts[place] != part)
		place++;
	assert_true(place < task_part_count);
	return place;
}

/* A part that needs what another part has heard comes after it. */
static void order_of_hearing(void **state unused)
{
	size_t count = 0;

	for (size_t i = 0; i < task_part_count; i++)
		for (size_t j = 0; task_parts[i]->hears_after[j]; j++, count++) {
			assert_non_null(task_parts[i]->hears_after[j]->hear);
			assert_true(place_of(task_parts[i]->hears_after[j]) < i);
		}
	assert_int_equal(count, 3);
}

/* Which prepare() has to come before which, and why. */
static void order_of_preparing(void **state unused)
{
	static const struct {
		const struct task_part *first, *second;
	} rows[] = {
		{ &part_process, &part_directories }, /* /proc may not be found beneath another root */
		{ &part_signals, &part_timers },      /* the SIGALRM of a timer that runs out must not kill */
	};

	for (size_t i = 0; i < array_size(rows); i++) {
		assert_non_null(rows[i].first->prepare);
		assert_non_null(rows[i].second->prepare);
		assert_true(place_of(rows[i].first) < place_of(rows[i].second));
	}
}

/* The first failure ends it: later parts are not called. */
static void stops_at_a_failure(void **state unused)
{
	message_set(task->cores[0]->tc, oom_score_adj, 1001);
	task->directories->fs->cwd_id = 4;
	assert_int_equal(task_parts_prepare(&snapshot, task), -EINVAL);
	assert_false(blocks_all());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(directories, set_up, tear_down),
		cmocka_unit_test_setup_teardown(another_root, set_up, tear_down),
		cmocka_unit_test_setup_teardown(no_directories, set_up, tear_down),
		cmocka_unit_test_setup_teardown(directories_checked, set_up, tear_down),
		cmocka_unit_test_setup_teardown(numbers, set_up, tear_down),
		cmocka_unit_test_setup_teardown(signals, set_up, tear_down),
		cmocka_unit_test_setup_teardown(dead_timer, set_up, tear_down),
		cmocka_unit_test_setup_teardown(merging, set_up, tear_down),
		cmocka_unit_test_setup_teardown(order_of_hearing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(order_of_preparing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(stops_at_a_failure, set_up, tear_down),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
