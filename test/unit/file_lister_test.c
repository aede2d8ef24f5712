/*
 * file_lister_test.c - lists the descriptors of a child at once, and compares that with /proc. The child has so many
 * that the kernel needs several reads for them, with holes between their numbers.
 */
#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/time.h"
#include "kernel/file_lister.h"
#include "kernel/option_reader.h"
#include "kernel/peek.h"
#include "kernel/proc.h"

#define MANY 3000

/* Descriptors behind the groups. */
enum { BEHIND = 100 + MANY / 5 * 6, LEASED = BEHIND, OWN_LOCK, SIGNAL, BY_PATH };

static void make_others(void)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (dup2(open("/tmp", O_TMPFILE | O_RDWR, 0600), LEASED) < 0 ||
	    fcntl(LEASED, F_SETLEASE, F_WRLCK) < 0 || dup2(memfd_create("own", 0), OWN_LOCK) < 0 ||
	    fcntl(OWN_LOCK, F_OFD_SETLK, &lock) < 0 || dup2(open("/dev/null", O_RDONLY), SIGNAL) < 0 ||
	    fcntl(SIGNAL, F_SETSIG, SIGUSR1) < 0 || dup2(open("/dev/null", O_PATH), BY_PATH) < 0)
		_exit(1);
}

static does_not_return void live(int ready)
{
	int ends[2], events, first = open("/proc/self/status", O_RDONLY);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int i = 0; i < MANY / 5; i++) {
		int at = 100 + i * 6;

		events = eventfd(0, 0);
		if (pipe(ends) || dup3(ends[0], at, O_CLOEXEC) < 0 || dup2(ends[1], at + 1) < 0)
			_exit(1);
		close(ends[0]);
		close(ends[1]);
		if (dup2(first, at + 2) < 0 || lseek(first, i, SEEK_SET) < 0 || dup2(events, at + 4) < 0 ||
		    (i % 7 == 0 && fcntl(at, F_SETOWN, getpid()) < 0))
			_exit(1);
		close(events);
		fcntl(at + 1, F_SETFL, O_NONBLOCK);
	}
	make_others();
	if (write(ready, "", 1) != 1)
		_exit(1);
	for (;;)
		pause();
}

static void compare(int proc, const struct listed_file *listed)
{
	struct proc_fdinfo info;

	assert_int_equal(proc_read_fdinfo(proc, listed->fd, &info), 0);
	assert_int_equal(listed->position, info.position);
	assert_int_equal(listed->flags, info.flags);
	assert_int_equal(listed->mount, info.mount);
	assert_int_equal(listed->has_lines, strstr(info.rest, "eventfd-count") != NULL);
	free(info.rest);
}

static void compare_all(pid_t child, const struct listed_file *files, size_t count)
{
	autoclose int proc = proc_open(child);
	autofree int *numbers = NULL;
	size_t expected = 0;

	assert_int_equal(proc_read_descriptors(proc, &numbers, &expected), 0);
	assert_int_equal(count, expected);
	for (size_t i = 0; i < count; i++) {
		const int fd = files[i].fd, of_pair = (fd - 100) % 6;

		assert_int_equal(fd, numbers[i]);
		if (fd < 100)
			continue;
		compare(proc, &files[i]);
		if (fd >= BEHIND) {
			assert_int_equal(files[i].had_locks, fd == LEASED || fd == OWN_LOCK);
			assert_int_equal(files[i].had_owner, fd == LEASED || fd == SIGNAL);
			continue;
		}
		assert_false(files[i].had_locks);
		assert_int_equal(files[i].had_owner, of_pair == 0 && (fd - 100) / 6 % 7 == 0);
		/* Only the third of each group is the same file as that of the one before. */
		if (fd >= 106)
			assert_int_equal(files[i].file == files[i - 4].file, of_pair == 2);
	}
}

static void as_proc_shows(void **state unused)
{
	struct file_lister *lister;
	struct listed_file *files;
	struct rlimit before;
	int ready[2];
	char byte;
	size_t count;
	pid_t child;

	failure_clear();
	descriptors_unlimit(&before);
	if (file_lister_open(&lister))
		skip();
	assert_int_equal(pipe(ready), 0);
	child = fork();
	if (!child)
		live(ready[1]);
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(file_lister_list(lister, child, &files, &count), 0);
	compare_all(child, files, count);
	free(files);
	close(ready[0]);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	assert_true(file_lister_list(lister, child, &files, &count) < 0 || count == 0);
	assert_null(files);
	failure_clear();
	file_lister_close(lister);
}

/* For a moment after a thread has closed an io_uring, the kernel may refuse to load a program (EAGAIN). */
static void after_an_io_uring(void **state unused)
{
	const uint64_t moment = 30000000;
	struct option_reader *reader;
	struct peek peek;

	failure_clear();
	if (peek_open(&peek) || option_reader_open(&reader))
		skip();
	for (int i = 0; i < 20; i++) {
		uint64_t begin = monotonic_time();

		option_reader_close(reader);
		while (monotonic_time() < begin + moment) {
			peek_close(&peek);
			assert_int_equal(peek_open(&peek), 0);
		}
		assert_int_equal(option_reader_open(&reader), 0);
	}
	option_reader_close(reader);
	peek_close(&peek);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(as_proc_shows),
					    cmocka_unit_test(after_an_io_uring) };

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
