/*
 * probe_tests.h - the tests of the table in probe.c, by subject. Each runs in a child and may do anything there.
 * `argument` comes from its row.
 */
#ifndef CRIU_KERNEL_PROBE_TESTS_H
#define CRIU_KERNEL_PROBE_TESTS_H

#include <stdbool.h>
#include <sys/types.h>
#include "compiler.h"

/* Forks a child that does `work` and ends, or sleeps if `work` is NULL. It dies with its parent. -1: failed. */
pid_t probe_fork(void (*work)(void)) must_check;
void probe_end(pid_t child); /* kills it and waits */
/* Whether a file of /proc/self has a line with these words. */
bool probe_file_says(const char *path, const char *words);

/* probe_process.c */
bool probe_capability(int capability);
bool probe_ptrace(int unused_argument);
bool probe_clone_with_id(int unused_argument);
bool probe_children(int unused_argument);
bool probe_kcmp(int unused_argument);
bool probe_kcmp_epoll(int unused_argument);
bool probe_pidfd_getfd(int unused_argument);
bool probe_pidfd_store(int unused_argument);
bool probe_memory_map(int unused_argument);
bool probe_timer_ids(int unused_argument);
bool probe_seccomp_suspend(int unused_argument);
bool probe_seccomp_filters(int unused_argument);
bool probe_rseq(int unused_argument);
bool probe_namespace(int flag);
bool probe_pid_namespace(int unused_argument);
bool probe_loginuid(int unused_argument);
bool probe_apparmor_stacking(int unused_argument);

bool probe_breakpoints(int unused_argument);

/* criu/arch/NAME/probes.c: parts of probes */
/* Sets a hardware breakpoint in a child that is stopped by ptrace. */
bool probe_set_breakpoint(pid_t child, void (*code)(void)) must_check;
/* Has the kernel map a vdso for a task of so many bits; the process has none. */
bool probe_place_vdso(int bits, void *address) must_check;

/* probe_memory.c */
bool probe_map_vdso(int bits); /* for a task of so many bits */
bool probe_map_files(int unused_argument);
bool probe_pagemap(int unused_argument);
bool probe_process_vm(int unused_argument);
bool probe_soft_dirty(int unused_argument);
bool probe_pagemap_scan(int unused_argument);
bool probe_guard_pages(int unused_argument);
bool probe_userfaultfd(int unused_argument);
bool probe_userfaultfd_events(int unused_argument);
bool probe_written_tracker(int unused_argument);
bool probe_any_tracker(int unused_argument);
bool probe_aio_remap(int unused_argument);
bool probe_ipc_ids(int unused_argument);
bool probe_memfd_hugetlb(int unused_argument);

/* probe_files.c */
bool probe_mount_id(int unused_argument);
bool probe_timerfd(int unused_argument);
bool probe_lock_in_fdinfo(int unused_argument);
bool probe_openat2(int unused_argument);
bool probe_autofs(int unused_argument);
bool probe_mount_group(int unused_argument);
bool probe_overlay_maps(int unused_argument);

/* probe_network.c */
bool probe_tun(int unused_argument);
bool probe_tun_namespace(int unused_argument);
bool probe_socket_namespace(int unused_argument);
bool probe_unix_file(int unused_argument);
bool probe_socket_option(int what);
enum { OPTION_BUFFER_LOCK, OPTION_IPV6_FREEBIND };
bool probe_half_closed(int unused_argument);
bool probe_raw_sockets(int unused_argument);
bool probe_namespace_id(int unused_argument);
bool probe_link_in_namespace(int unused_argument);
bool probe_interface_number(int unused_argument);
bool probe_nftables(int unused_argument);
bool probe_iptables_legacy(int unused_argument);
bool probe_enter_network(int unused_argument);

#endif
