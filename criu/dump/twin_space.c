/*
 * twin_space.c - pid namespaces for twins. See twin_space.h.
 *
 * A process may enter a pid namespace only with CAP_SYS_ADMIN in the user namespace that owns it. Most processes do not
 * have that. So the namespace is in a new user namespace, which criu makes with the user id of the process: who has
 * created a user namespace has all capabilities in it.
 */
#include "dump/twin_space.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/memory.h"
#include "kernel/place.h"
#include "syscalls.h"

#define CAPABILITY_SYS_ADMIN 21

struct birth {
	int criu; /* a pidfd */
	unsigned long flags;
	pid_t first;
};

/* The first process of a pid namespace. It must not keep anything of criu open. */
static does_not_return void be_first(const struct birth *birth)
{
	uint32_t word = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "criu-twins");
	if (pidfd_has_ended(birth->criu))
		sys_exit_group(1);
	sys_close_range(0, ~0U, 0);
	for (;;)
		sys_futex(&word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

static int bear_first(void *argument)
{
	struct birth *birth = argument;
	long pid = sys_clone(birth->flags, NULL);

	if (!pid)
		be_first(birth);
	birth->first = pid;
	return pid < 0 ? fail(-pid, "cannot make a pid namespace") : 0;
}

/* Its parent is criu in any case. */
static int make_first(struct twin_space *space)
{
	autoclose int criu = syscall(SYS_pidfd_open, getpid(), 0);
	struct place place = PLACE_HERE;
	struct birth birth = { .criu = criu, .flags = CLONE_NEWPID };
	sigset_t all, before;
	int result;

	if (criu < 0)
		return fail(errno, "cannot watch criu");
	if (space->has_user)
		birth.flags |= CLONE_NEWUSER;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	if (space->has_user && space->uid != geteuid()) {
		birth.flags |= CLONE_PARENT;
		place.uid = space->uid;
		result = run_in(&place, bear_first, &birth);
	} else {
		result = bear_first(&birth);
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	space->first = birth.first;
	return result;
}

static int open_space(struct twin_space *space)
{
	int result = make_first(space);
	autoclose int proc = -1;

	if (result)
		return result;
	proc = proc_open(space->first);
	space->pids = proc < 0 ? -1 : openat(proc, "ns/pid", O_RDONLY | O_CLOEXEC);
	space->user = proc < 0 || !space->has_user ? -1 : openat(proc, "ns/user", O_RDONLY | O_CLOEXEC);
	if (space->pids < 0 || (space->has_user && space->user < 0))
		return fail(errno, "cannot open the namespaces of process %d", space->first);
	return 0;
}

/* The kernel ends all twins in it; it may take a while until their memory is free. */
static void close_space(struct twin_space *space)
{
	if (space->first > 0) {
		kill(space->first, SIGKILL);
		while (waitpid(space->first, NULL, __WALL) < 0 && errno == EINTR)
			;
	}
	if (space->user >= 0)
		close(space->user);
	if (space->pids >= 0)
		close(space->pids);
}

int twin_spaces_find(struct twin_spaces *spaces, const struct proc_status *status, size_t *found)
{
	struct twin_space *space;
	struct twin_space wanted = {
		.uid = status->uid[1],
		.has_user = !(status->effective >> CAPABILITY_SYS_ADMIN & 1),
		.user = -1,
		.pids = -1,
	};
	int result;

	for (*found = 0; *found < spaces->count; ++*found) {
		space = &spaces->items[*found];
		if (space->has_user == wanted.has_user && (!space->has_user || space->uid == wanted.uid))
			return 0;
	}
	space = grow(&spaces->items, &spaces->count);
	*space = wanted;
	result = open_space(space);
	if (result) {
		close_space(space);
		spaces->count--;
	}
	return result;
}

void twin_spaces_close(struct twin_spaces *spaces)
{
	for (size_t i = 0; i < spaces->count; i++)
		close_space(&spaces->items[i]);
	free(spaces->items);
	*spaces = (struct twin_spaces){ 0 };
}
