/*
 * shares.c - processes that share memory, open files, directories or signal actions without being threads of one
 * process. Each change must be visible in the processes that share the object, and in no other one.
 *
 * usage: shares DIRECTORY KINDS SHAPE
 *
 * KINDS are some of memory, files, directories and actions, with '+' between them. Shapes:
 *
 *	child     the root and a child
 *	chain     the root, its child, and the child of that
 *	three     the root and two children
 *	siblings  two children: the first has created the second with CLONE_PARENT
 *	orphan    as chain, but the one in the middle has ended
 *	cousins   two children of a process that has ended, adopted by the root
 *	threads   as child; the child has a second thread
 *	parents   as child; the child has a child that shares nothing
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "live.h"

#define MOST   4
#define STACK  (64 << 10)
#define NUMBER 50 /* of a descriptor */

enum kind { MEMORY, FILES, DIRECTORIES, ACTIONS, KINDS };

static const struct {
	const char *name;
	int flags;
} kinds[KINDS] = {
	{ "memory", CLONE_VM },
	{ "files", CLONE_FILES },
	{ "directories", CLONE_FS },
	{ "actions", CLONE_SIGHAND },
};

/* A process that takes orders. All boxes are in memory that is always shared. */
struct box {
	uint32_t order; /* futex; 0: none */
	uint32_t is_answered;
	int answer;
	pid_t pid;
	bool shares; /* with the other processes that have this flag */
};

static struct box *boxes;
static int box_count;
static int flags;
static volatile int word;
static char stacks[MOST + 1][STACK];

/* ---- orders: to set or clear something, and to tell whether it is set ---- */

static void set(enum kind kind, bool on)
{
	struct sigaction action = { .sa_handler = on ? SIG_IGN : SIG_DFL };

	switch (kind) {
	case MEMORY:
		word = on;
		return;
	case FILES:
		if (on)
			dup2(0, NUMBER);
		else
			close(NUMBER);
		return;
	case DIRECTORIES:
		umask(on ? 0123 : 022);
		if (chdir(on ? "/proc/self" : "/") < 0)
			_exit(1);
		return;
	default:
		sigaction(SIGUSR2, &action, NULL);
	}
}

static bool is_set(enum kind kind)
{
	struct sigaction action;
	char where[64];
	int mask;

	switch (kind) {
	case MEMORY:
		return word;
	case FILES:
		return fcntl(NUMBER, F_GETFD) >= 0;
	case DIRECTORIES:
		mask = umask(022);
		umask(mask);
		return syscall(SYS_getcwd, where, sizeof(where)) > 0 && strcmp(where, "/") && mask == 0123;
	default:
		sigaction(SIGUSR2, NULL, &action);
		return action.sa_handler == SIG_IGN;
	}
}

/* An order is 1 + 3 * kind + action. */
enum { CLEAR, SET, TELL };

static int obey_once(uint32_t order)
{
	enum kind kind = (order - 1) / 3;
	int what = (order - 1) % 3;

	if (what == TELL)
		return is_set(kind);
	set(kind, what == SET);
	return 0;
}

static int obey(void *argument)
{
	struct box *box = argument;

	while (box->pid >= 0) {
		uint32_t order = __atomic_load_n(&box->order, __ATOMIC_SEQ_CST);

		if (!order) {
			syscall(SYS_futex, &box->order, FUTEX_WAIT, 0, NULL, NULL, 0);
			continue;
		}
		box->answer = obey_once(order);
		__atomic_store_n(&box->order, 0, __ATOMIC_SEQ_CST);
		__atomic_store_n(&box->is_answered, 1, __ATOMIC_SEQ_CST);
		syscall(SYS_futex, &box->is_answered, FUTEX_WAKE, 1, NULL, NULL, 0);
	}
	return 0;
}

static int order(struct box *box, enum kind kind, int what)
{
	uint32_t number = 1 + 3 * kind + what;

	if (box == boxes) /* the root itself */
		return obey_once(number);
	box->is_answered = 0;
	__atomic_store_n(&box->order, number, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &box->order, FUTEX_WAKE, 1, NULL, NULL, 0);
	while (!__atomic_load_n(&box->is_answered, __ATOMIC_SEQ_CST)) {
		const struct timespec moment = { .tv_nsec = 100000000 };

		live_check(kill(box->pid, 0) == 0, "process %d is gone", box->pid);
		syscall(SYS_futex, &box->is_answered, FUTEX_WAIT, 0, &moment, NULL, 0);
	}
	return box->answer;
}

/* ---- shapes ---- */

