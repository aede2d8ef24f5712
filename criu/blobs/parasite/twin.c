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
#include "twin_room.h"

#define SIGNAL_SET_SIZE	 8
#define MOST_DESCRIPTORS 3

struct birth {
	int user, pids;		  /* namespaces; user -1: none */
	unsigned long end_signal; /* of the first two */
	struct twin_room *room;
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

static void copy_page(uint64_t *to, const uint64_t *from)
{
	for (size_t i = 0; i < PAGE_SIZE / sizeof(*to); i++)
		to[i] = from[i];
}

static void carry_out(struct twin_room *room)
{
	char *to = (char *)room + room->to;

	for (uint32_t i = 0; i < room->count; i++)
		for (uint64_t done = 0; done < room->runs[i].size; done += PAGE_SIZE, to += PAGE_SIZE)
			copy_page((uint64_t *)to, (const uint64_t *)(room->runs[i].start + done));
}

/*
 * With all signals blocked it copies what criu orders, until it is killed. It leaves the task's process group, so that
 * nobody else kills it.
 */
static does_not_return void be_twin(struct twin_room *room)
{
	uint32_t done = 0, ordered;

	sys_setsid();
	sys_prctl(PR_SET_NAME, "criu-twin");
	for (;;) {
		while ((ordered = __atomic_load_n(&room->ordered, __ATOMIC_ACQUIRE)) == done)
			sys_futex(&room->ordered, FUTEX_WAIT, done, NULL, NULL, 0);
		carry_out(room);
		done = ordered;
		__atomic_store_n(&room->done, done, __ATOMIC_RELEASE);
		sys_futex(&room->done, FUTEX_WAKE, 1, NULL, NULL, 0);
	}
}

static does_not_return void be_parent(struct birth *birth)
{
	long twin = sys_clone(0, NULL);

	if (!twin)
		be_twin(birth->room);
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

/* The twin gets a copy of the mapping; in the task it is there only until then. */
static long bear_with_room(struct birth *birth, const struct twin_wish *wish, int room)
{
	long mapped = sys_mmap(NULL, wish->room_size, PROT_READ | PROT_WRITE, MAP_SHARED, room, 0), result;

	if (mapped < 0 && mapped >= -4095)
		return mapped;
	birth->room = (struct twin_room *)mapped;
	result = bear_without(birth, wish->ranges, wish->range_count);
	sys_munmap(birth->room, wish->room_size);
	return result;
}

/* Returns how many came. */
static int take_descriptors(int socket, int fds[MOST_DESCRIPTORS])
{
	char byte;
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(MOST_DESCRIPTORS * sizeof(int))];
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

long make_twin(int socket, const struct twin_wish *wish)
{
	int fds[MOST_DESCRIPTORS], wanted = wish->has_user ? 3 : 2;
	int count = take_descriptors(socket, fds);
	struct birth birth = { .result = -3 /* ESRCH */ };
	long result = -24; /* EMFILE */

	if (count == wanted) {
		birth.pids = fds[1];
		birth.user = wish->has_user ? fds[2] : -1;
		result = bear_with_room(&birth, wish, fds[0]);
	}
	while (count > 0)
		sys_close(fds[--count]);
	return result;
}
