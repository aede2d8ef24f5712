/*
 * pids_test.c - two nested pid namespaces, as root: clone_with_pids() makes a process and a thread with chosen ids in
 * both, and the names that a dump gives to such a tree are these ids. test/unit/pids_test.c has the rest.
 *
 * The tree: an init (pid 1 of the first namespace), below it another (pid 1 of the second one), below that the process.
 */
#include "../unit/unit.h"
#include <errno.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/io.h"
#include "base/memory.h"
#include "dump/dump.h"
#include "kernel/proc.h"
#include "restore/restore.h"

#define STACK	  (64UL << 10)
#define OF_THREAD (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)

/* In the first namespace, and in the second one. */
static pid_t process_ids[] = { 4242, 77 }, thread_ids[] = { 4300, 78 };

static struct snapshot snapshot;
static int ready[2];

static does_not_return void stay(void *unused_argument unused)
{
	for (;;)
		pause();
}

static struct thread thread_of(pid_t ids[2])
{
	return (struct thread){ .tid = ids[0], .nested = &ids[1], .nested_count = 1 };
}

static does_not_return void give_up(const char *what)
{
	print_error("%s: %s\n", what, strerror(errno));
	_exit(1);
}

static long make(const struct thread *thread, uint64_t flags)
{
	char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pid_t ids[PID_LEVELS_MOST];

	return clone_with_pids(&(struct clone_plan){
		.pids = ids,
		.levels = thread_wanted_ids(thread, ids),
		.flags = flags,
		.exit_signal = flags & CLONE_THREAD ? 0 : SIGCHLD,
		.cgroup = -1,
		.live = flags & CLONE_VM ? stay : NULL,
		.stack = flags & CLONE_VM ? stack : NULL,
		.stack_size = flags & CLONE_VM ? STACK : 0,
	});
}

static void tell_ready(void)
{
	if (write(ready[1], "", 1) != 1)
		_exit(1);
}

/* What clone_with_pids() returns is the id that its caller sees. */
static does_not_return void be_process(void)
{
	const struct thread thread = thread_of(thread_ids);

	if (getpid() != process_ids[1] || setsid() != process_ids[1])
		give_up("the process has another id");
	if (make(&thread, OF_THREAD) != thread_ids[1])
		give_up("the thread");
	tell_ready();
	stay(NULL);
}

static does_not_return void be_inner_init(void)
{
	struct thread thread = thread_of(process_ids), other = thread;
	pid_t free_above[] = { 4243, process_ids[1] }, free_below[] = { process_ids[0], 79 };
	long born = make(&thread, 0);

	if (!born)
		be_process();
	if (born != process_ids[1])
		give_up("the process");
	other.nested = &free_above[1];
	other.tid = free_above[0];
	if (make(&other, 0) != -1 || errno != EEXIST)
		give_up("an id that is in use in the inner namespace");
	other = thread_of(free_below);
	if (make(&other, 0) != -1 || errno != EEXIST)
		give_up("an id that is in use in the outer namespace");
	tell_ready();
	stay(NULL);
}

static does_not_return void be_outer_init(void)
{
	pid_t inner;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (unshare(CLONE_NEWPID))
		give_up("the second pid namespace");
	inner = fork();
	if (!inner)
		be_inner_init();
	stay(NULL);
}

/* ---- looking from outside ---- */

static struct task *add(struct task *parent, pid_t here)
{
	struct task *task = snapshot_add_task_here(&snapshot, parent, here);
	autofree pid_t *threads = NULL, *children = NULL;
	size_t thread_count = 0, child_count = 0;
	struct proc_stat stat;

	task->proc = proc_open(here);
	assert_true(task->proc >= 0);
	assert_int_equal(proc_read_stat(task->proc, &stat), 0);
	task->group = stat.group;
	task->session = stat.session;
	assert_int_equal(proc_read_threads(task->proc, &threads, &thread_count), 0);
	task_make_threads(task, thread_count);
	for (size_t i = 0; i < thread_count; i++)
		task->threads[i].here = threads[i];
	assert_int_equal(proc_read_children(task->proc, &children, &child_count), 0);
	for (size_t i = 0; i < child_count; i++)
		add(task, children[i]);
	return task;
}

