/*
 * probe.c - the table of probes, and the child in which one runs. See probe.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "kernel/probe.h"
#include "kernel/probe_tests.h"
#include "kernel_constants.h"

/* Required first, then privileges, then by subject: `criu check` prints them in this order. */
const struct probe probes[] = {
	{ "ptrace", probe_ptrace, 0, PROBE_REQUIRED,
	  "processes can be stopped unnoticed, and their threads read and changed",
	  "processes cannot be stopped: needs CAP_SYS_PTRACE, or another kernel.yama.ptrace_scope" },
	{ "map_files", probe_map_files, 0, PROBE_REQUIRED,
	  "mapped files can be opened in /proc/PID/map_files, even deleted ones",
	  "mapped files cannot be opened: needs CONFIG_CHECKPOINT_RESTORE and CAP_CHECKPOINT_RESTORE" },
	{ "pagemap", probe_pagemap, 0, PROBE_REQUIRED, "/proc/PID/pagemap shows which pages are in use",
	  "pages in use cannot be found: needs CONFIG_PROC_PAGE_MONITOR" },
	{ "children", probe_children, 0, PROBE_REQUIRED, "/proc/PID/task/TID/children shows the tree",
	  "children of a process cannot be found: needs CONFIG_PROC_CHILDREN" },
	{ "kcmp", probe_kcmp, 0, PROBE_REQUIRED, "kcmp() shows what processes share",
	  "files that processes share cannot be found: needs CONFIG_KCMP, or a seccomp rule that allows kcmp()" },
	{ "process_vm", probe_process_vm, 0, PROBE_REQUIRED,
	  "memory of other processes can be read and written directly",
	  "memory of other processes cannot be read: needs CONFIG_CROSS_MEMORY_ATTACH" },
	{ "pidfd_getfd", probe_pidfd_getfd, 0, PROBE_REQUIRED,
	  "open files can be fetched from their processes",
	  "open files cannot be fetched from their processes: needs Linux 5.6, or a seccomp rule that allows it" },
	{ "clone3_set_tid", probe_clone_with_id, 0, PROBE_REQUIRED, "processes get their old ids",
	  "processes cannot be given their ids: needs Linux 5.5 and CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN" },
	{ "set_mm_map", probe_memory_map, 0, PROBE_REQUIRED,
	  "arguments, environment, heap and stack get their old addresses",
	  "the addresses of heap and arguments cannot be set: needs CONFIG_CHECKPOINT_RESTORE" },

	{ "cap_sys_admin", probe_capability, CAP_SYS_ADMIN, PROBE_USEFUL,
	  "namespaces, mounts and seccomp filters can be saved and restored",
	  "namespaces, mounts and seccomp filters cannot be saved or restored" },
	{ "cap_checkpoint_restore", probe_capability, CAP_CHECKPOINT_RESTORE, PROBE_USEFUL,
	  "ids and mapped files are available without CAP_SYS_ADMIN",
	  "ids and mapped files need CAP_SYS_ADMIN" },
	{ "cap_sys_ptrace", probe_capability, CAP_SYS_PTRACE, PROBE_USEFUL,
	  "processes of all users can be dumped",
	  "only processes of this user, with no more privileges, can be dumped" },
	{ "cap_sys_resource", probe_capability, CAP_SYS_RESOURCE, PROBE_USEFUL,
	  "every limit and every oom_score_adj can be restored",
	  "a restore cannot raise limits, lower an oom_score_adj, or open more files than the limit" },
	{ "cap_net_admin", probe_capability, CAP_NET_ADMIN, PROBE_USEFUL,
	  "TCP connections and network interfaces can be saved and restored",
	  "TCP connections and network interfaces cannot be saved or restored" },
	{ "cap_setuid", probe_capability, CAP_SETUID, PROBE_USEFUL, "processes of all users can be restored",
	  "only processes of this user can be restored" },
	{ "cap_setgid", probe_capability, CAP_SETGID, PROBE_USEFUL, "groups can be restored",
	  "only processes with criu's groups can be restored" },
	{ "cap_sys_chroot", probe_capability, CAP_SYS_CHROOT, PROBE_USEFUL,
	  "root directories can be restored", "only processes with criu's root directory can be restored" },

	{ "pagemap_scan", probe_pagemap_scan, 0, PROBE_USEFUL, "one call finds many pages in use",
	  "pages in use are found by reading eight bytes for each page, which is slower" },
	{ "written", probe_written_tracker, 0, PROBE_USEFUL,
	  "incremental snapshots can track writes with userfaultfd",
	  "writes cannot be tracked with userfaultfd: needs Linux 6.7, CONFIG_PTE_MARKER_UFFD_WP, CAP_SYS_PTRACE" },
	{ "soft-dirty", probe_soft_dirty, 0, PROBE_USEFUL,
	  "incremental snapshots can use the kernel's soft-dirty bits",
	  "the kernel has no soft-dirty bits: needs CONFIG_MEM_SOFT_DIRTY" },
	/* Container engines ask for this before a pre-dump: any of the trackers will do. */
	{ "mem_dirty_track", probe_any_tracker, 0, PROBE_EXTRA,
	  "changes since a snapshot are tracked by the kernel, or found by comparing",
	  "memory can neither be tracked nor read: incremental snapshots and pre-dumps are not possible" },
	{ "uffd", probe_userfaultfd, 0, PROBE_EXTRA,
	  "pages of restored processes can be loaded when they are touched",
	  "pages cannot be loaded when they are touched: needs CONFIG_USERFAULTFD and CAP_SYS_PTRACE" },
	{ "uffd-noncoop", probe_userfaultfd_events, 0, PROBE_EXTRA,
	  "loading pages on touch works also for processes that fork or move memory",
	  "loading pages on touch works only for processes that neither fork nor move memory" },
	{ "pagemap_scan_guard_pages", probe_guard_pages, 0, PROBE_EXTRA,
	  "guard pages can be found and restored", "guard pages cannot be found: needs Linux 6.15" },
	{ "aio_remap", probe_aio_remap, 0, PROBE_EXTRA, "AIO rings can be moved to their old addresses",
	  "processes with AIO rings cannot be restored: needs CONFIG_AIO" },
	{ "ipc_ids", probe_ipc_ids, 0, PROBE_EXTRA,
	  "System V IPC objects get their old ids, and messages can be copied",
	  "System V IPC objects cannot be restored: needs CONFIG_CHECKPOINT_RESTORE and CAP_CHECKPOINT_RESTORE" },
	{ "memfd_hugetlb", probe_memfd_hugetlb, 0, PROBE_EXTRA, "memfds of huge pages can be created",
	  "memfds of huge pages cannot be created: needs CONFIG_HUGETLBFS" },

	{ "seccomp_suspend", probe_seccomp_suspend, 0, PROBE_EXTRA, "processes under seccomp can be dumped",
	  "processes under seccomp cannot be dumped: needs CAP_SYS_ADMIN, and criu must not be under seccomp" },
	{ "seccomp_filters", probe_seccomp_filters, 0, PROBE_EXTRA, "seccomp filters can be read",
	  "seccomp filters cannot be read: needs CONFIG_CHECKPOINT_RESTORE and CAP_SYS_ADMIN" },
	{ "get_rseq_conf", probe_rseq, 0, PROBE_EXTRA, "restartable sequences can be found and restored",
	  "restartable sequences cannot be found: needs Linux 5.13" },
	{ "timer_cr_ids", probe_timer_ids, 0, PROBE_EXTRA, "posix timers get their old ids directly",
	  "posix timers get their old ids by counting up: slower than with Linux 6.16" },
	{ "breakpoints", probe_breakpoints, 0, PROBE_EXTRA, "hardware breakpoints work",
	  "hardware breakpoints do not work" },
	{ "can_map_vdso", probe_map_vdso, 64, PROBE_EXTRA, "the vdso can be mapped at its old address",
	  "the vdso must be moved or patched" },
	{ "compat_cr", probe_map_vdso, 32, PROBE_EXTRA, "the kernel can restore 32-bit processes",
	  "the kernel cannot restore 32-bit processes: needs CONFIG_IA32_EMULATION" },
	{ "kcmp_epoll", probe_kcmp_epoll, 0, PROBE_EXTRA, "kcmp() shows what an epoll watches",
	  "an epoll that watches a file under another descriptor cannot be saved: needs Linux 4.13" },
	{ "pidfd_store", probe_pidfd_store, 0, PROBE_EXTRA,
	  "a process can be distinguished from a later one with the same id",
	  "a reused process id may go unnoticed between dumps" },
	{ "loginuid", probe_loginuid, 0, PROBE_EXTRA, "the login uid can be restored",
	  "the login uid is lost: needs CONFIG_AUDIT and CAP_AUDIT_CONTROL" },
	{ "apparmor_stacking", probe_apparmor_stacking, 0, PROBE_EXPERIMENTAL,
	  "stacked AppArmor profiles can be restored", "stacked AppArmor profiles cannot be restored" },

	{ "mnt_id", probe_mount_id, 0, PROBE_EXTRA, "the mount of an open file is known",
	  "the mount of an open file has to be guessed: needs Linux 3.15" },
	{ "fdinfo_lock", probe_lock_in_fdinfo, 0, PROBE_EXTRA,
	  "file locks can be assigned to their descriptors",
	  "file locks cannot be assigned to descriptors: needs Linux 4.1" },
	{ "timerfd", probe_timerfd, 0, PROBE_EXTRA, "timerfds can be read and set",
	  "timerfds lose unread expirations: needs Linux 3.17" },
	{ "openat2", probe_openat2, 0, PROBE_EXTRA, "paths can be opened beneath a directory",
	  "paths cannot be opened beneath a directory (openat2()): needs Linux 5.6" },
	{ "autofs", probe_autofs, 0, PROBE_EXTRA, "autofs mounts show their pipe",
	  "autofs mounts cannot be saved" },
	{ "overlayfs_maps", probe_overlay_maps, 0, PROBE_EXTRA,
	  "files mapped from overlayfs can be found directly",
	  "files mapped from overlayfs are found by their names: Linux 6.8 is more reliable" },
	{ "move_mount_set_group", probe_mount_group, 0, PROBE_EXTRA, "mounts can be put into sharing groups",
	  "mounts get their sharing groups by the order of their creation: Linux 5.15 is more reliable" },

	{ "userns", probe_namespace, CLONE_NEWUSER, PROBE_EXTRA, "user namespaces can be created",
	  "user namespaces cannot be created" },
	{ "cgroupns", probe_namespace, CLONE_NEWCGROUP, PROBE_EXTRA, "cgroup namespaces can be created",
	  "cgroup namespaces cannot be created" },
	{ "timens", probe_namespace, CLONE_NEWTIME, PROBE_EXTRA, "time namespaces can be created",
	  "time namespaces cannot be created: the clocks of restored processes jump" },
	{ "ns_pid", probe_pid_namespace, 0, PROBE_EXTRA, "pid namespaces can be created and entered",
	  "pid namespaces cannot be created or entered" },
	{ "external_net_ns", probe_enter_network, 0, PROBE_EXTRA,
	  "network namespaces can be entered by descriptor", "network namespaces cannot be entered" },
	{ "nsid", probe_namespace_id, 0, PROBE_EXTRA, "network namespaces have ids",
	  "network namespaces have no ids" },
	{ "link_nsid", probe_link_in_namespace, 0, PROBE_EXTRA,
	  "network interfaces of other namespaces can be read",
	  "network interfaces can be read only from within their namespace" },
	{ "newifindex", probe_interface_number, 0, PROBE_EXTRA, "network interfaces get their old numbers",
	  "network interfaces get new numbers" },
	{ "tun", probe_tun, 0, PROBE_EXTRA, "tun and tap devices can be created",
	  "tun and tap devices cannot be created" },
	{ "tun_ns", probe_tun_namespace, 0, PROBE_EXTRA, "the network namespace of a tun device is known",
	  "the network namespace of a tun device is not known" },
	{ "sk_ns", probe_socket_namespace, 0, PROBE_EXTRA, "the network namespace of a socket is known",
	  "the network namespace of a socket is not known" },
	{ "sk_unix_file", probe_unix_file, 0, PROBE_EXTRA, "the file of a unix socket can be opened",
	  "the file of a unix socket is found by its name only" },
	{ "net_diag_raw", probe_raw_sockets, 0, PROBE_EXTRA, "raw sockets can be found",
	  "raw sockets cannot be found: needs CONFIG_INET_RAW_DIAG" },
	{ "tcp_half_closed", probe_half_closed, 0, PROBE_EXTRA, "half-closed TCP connections can be saved",
	  "half-closed TCP connections cannot be saved" },
	{ "sockopt_buf_lock", probe_socket_option, OPTION_BUFFER_LOCK, PROBE_EXTRA,
	  "the fixed buffer size of a socket can be restored", "the fixed buffer size of a socket is lost" },
	{ "ipv6_freebind", probe_socket_option, OPTION_IPV6_FREEBIND, PROBE_EXTRA,
	  "IPv6 sockets can be bound to addresses that do not exist yet",
	  "IPv6 addresses must exist before sockets are bound to them" },
	{ "nftables", probe_nftables, 0, PROBE_EXTRA, "nftables rules can be created",
	  "nftables rules cannot be created" },
	{ "network_lock_nftables", probe_nftables, 0, PROBE_EXTRA, "nftables can block packets",
	  "nftables cannot block packets" },
	{ "has_ipt_legacy", probe_iptables_legacy, 0, PROBE_EXPERIMENTAL, "legacy iptables is installed",
	  "legacy iptables is not installed" },
};
const size_t probe_count = array_size(probes);

const struct probe *probe_find(const char *name)
{
	for (size_t i = 0; i < probe_count; i++)
		if (!strcmp(probes[i].name, name))
			return &probes[i];
	return NULL;
}

pid_t probe_fork(void (*work)(void))
{
	pid_t child = fork();

	if (child)
		return child;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (work)
		work();
	else
		pause();
	_exit(0);
}

void probe_end(pid_t child)
{
	kill(child, SIGKILL);
	while (waitpid(child, NULL, __WALL) < 0 && errno == EINTR)
		;
}

bool probe_file_says(const char *path, const char *words)
{
	autofree char *text = NULL;

	return read_text_at(AT_FDCWD, path, &text) > 0 && strstr(text, words);
}

/* The alarm ends a test that waits for ever: then the answer is no. */
static does_not_return void run_test(const struct probe *probe)
{
	struct attempt attempt;

	attempt_begin(&attempt);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setrlimit(RLIMIT_CORE, &(struct rlimit){}); /* a test may die */
	alarm(5);
	_exit(probe->test(probe->argument) ? 0 : 1);
}

bool probe_run(const struct probe *probe)
{
	pid_t child = fork();
	int status;

	if (child < 0)
		return false;
	if (child == 0)
		run_test(probe);
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return false;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}
