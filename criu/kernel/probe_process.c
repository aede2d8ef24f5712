/*
 * probe_process.c - probes about processes: stopping, naming, comparing and rebuilding them. They run in a child; see
 * probe.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/kcmp.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "arch.h"
#include "base/io.h"
#include "base/memory.h"
#include "kernel/place.h"
#include "kernel/probe_tests.h"
#include "kernel/proc.h"
#include "kernel_constants.h"

bool probe_capability(int capability)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[2] = {};

	return syscall(SYS_capget, &header, sets) == 0 &&
	       sets[capability / 32].effective & (1u << capability % 32);
}

/* --- ptrace ---------------------------------------------------------------------------------------------------- */

static bool seize_child(pid_t child, unsigned long options)
{
	int status;

	return child > 0 && ptrace(PTRACE_SEIZE, child, 0, options) == 0 &&
	       ptrace(PTRACE_INTERRUPT, child, 0, 0) == 0 && waitpid(child, &status, __WALL) == child &&
	       WIFSTOPPED(status);
}

bool probe_ptrace(int unused_argument unused)
{
	struct arch_registers registers;
	pid_t child = probe_fork(NULL);
	uint64_t mask;
	bool works;

	works = seize_child(child, 0) && arch_get_registers(child, &registers) == 0 &&
		arch_set_registers(child, &registers) == 0 &&
		ptrace(PTRACE_GETSIGMASK, child, sizeof(mask), &mask) == 0 &&
		ptrace(PTRACE_DETACH, child, 0, 0) == 0;
	probe_end(child);
	return works;
}

bool probe_seccomp_suspend(int unused_argument unused)
{
	pid_t child = probe_fork(NULL);
	bool works = seize_child(child, PTRACE_O_SUSPEND_SECCOMP);

	probe_end(child);
	return works;
}

static int filter_ready[2];

static void sleep_with_filter(void)
{
	struct sock_filter allow[] = { BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
	struct sock_fprog program = { array_size(allow), allow };

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0 && write(filter_ready[1], "", 1) == 1)
		pause();
}

bool probe_seccomp_filters(int unused_argument unused)
{
	struct sock_filter filter[8];
	pid_t child;
	char ready;
	bool works;

	if (pipe(filter_ready))
		return false;
	child = probe_fork(sleep_with_filter);
	close(filter_ready[1]);
	works = read(filter_ready[0], &ready, 1) == 1 && seize_child(child, 0) &&
		ptrace(PTRACE_SECCOMP_GET_FILTER, child, 0, filter) == 1;
	probe_end(child);
	return works;
}

bool probe_rseq(int unused_argument unused)
{
	struct {
		uint64_t pointer;
		uint32_t size, signature, flags, padding;
	} configuration;
	pid_t child = probe_fork(NULL);
	bool works;

	works = seize_child(child, 0) && ptrace(PTRACE_GET_RSEQ_CONFIGURATION, child, sizeof(configuration),
						&configuration) == sizeof(configuration);
	probe_end(child);
	return works;
}

static __attribute__((noinline)) void step_on_breakpoint(void)
{
	__asm__ volatile("");
}

static void stop_then_step(void)
{
	if (ptrace(PTRACE_TRACEME, 0, 0, 0) == 0) {
		raise(SIGSTOP);
		step_on_breakpoint();
	}
}

bool probe_breakpoints(int unused_argument unused)
{
	pid_t child = probe_fork(stop_then_step);
	int status = 0;
	bool works;

	works = child > 0 && waitpid(child, &status, 0) == child && WIFSTOPPED(status) &&
		probe_set_breakpoint(child, step_on_breakpoint) && ptrace(PTRACE_CONT, child, 0, 0) == 0 &&
		waitpid(child, &status, 0) == child && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP;
	probe_end(child);
	return works;
}

/* --- Names of processes ---------------------------------------------------------------------------------------- */

static int do_nothing(void *unused_argument unused)
{
	return 0;
}

/* A pid that was just freed is most likely free; hence a few tries. */
bool probe_clone_with_id(int unused_argument unused)
{
	int result = -EEXIST;

	for (int tries = 0; tries < 5 && result == -EEXIST; tries++) {
		struct place place = PLACE_HERE;

		place.pid = probe_fork(NULL);
		if (place.pid < 0)
			return false;
		probe_end(place.pid);
		result = run_in(&place, do_nothing, NULL);
	}
	return result == 0;
}

bool probe_children(int unused_argument unused)
{
	pid_t child = probe_fork(NULL);
	char path[64], name[16];
	bool works;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
	snprintf(name, sizeof(name), "%d ", child);
	works = child > 0 && probe_file_says(path, name);
	probe_end(child);
	return works;
}