static pid_t start(void)
{
	struct pollfd one = { .events = POLLIN };
	pid_t outer, between;
	char byte;

	assert_int_equal(pipe(ready), 0);
	between = fork();
	if (!between) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (unshare(CLONE_NEWPID))
			give_up("the first pid namespace");
		outer = fork();
		if (!outer)
			be_outer_init();
		waitpid(outer, NULL, 0);
		_exit(1);
	}
	one.fd = ready[0];
	for (int i = 0; i < 2; i++) { /* the process, and the inner init */
		assert_int_equal(poll(&one, 1, 20000), 1);
		assert_int_equal(read(ready[0], &byte, 1), 1);
	}
	return between;
}

static pid_t only_child(pid_t pid)
{
	autoclose int proc = proc_open(pid);
	autofree pid_t *children = NULL;
	size_t count = 0;
	pid_t child;

	assert_int_equal(proc_read_children(proc, &children, &count), 0);
	assert_int_equal(count, 1);
	child = children[0];
	return child;
}

static int set_up(void **state)
{
	static pid_t between;

	between = start();
	*state = &between;
	snapshot_init(&snapshot);
	return 0;
}

/* An init that dies takes all of its namespace with it. */
static int tear_down(void **state)
{
	pid_t between = *(pid_t *)*state;

	snapshot_free(&snapshot);
	close(ready[0]);
	close(ready[1]);
	kill(only_child(between), SIGKILL);
	return waitpid(between, NULL, 0) != between || waitpid(-1, NULL, WNOHANG | __WALL) >= 0;
}

/* ---- tests ---- */

static void check_process(const struct task *process, size_t outside)
{
	assert_int_equal(process->thread_count, 2);
	for (size_t i = 0; i < 2; i++) {
		const struct thread *thread = &process->threads[i];
		const pid_t *wanted = i ? thread_ids : process_ids;
		pid_t found[PID_LEVELS_MOST];
		size_t count = thread_wanted_ids(thread, found);

		assert_int_equal(count, 3 - outside);
		assert_int_equal(found[0], wanted[1]);
		assert_int_equal(found[1], wanted[0]);
		assert_int_equal(outside ? found[1] : found[2], outside ? wanted[0] : thread->here);
		assert_int_equal(thread_own_id(thread), wanted[1]);
	}
}

/* The root is the outer init: images tell the ids in its namespace. */
static void a_container(void **state)
{
	pid_t outer = only_child(*(pid_t *)*state);
	const struct task *root = add(NULL, outer), *inner, *process;

	assert_int_equal(dump_name_tasks(&snapshot), 0);
	assert_int_equal(snapshot.levels_outside, 1);
	assert_int_equal(root->pid, 1);
	assert_int_equal(root->here, outer);
	process = snapshot_find_task(&snapshot, process_ids[0]);
	assert_non_null(process);
	check_process(process, 1);
	assert_int_equal(process->session, process_ids[0]);
	assert_int_equal(process->group, process_ids[0]);
	inner = process->parent;
	assert_int_equal(thread_own_id(&inner->threads[0]), 1);
	assert_int_equal(thread_id_seen_by(&process->threads[0], inner), process_ids[1]);
	assert_int_equal(thread_id_seen_by(&inner->threads[0], root), inner->pid);
	assert_int_equal(snapshot_name_of(&snapshot, process->here), process_ids[0]);
	/* The session that the root has inherited has no id in its namespace. */
	assert_int_equal(root->session, 0);
}

/* The root is in our own pid namespace: its names are the ids here, and the others have two more. */
static void from_here(void **state)
{
	pid_t between = *(pid_t *)*state;
	const struct task *root = add(NULL, between), *process;

	assert_int_equal(dump_name_tasks(&snapshot), 0);
	assert_int_equal(snapshot.levels_outside, 0);
	assert_int_equal(root->pid, between);
	assert_int_equal(root->threads[0].nested_count, 0);
	assert_int_equal(root->session, getsid(0));
	process = list_entry(snapshot.tasks.previous, struct task, link);
	assert_int_equal(process->pid, process->here);
	assert_int_equal(process->session, process->here);
	check_process(process, 0);
}

int main(void)
{
#define row(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
	const struct CMUnitTest tests[] = { row(a_container), row(from_here) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
