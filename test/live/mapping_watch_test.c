/*
 * mapping_watch_test.c - every call that changes mappings is counted: of existing threads, of new ones, and calls that
 * were under way when the counting began. Needs root; skipped if the kernel does not allow counting.
 */
#include "../unit/unit.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/mapping_watch.h"
#include "kernel/proc.h"

static char *area;
static int gate[2]; /* a pipe: a waiting thread reads a byte */

static void wait_at_gate(void)
{
	char byte;

	if (syscall(SYS_read, gate[0], &byte, 1) != 1)
		abort();
}

static void open_gate(void)
{
	if (syscall(SYS_write, gate[1], "", 1) != 1)
		abort();
}

static struct mapping_watch *watch_self(void)
{
	autoclose int self = proc_open(getpid());
	int tracepoint = mapping_watch_tracepoint();
	struct mapping_watch *watch;

	int result = tracepoint;

	if (tracepoint >= 0)
		do /* a thread of the previous test may still be ending */
			result = mapping_watch_open(&watch, tracepoint, self);
		while (result == -EAGAIN);
	if (!result)
		return watch;
	fail_msg("cannot watch: %s", strerror(-result));
	return NULL;
}

static uint64_t calls_of(const struct mapping_watch *watch)
{
	uint64_t calls;

	assert_int_equal(mapping_watch_count(watch, &calls), 0);
	return calls;
}

static void other_calls(void **state unused)
{
	struct mapping_watch *watch = watch_self();
	uint64_t before = calls_of(watch);

	for (int i = 0; i < 100; i++)
		syscall(SYS_getppid);
	assert_int_equal(calls_of(watch), before);
	madvise(area, PAGE_SIZE, MADV_DONTFORK);
	madvise(area, PAGE_SIZE, MADV_DOFORK);
	assert_int_equal(calls_of(watch), before + 2);
	mapping_watch_close(watch);
}

static void *advise_later(void *unused_argument unused)
{
	wait_at_gate();
	madvise(area, PAGE_SIZE, MADV_DONTFORK);
	return NULL;
}

static void thread_of_before(void **state unused)
{
	struct mapping_watch *watch;
	uint64_t before;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, advise_later, NULL), 0);
	watch = watch_self();
	before = calls_of(watch);
	open_gate();
	pthread_join(thread, NULL);
	assert_true(calls_of(watch) > before);
	mapping_watch_close(watch);
}

static void thread_of_after(void **state unused)
{
	struct mapping_watch *watch = watch_self();
	uint64_t before;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, advise_later, NULL), 0);
	before = calls_of(watch);
	open_gate();
	pthread_join(thread, NULL);
	assert_true(calls_of(watch) > before);
	mapping_watch_close(watch);
}

/* Its vfork() is under way until the child ends. */
static void *make_vfork_child(void *unused_argument unused)
{
	pid_t child = vfork();

	if (!child) {
		char byte;

		_exit(syscall(SYS_read, gate[0], &byte, 1) != 1);
	}
	waitpid(child, NULL, 0);
	return NULL;
}

static void call_under_way(void **state unused)
{
	struct mapping_watch *watch;
	uint64_t before;
	pthread_t thread;
	pid_t *children = NULL;
	size_t count = 0;
	autoclose int self = proc_open(getpid());

	assert_int_equal(pthread_create(&thread, NULL, make_vfork_child, NULL), 0);
	while (!count)
		assert_int_equal(proc_read_children(self, &children, &count), 0);
	free(children);
	watch = watch_self();
	before = calls_of(watch);
	open_gate();
	pthread_join(thread, NULL);
	assert_true(calls_of(watch) > before);
	mapping_watch_close(watch);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(other_calls),
		cmocka_unit_test(thread_of_before),
		cmocka_unit_test(thread_of_after),
		cmocka_unit_test(call_under_way),
	};

	error_init();
	if (mapping_watch_tracepoint() < 0) {
		print_message("skipped: cannot count system calls here\n");
		return 0;
	}
	area = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED || pipe(gate) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