static pid_t make(int (*life)(void *), bool shares, int more, int number)
{
	struct box *box = &boxes[number];
	int how = (shares ? flags : 0) | more | SIGCHLD;
	pid_t pid;

	box->shares = shares;
	pid = clone(life, stacks[number] + STACK, how, box);
	if (pid < 0)
		_exit(2);
	box->pid = pid;
	return pid;
}

static int make_sibling(void *box)
{
	make(obey, true, CLONE_PARENT, 2);
	return obey(box);
}

static int make_child(void *box)
{
	make(obey, true, 0, 2);
	return obey(box);
}

static int make_child_and_end(void *box)
{
	((struct box *)box)->shares = false; /* it gets no orders */
	make(obey, true, 0, 2);
	syscall(SYS_exit, 0);
	return 0;
}

static int make_two_and_end(void *box)
{
	((struct box *)box)->shares = false;
	make(obey, true, 0, 2);
	make(obey, true, 0, 3);
	syscall(SYS_exit, 0);
	return 0;
}

static int wait_for_ever(void *unused)
{
	for (;;)
		syscall(SYS_pause);
	return unused != NULL;
}

static int make_thread(void *box)
{
	const int of_threads = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
			       CLONE_SYSVSEM;

	if (clone(wait_for_ever, stacks[MOST] + STACK, of_threads, NULL) < 0)
		_exit(3);
	return obey(box);
}

static int make_stranger(void *box)
{
	make(obey, false, 0, 2);
	return obey(box);
}

static const struct shape {
	const char *name;
	int (*life)(void *);
	bool root_shares, first_ends;
	int count; /* of boxes, the root's among them */
} shapes[] = {
	{ "child", obey, true, false, 2 },
	{ "chain", make_child, true, false, 3 },
	{ "three", obey, true, false, 3 },
	{ "siblings", make_sibling, false, false, 3 },
	{ "orphan", make_child_and_end, true, true, 3 },
	{ "cousins", make_two_and_end, false, true, 4 },
	{ "threads", make_thread, true, false, 2 },
	{ "parents", make_stranger, true, false, 3 },
};

static void make_all(const struct shape *shape)
{
	bool first_shares = shape->root_shares;

	boxes[0].shares = shape->root_shares;
	box_count = shape->count;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	make(shape->life, first_shares, 0, 1);
	if (!shape->root_shares && !shape->first_ends)
		boxes[1].shares = true; /* with the sibling that it creates */
	if (!strcmp(shape->name, "three"))
		make(obey, true, 0, 2);
	for (int i = 2; i < box_count; i++)
		while (!__atomic_load_n(&boxes[i].pid, __ATOMIC_SEQ_CST))
			usleep(1000);
	if (shape->first_ends) {
		live_check(waitpid(boxes[1].pid, NULL, 0) == boxes[1].pid, "waitpid: %m");
		boxes[1].pid = 0;
	}
}

/* ---- the verdict ---- */

static void check_pair(struct box *one, struct box *other, enum kind kind)
{
	bool shared = one->shares && other->shares && flags & kinds[kind].flags;
	bool seen;

	order(one, kind, SET);
	seen = order(other, kind, TELL);
	order(one, kind, CLEAR);
	live_check(seen == shared, "%s of %d and %d: %s", kinds[kind].name, one->pid, other->pid,
		   seen ? "shared" : "not shared");
	live_check(!order(other, kind, TELL), "%s of %d: still set", kinds[kind].name, other->pid);
}

static void check(void)
{
	for (int kind = 0; kind < KINDS; kind++)
		for (int i = 0; i < box_count; i++)
			for (int j = 0; j < box_count; j++)
				if (i != j && boxes[i].pid && boxes[j].pid)
					check_pair(&boxes[i], &boxes[j], kind);
}

int main(int argc, char **argv)
{
	const struct shape *shape;

	live_begin(argc, argv);
	live_check(argc == 4, "usage");
	for (char *name = strtok(argv[2], "+"); name; name = strtok(NULL, "+"))
		flags |= live_choose(kinds, name)->flags;
	shape = live_choose(shapes, argv[3]);
	boxes = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	live_check(boxes != MAP_FAILED, "mmap: %m");
	boxes[0].pid = getpid();
	for (int kind = 0; kind < KINDS; kind++)
		set(kind, false);
	make_all(shape);
	check();
	live_ready();
	live_wait_stop();
	check();
	for (int i = box_count; i-- > 1;)
		if (boxes[i].pid)
			kill(boxes[i].pid, SIGKILL);
	while (wait(NULL) > 0)
		;
	return live_finish();
}