bool probe_pidfd_getfd(int unused_argument unused)
{
	pid_t child = probe_fork(NULL);
	autoclose int pidfd = syscall(SYS_pidfd_open, child, 0);
	autoclose int copy = -1;

	if (pidfd >= 0)
		copy = syscall(SYS_pidfd_getfd, pidfd, STDERR_FILENO, 0);
	/* without a stderr there is nothing to fetch, which also gives EBADF */
	if (copy < 0 && errno == EBADF && fcntl(STDERR_FILENO, F_GETFD) < 0)
		copy = dup(pidfd);
	probe_end(child);
	return copy >= 0;
}

/* A pidfd reports the end of its process, and a caller can keep it for a later command. */
bool probe_pidfd_store(int unused_argument unused)
{
	pid_t child = probe_fork(NULL), self = getpid();
	autoclose int pidfd = syscall(SYS_pidfd_open, child, 0);
	autoclose int own = syscall(SYS_pidfd_open, self, 0);
	autoclose int copy = own < 0 ? -1 : syscall(SYS_pidfd_getfd, own, pidfd, 0);
	struct pollfd end = { .fd = copy, .events = POLLIN };

	probe_end(child);
	return pidfd >= 0 && copy >= 0 && poll(&end, 1, 1000) == 1;
}

bool probe_timer_ids(int unused_argument unused)
{
	struct sigevent event = { .sigev_notify = SIGEV_NONE };
	int id = 4711;

	return prctl(PR_TIMER_CREATE_RESTORE_IDS, 1, 0, 0, 0) == 0 &&
	       syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id) == 0 && id == 4711;
}

/* --- What processes share -------------------------------------------------------------------------------------- */

static long compare_by_kcmp(int type, unsigned long first, unsigned long second)
{
	return syscall(SYS_kcmp, getpid(), getpid(), type, first, second);
}

bool probe_kcmp(int unused_argument unused)
{
	int file = open("/proc/self/exe", O_RDONLY), same = dup(file),
	    other = open("/proc/self/exe", O_RDONLY);

	return compare_by_kcmp(KCMP_FILE, file, same) == 0 && compare_by_kcmp(KCMP_FILE, file, other) > 0;
}

bool probe_kcmp_epoll(int unused_argument unused)
{
	struct epoll_event event = { .events = EPOLLIN };
	int set = epoll_create1(0), ends[2];
	struct kcmp_epoll_slot slot = { .efd = set };

	if (set < 0 || pipe(ends) || epoll_ctl(set, EPOLL_CTL_ADD, ends[0], &event))
		return false;
	slot.tfd = ends[0];
	return compare_by_kcmp(KCMP_EPOLL_TFD, ends[0], (unsigned long)&slot) == 0;
}

bool probe_namespace(int flag)
{
	return unshare(flag) == 0;
}

/* The next child is the first process of a new namespace; then this process enters it by its descriptor. */
bool probe_pid_namespace(int unused_argument unused)
{
	autoclose int namespace = -1;
	char path[64];
	pid_t child;

	if (unshare(CLONE_NEWPID))
		return false;
	child = probe_fork(NULL);
	snprintf(path, sizeof(path), "/proc/%d/ns/pid", child);
	namespace = open(path, O_RDONLY);
	if (namespace < 0 || setns(namespace, CLONE_NEWPID))
		return false;
	probe_end(child);
	return true;
}

/* --- What a process is made again with ------------------------------------------------------------------------- */

/* Sets the values that the kernel reports for this process already. */
bool probe_memory_map(int unused_argument unused)
{
	autoclose int self = proc_open(getpid());
	struct prctl_mm_map map = { .exe_fd = -1 };
	struct proc_stat stat;

	if (self < 0 || proc_read_stat(self, &stat))
		return false;
	map.start_code = stat.start_code;
	map.end_code = stat.end_code;
	map.start_data = stat.start_data;
	map.end_data = stat.end_data;
	map.start_brk = stat.start_brk;
	map.brk = (uintptr_t)sbrk(0);
	map.start_stack = stat.start_stack;
	map.arg_start = stat.arg_start;
	map.arg_end = stat.arg_end;
	map.env_start = stat.env_start;
	map.env_end = stat.env_end;
	return prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0) == 0;
}

bool probe_loginuid(int unused_argument unused)
{
	autofree char *number = NULL;

	return read_text_at(AT_FDCWD, "/proc/self/loginuid", &number) > 0 &&
	       write_text_at(AT_FDCWD, "/proc/self/loginuid", number) == 0;
}

bool probe_apparmor_stacking(int unused_argument unused)
{
	return probe_file_says("/sys/kernel/security/apparmor/features/domain/stack", "yes");
}
