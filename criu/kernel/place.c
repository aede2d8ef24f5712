/*
 * place.c - see place.h. The life of the child:
 *
 *	clone3(CLONE_VM | CLONE_FILES | CLONE_VFORK), on a stack of its own; the calling thread sleeps until it ends
 *	setns() for each namespace; groups, gid, uid, capabilities
 *	PR_SET_PDEATHSIG, after the ids, because a change of ids clears it
 *	the work; its result goes into struct run; exit
 *
 * The child shares criu's memory. What follows from that:
 * - Thread-local storage is that of the calling thread, which sleeps, so only one of the two uses errno and the caches
 *   of malloc() at a time. libc asks the kernel for thread ids. The kernel has no robust list and no rseq area for the
 *   child.
 * - libc's setuid() and its relatives change the ids of all threads by signals, and would signal criu's threads. So the
 *   child makes raw calls.
 * - CLONE_FS is not given unless the caller wants it, because a process that shares its root directory cannot setns() into a user or mount
 *   namespace.
 * - Signal handlers are not shared (CLONE_SIGHAND is not given), and all signals are blocked.
 * - The memory has one flag "dumpable". It is off while there is a child: otherwise the owner of a user namespace that
 *   the child joins could trace it, and would have criu's memory. (A change of effective ids clears the flag, too.)
 * - The child sends no signal when it ends, and only waitpid(__WALL) finds it. run_in() collects it.
 *
 * If the place has the pid of the calling process, the child is a thread of it (CLONE_THREAD): credentials belong to
 * threads. It cannot join a user or mount namespace, and nobody has to collect it.
 *
 * Only the effective ids change: these are what the kernel remembers. The real and the saved ids stay those of criu, so
 * the user whose ids are taken may neither trace nor signal the child.
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/place.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(address, size)
#endif
#include "syscalls.h"

#define STACK_SIZE (1UL << 20) /* of the child; only pages that are touched cost anything */
#define GUARD_SIZE PAGE_SIZE

struct run {
	const struct place *place;
	int (*work)(void *);
	void *argument;
	pid_t parent; /* criu */
	pid_t self;   /* the child, as it sees itself */
	int result;
	bool is_finished;
};

/* The user namespace comes last: criu's own privileges may reach further than those it has in that namespace. */
static const struct {
	size_t member;
	int flag;
	const char *name;
} kinds[] = {
	{ offsetof(struct place, mount), CLONE_NEWNS, "mount" },
	{ offsetof(struct place, net), CLONE_NEWNET, "network" },
	{ offsetof(struct place, uts), CLONE_NEWUTS, "uts" },
	{ offsetof(struct place, ipc), CLONE_NEWIPC, "ipc" },
	{ offsetof(struct place, cgroup), CLONE_NEWCGROUP, "cgroup" },
	{ offsetof(struct place, user), CLONE_NEWUSER, "user" },
};
#define USER_KIND (array_size(kinds) - 1)

/* Returns 0, or the error of setns(). */
static int join(const struct place *place, size_t kind)
{
	int fd = *(const int *)((const char *)place + kinds[kind].member);

	return fd < 0 || setns(fd, kinds[kind].flag) == 0 ? 0 : errno;
}

/*
 * Without privileges in criu's namespace, other namespaces can be joined only from within the user namespace that owns
 * them.
 */
static int join_namespaces(const struct place *place)
{
	bool waits_for_user[array_size(kinds)] = { false };

	for (size_t i = 0; i < array_size(kinds); i++) {
		int error = join(place, i);

		waits_for_user[i] = error == EPERM && i != USER_KIND && place->user >= 0;
		if (error && !waits_for_user[i])
			return fail(error, "cannot join a %s namespace", kinds[i].name);
	}
	for (size_t i = 0; i < array_size(kinds); i++) {
		int error = waits_for_user[i] ? join(place, i) : 0;

		if (error)
			return fail(error, "cannot join a %s namespace", kinds[i].name);
	}
	return 0;
}

static int limit_capabilities(uint64_t wanted)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[2] = {};

	if (syscall(SYS_capget, &header, sets))
		return fail(errno, "cannot read criu's capabilities");
	for (int i = 0; i < 2; i++)
		sets[i].effective = sets[i].permitted & wanted >> 32 * i;
	return syscall(SYS_capset, &header, sets) ? fail(errno, "cannot change the capabilities of a child") :
						    0;
}

/* The kernel sorts the groups. */
static bool has_groups(const struct place *place)
{
	autofree gid_t *groups = allocate_array(place->group_count + 1, sizeof(*groups));

	return syscall(SYS_getgroups, place->group_count, groups) == (long)place->group_count &&
	       syscall(SYS_getgroups, 0, NULL) == (long)place->group_count &&
	       !memcmp(groups, place->groups, place->group_count * sizeof(*groups));
}

/*
 * When the effective uid is no longer 0, the kernel clears all effective capabilities; they are taken again from the
 * permitted ones.
 */
