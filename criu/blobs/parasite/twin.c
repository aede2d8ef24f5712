/*
 * twin.c - makes a copy of the task, which neither the task nor any other process of its tree can notice afterwards.
 *
 * fork() would make the copy a child of the task: wait() would find it, and its end would send a signal. But an orphan
 * becomes a child of the first process of its pid namespace. So criu makes a pid namespace, whose first process is a
 * child of criu, and the copy becomes an orphan in it:
 *
 *	task            waits until the next one is gone; all other threads of the tree stand still
 *	└─ messenger    shares the memory of the task; enters the namespaces; waits until the next one is gone
 *	   └─ parent    shares the memory, too; is in the pid namespace; ends at once
 *	      └─ twin   has a copy of the memory; its parent has ended: it is a child of criu's process
 *
 * The first two run on the stack of the parasite, as after vfork(). They have no descriptors of the task: an unshared,
 * empty table is made without a copy of the task's (CLOSE_RANGE_UNSHARE), so no file is closed.
 *
 * Mappings of shared memory are not copied. They would only keep the memory, or a file system, in use, and a System V
 * segment notes who has attached it last.
 *
 * Of a child that is waited for, the kernel adds the times and the peak memory to what getrusage(RUSAGE_CHILDREN) tells.
 * It does not if the parent ignores SIGCHLD. So the task does, for that moment. This would also discard a pending
 * SIGCHLD: if there is one, the times are added.
 */
#include <linux/close_range.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include "syscalls.h"
#include "twin.h"

#define SIGNAL_SET_SIZE 8

struct birth {
	int user, pids;		  /* namespaces; user -1: none */
	unsigned long end_signal; /* of the first two */
	long result;
};

/* struct sigaction of the kernel. */
struct action {
	void *handler;
	unsigned long flags;
	void *restorer;
	uint64_t mask;
};

static bool has_pending_child_signal(void)
{
	uint64_t pending = 0;

	return sys_rt_sigpending(&pending, SIGNAL_SET_SIZE) < 0 || pending >> (SIGCHLD - 1) & 1;
}

/* With all signals blocked it waits until it is killed. It leaves the task's process group, so that nobody else does so. */
static does_not_return void be_twin(void)
{
	uint32_t word = 0;

	sys_setsid();
	sys_prctl(PR_SET_NAME, "criu-twin");
	for (;;)
		sys_futex(&word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

static does_not_return void be_parent(struct birth *birth)
{
	long twin = sys_clone(0, NULL);

	if (!twin)
		be_twin();
	birth->result = twin;
	for (;;)
		sys_exit(0);
}

static __attribute__((noinline)) long bear_parent(struct birth *birth)
{
	long pid = sys_clone(CLONE_VM | CLONE_VFORK | birth->end_signal, NULL);

	if (!pid)
		be_parent(birth);
	return pid;
}

static does_not_return void be_messenger(struct birth *birth)
{
	long result = birth->user < 0 ? 0 : sys_setns(birth->user, CLONE_NEWUSER);

	if (!result)
		result = sys_setns(birth->pids, CLONE_NEWPID);
	if (!result)
		result = sys_close_range(0, ~0U, CLOSE_RANGE_UNSHARE);
	if (!result)
		result = bear_parent(birth);
	if (result < 0)
		birth->result = result;
	else
		sys_wait4((pid_t)result, NULL, __WALL, NULL);
	for (;;)
		sys_exit(0);
}

static __attribute__((noinline)) long bear_messenger(struct birth *birth)
{
	long pid = sys_clone(CLONE_VM | CLONE_VFORK | CLONE_FILES | birth->end_signal, NULL);

	if (!pid)
		be_messenger(birth);
	return pid;
}

/* Both processes are gone when this returns, whether the kernel has collected them or wait4() does. */
static long bear(struct birth *birth)
{
	const struct action ignored = { .handler = (void *)1 /* SIG_IGN */ };
	struct action before;
	bool is_hidden = !has_pending_child_signal();
	long pid;

	birth->end_signal = is_hidden ? SIGCHLD : 0;
	if (is_hidden)
		sys_rt_sigaction(SIGCHLD, &ignored, &before, SIGNAL_SET_SIZE);
	pid = bear_messenger(birth);
	if (pid > 0)
		sys_wait4((pid_t)pid, NULL, __WALL, NULL);
	if (is_hidden)
		sys_rt_sigaction(SIGCHLD, &before, NULL, SIGNAL_SET_SIZE);
	return pid < 0 ? pid : birth->result;
}

/* Returns how many came. */
static int take_descriptors(int socket, int fds[2])
{
	char byte;
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control;
	struct iovec data = { &byte, sizeof(byte) };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
	};
	const int *given = (const int *)CMSG_DATA(&control.header);
	int count;

	if (sys_recvmsg(socket, &message, MSG_CMSG_CLOEXEC) <= 0 ||
	    message.msg_controllen < CMSG_LEN(sizeof(int)))
		return 0;
	count = (control.header.cmsg_len - CMSG_LEN(0)) / sizeof(int);
	for (int i = 0; i < count; i++)
		fds[i] = given[i];
	return count;
}

/* The kernel does not let some mappings of devices be copied again (EINVAL), so that is tried first. */
static void hide(struct twin_range *range)
{
	range->is_hidden = !sys_madvise((void *)range->start, range->size, MADV_DOFORK) &&
			   !sys_madvise((void *)range->start, range->size, MADV_DONTFORK);
}

static void show(const struct twin_range *range)
{
	if (range->is_hidden)
		sys_madvise((void *)range->start, range->size, MADV_DOFORK);
}

static long bear_without(struct birth *birth, struct twin_range *ranges, size_t count)
{
	long result;

	for (size_t i = 0; i < count; i++)
		hide(&ranges[i]);
	result = bear(birth);
	for (size_t i = 0; i < count; i++)
		show(&ranges[i]);
	return result;
}

long make_twin(int socket, bool has_user, struct twin_range *ranges, size_t range_count)
{
	int fds[2], wanted = has_user ? 2 : 1;
	int count = take_descriptors(socket, fds);
	struct birth birth = { .user = has_user ? fds[0] : -1,
			       .pids = fds[wanted - 1],
			       .result = -3 /* ESRCH */ };
	long result = count == wanted ? bear_without(&birth, ranges, range_count) : -24; /* EMFILE */

	while (count > 0)
		sys_close(fds[--count]);
	return result;
}
