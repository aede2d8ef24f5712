/*
 * arrange_test.c - a process has inherited all files that criu has opened, and turns them into its own table: each file
 * at its numbers, those of criu that are kept elsewhere if need be, and nothing else. Each test runs in a child.
 */
#include "unit.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/kind.h"

const struct file_kind *const file_kinds[] = { NULL };
const size_t file_kind_count = 0;

#define FILES 6

static struct file files[FILES];
static ino_t inodes[FILES];
static struct snapshot snapshot;
static struct task *task;

static ino_t inode_of(int fd)
{
	struct stat status;

	return fstat(fd, &status) < 0 ? 0 : status.st_ino;
}

/* Opens each file under a number that the test chooses. */
static void open_files(const int numbers[FILES])
{
	syscall(SYS_close_range, 0, ~0U, 0);
	for (int i = 0; i < FILES; i++) {
		int fd = memfd_create("arrange_test", MFD_CLOEXEC), high = fcntl(fd, F_DUPFD_CLOEXEC, 500);

		inodes[i] = inode_of(fd);
		close(fd);
		files[i].fd = high;
	}
	for (int i = 0; i < FILES; i++) {
		dup3(files[i].fd, numbers[i], O_CLOEXEC);
		close(files[i].fd);
		files[i].fd = numbers[i];
	}
	snapshot_init(&snapshot);
	task = snapshot_add_task(&snapshot, NULL, 1);
}

static void want(int fd, int file, bool closes_on_exec)
{
	*grow(&task->table->items, &task->table->count) =
		(struct descriptor){ .fd = fd, .file = &files[file], .closes_on_exec = closes_on_exec };
}

static int open_count(void)
{
	int count = 0;

	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* Is the table as it is wanted, with `kept` descriptors beside? */
static bool is_arranged(int kept)
{
	for (size_t i = 0; i < task->table->count; i++) {
		const struct descriptor *descriptor = &task->table->items[i];

		if (inode_of(descriptor->fd) != inodes[descriptor->file - files] ||
		    fcntl(descriptor->fd, F_GETFD) != (descriptor->closes_on_exec ? FD_CLOEXEC : 0))
			return false;
	}
	return open_count() == (int)task->table->count + kept;
}

static void run_in_child(bool (*run)(void))
{
	pid_t child = fork();
	int status;

	if (!child)
		_exit(run() ? 0 : 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* Files are in each other's way, one has two numbers, two are other processes'; what is kept is at a wanted number. */
static bool arrange_in_a_ring(void)
{
	int exe = 5, log = 40, *kept[] = { &exe, &log };
	ino_t exe_inode;

	open_files((int[FILES]){ 0, 1, 2, 5, 40, 7 });
	exe_inode = inode_of(exe);
	want(0, 1, false);
	want(1, 2, true);
	want(2, 0, false);
	want(5, 0, true);
	want(300, 5, false);
	return files_arrange(task, kept, 2) == 0 && is_arranged(2) && exe != 5 &&
	       inode_of(exe) == exe_inode && log == 40 && inode_of(log) == inodes[4];
}

static void in_a_ring(void **state unused)
{
	run_in_child(arrange_in_a_ring);
}

/* The other way round, with no number to spare above the highest one. */
static bool arrange_at_the_limit(void)
{
	struct rlimit limit = { 8, 8 }; /* 0 to 7 */
	int none = -1, *kept[] = { &none };

	open_files((int[FILES]){ 7, 6, 5, 4, 3, 2 });
	for (int fd = 0; fd < FILES; fd++)
		want(fd, fd, false);
	setrlimit(RLIMIT_NOFILE, &limit);
	return files_arrange(task, kept, 1) == 0 && is_arranged(0);
}

static void at_the_limit(void **state unused)
{
	run_in_child(arrange_at_the_limit);
}

/* Both that are kept are at wanted numbers, and the only numbers that are not wanted are taken by files. */
static bool arrange_among_files(void)
{
	struct rlimit limit = { 16, 16 };
	int exe = 4, log = 3, *kept[] = { &exe, &log };

	open_files((int[FILES]){ 5, 6, 7, 8, 3, 4 });
	for (int fd = 0; fd < 16; fd++)
		if (fd < 5 || fd > 7)
			want(fd, fd % 4, false);
	setrlimit(RLIMIT_NOFILE, &limit);
	return files_arrange(task, kept, 2) == 0 && is_arranged(2) && inode_of(log) == inodes[4] &&
	       inode_of(exe) == inodes[5];
}

static void among_files(void **state unused)
{
	run_in_child(arrange_among_files);
}

static bool arrange_nothing(void)
{
	int log = 3, *kept[] = { &log };

	open_files((int[FILES]){ 1, 2, 3, 4, 100, 200 });
	return files_arrange(task, kept, 1) == 0 && is_arranged(1) && log == 3;
}

static void no_files(void **state unused)
{
	run_in_child(arrange_nothing);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_a_ring),
		cmocka_unit_test(at_the_limit),
		cmocka_unit_test(among_files),
		cmocka_unit_test(no_files),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