static int take_ids(const struct place *place)
{
	const uid_t same_uid = -1;
	const gid_t same_gid = -1;

	/* Who has these groups already needs no right to change them. */
	if (place->groups && !has_groups(place) && syscall(SYS_setgroups, place->group_count, place->groups))
		return fail(errno, "cannot change to %zu supplementary groups", place->group_count);
	if (place->gid != same_gid && syscall(SYS_setresgid, same_gid, place->gid, same_gid))
		return fail(errno, "cannot change to group id %u", place->gid);
	if (place->uid != same_uid && syscall(SYS_setresuid, same_uid, place->uid, same_uid))
		return fail(errno, "cannot change to user id %u", place->uid);
	if (place->uid == same_uid && place->capabilities == UINT64_MAX)
		return 0;
	return limit_capabilities(place->capabilities);
}

/* The place is the calling process itself. */
static bool is_thread(const struct run *run)
{
	return run->place->pid == run->parent;
}

/* From here on the child dies with criu, which may have died already. */
static void die_with_criu(const struct run *run)
{
	if (run->place->outlives_criu || is_thread(run))
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != run->parent)
		sys_exit_group(1);
}

static void live(void *argument)
{
	struct run *run = argument;

	run->self = getpid();
	die_with_criu(run);
	run->result = join_namespaces(run->place);
	if (!run->result)
		run->result = take_ids(run->place);
	if (!run->result) {
		die_with_criu(run);
		run->result = run->work(run->argument);
	}
	run->is_finished = true;
	if (is_thread(run)) /* the end of system_clone3() would end the process */
		syscall(SYS_exit, 0);
}

/* All signals, also libc's own, which sigprocmask() leaves out. */
static void set_own_signal_mask(const uint64_t *mask, uint64_t *before)
{
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, mask, before, sizeof(*mask));
}

static long make_child(struct run *run, char *stack)
{
	const uint64_t all = UINT64_MAX;
	const bool has_pid = run->place->pid && !is_thread(run);
	struct clone_args arguments = {
		.flags = CLONE_VM | CLONE_FILES | CLONE_VFORK,
		.stack = (uintptr_t)stack + GUARD_SIZE,
		.stack_size = STACK_SIZE,
		.set_tid = has_pid ? (uintptr_t)&run->place->pid : 0,
		.set_tid_size = has_pid,
	};
	uint64_t mask;
	long child;

	if (is_thread(run))
		arguments.flags |= CLONE_THREAD | CLONE_SIGHAND;
	if (run->place->shares_directories)
		arguments.flags |= CLONE_FS;
	set_own_signal_mask(&all, &mask);
	child = system_clone3(&arguments, sizeof(arguments), live, run);
	set_own_signal_mask(&mask, NULL);
	return child;
}

static int explain_clone(int error, const struct place *place)
{
	if (!place->pid)
		return fail(error, "cannot create a process that shares criu's memory");
	if (error == EEXIST)
		return fail(error, "pid %d is in use", place->pid);
	if (error == EPERM)
		return fail(
			error,
			"cannot choose the pid of a new process: needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN");
	return fail(error, "cannot create process %d", place->pid);
}

/* 0 if the child finished, whatever the work returned. */
static int collect_child(const struct run *run, pid_t child)
{
	int status = 0, gone;

	do
		gone = waitpid(child, &status, __WALL);
	while (gone < 0 && errno == EINTR);
	if (run->is_finished)
		return 0;
	if (gone == child && WIFSIGNALED(status))
		return fail(ECHILD, "a child process of criu was killed by signal %d", WTERMSIG(status));
	return fail(ECHILD, "a child process of criu ended too early");
}

static int run_child(struct run *run, char *stack)
{
	bool is_dumpable = prctl(PR_GET_DUMPABLE) == 1;
	long child;
	int result;

	if (is_dumpable)
		prctl(PR_SET_DUMPABLE, 0);
	child = make_child(run, stack);
	if (child < 0)
		result = explain_clone(-child, run->place);
	else
		result = is_thread(run) ? 0 :
					  collect_child(run, child); /* a thread leaves nothing to collect */
	if (is_dumpable)
		prctl(PR_SET_DUMPABLE, 1);
	if (!is_thread(run))
		failure_take_over(run->self);
	return result;
}

int run_in(const struct place *place, int (*work)(void *), void *argument)
{
	struct run run = { .place = place, .work = work, .argument = argument, .parent = getpid() };
	char *stack;
	int result;

	stack = mmap(NULL, GUARD_SIZE + STACK_SIZE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
	if (stack == MAP_FAILED)
		return fail(errno, "no memory for the stack of a child");
	if (mprotect(stack, GUARD_SIZE, PROT_NONE)) {
		result = fail(errno, "cannot protect the end of a stack");
		munmap(stack, GUARD_SIZE + STACK_SIZE);
		return result;
	}
	result = run_child(&run, stack);
	/* live() does not return, so its marks would stay, for whatever is mapped there next. */
	ASAN_UNPOISON_MEMORY_REGION(stack + GUARD_SIZE, STACK_SIZE);
	munmap(stack, GUARD_SIZE + STACK_SIZE);
	return result ? result : run.result;
}
