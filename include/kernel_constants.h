/*
 * kernel_constants.h - constants of the kernel's interface that the headers of a distribution may lack, each with the
 * Linux version that introduced it.
 *
 * Freestanding. Include it after all system headers, because their definitions take precedence. Constants that several
 * sources need belong here.
 */
#ifndef KERNEL_CONSTANTS_H
#define KERNEL_CONSTANTS_H

/* --- System calls. Their numbers are the same on all architectures, as those of all since 424 are --- */

#define CALL_MAP_SHADOW_STACK 453 /* 6.6 */
#define CALL_MSEAL	      462 /* 6.10 */

/* --- linux/sched.h --- */

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80 /* 5.6 */
#endif

/* --- linux/capability.h --- */

#ifndef CAP_CHECKPOINT_RESTORE
#define CAP_CHECKPOINT_RESTORE 40 /* 5.9 */
#endif

/* --- linux/prctl.h --- */

#ifndef PR_SET_VMA
#define PR_SET_VMA	     0x53564d41 /* 5.17 */
#define PR_SET_VMA_ANON_NAME 0
#endif
#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65 /* 6.3 */
#define PR_GET_MDWE 66
#endif
#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67 /* 6.4 */
#define PR_GET_MEMORY_MERGE 68
#endif
#ifndef PR_TIMER_CREATE_RESTORE_IDS
#define PR_TIMER_CREATE_RESTORE_IDS	77 /* 6.16 */
#define PR_TIMER_CREATE_RESTORE_IDS_GET 2
#endif

/* --- linux/io_uring.h --- */

#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1U << 16) /* 6.6 */
#endif
#define CRIU_SOCKET_URING_OP_GETSOCKOPT 2 /* 6.7; linux/io_uring.h has it in an enum */

/* --- asm-generic/socket.h --- */

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71 /* 5.14 */
#endif

/* --- linux/in.h --- */

#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51 /* 6.3 */
#endif

/* --- linux/ptrace.h; glibc has some in an enum --- */

#ifndef PTRACE_EVENT_STOP
#define PTRACE_EVENT_STOP 128 /* 3.4 */
#endif
#ifndef PTRACE_O_SUSPEND_SECCOMP
#define PTRACE_O_SUSPEND_SECCOMP (1 << 21) /* 4.3 */
#endif
#ifndef PTRACE_GET_RSEQ_CONFIGURATION
#define PTRACE_GET_RSEQ_CONFIGURATION 0x420f /* 5.13 */
#endif
#ifndef PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG
#define PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG 0x4211 /* 6.4 */
#endif

/* --- asm/mman.h --- */

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08 /* 6.11: instead of MAP_PRIVATE; the kernel may take the pages at any time */
#endif
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1 /* 4.4 */
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* 5.14 */
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* 5.14 */
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* 6.1 */
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* 6.13 */
#define MADV_GUARD_REMOVE  103
#endif

/* --- linux/userfaultfd.h --- */

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1 /* 5.11 */
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13) /* 6.4 */
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15) /* 6.7 */
#endif

/* --- Files: linux/fcntl.h, linux/memfd.h, linux/timerfd.h, linux/inotify.h --- */

#ifndef F_GETOWNER_UIDS
#define F_GETOWNER_UIDS 17 /* 3.6, under CONFIG_CHECKPOINT_RESTORE */
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10 /* 5.1 */
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x20 /* 6.3 */
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8 /* 6.3 */
#define MFD_EXEC	0x10
#endif
#ifndef TFD_IOC_SET_TICKS
#define TFD_IOC_SET_TICKS _IOW('T', 0, uint64_t) /* 3.17, under CONFIG_CHECKPOINT_RESTORE */
#endif

#ifndef INOTIFY_IOC_SETNEXTWD
#define INOTIFY_IOC_SETNEXTWD _IOW('I', 0, int32_t) /* 4.17, under CONFIG_CHECKPOINT_RESTORE */
#endif

/* --- Sockets and interfaces --- */

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71 /* 5.14 */
#endif
#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72 /* 5.15 */
#endif
#ifndef SO_RESERVE_MEM
#define SO_RESERVE_MEM 73 /* 5.17 */
#endif
#ifndef SO_TXREHASH
#define SO_TXREHASH 74 /* 5.18 */
#endif
#ifndef SO_RCVMARK
#define SO_RCVMARK 75 /* 5.19 */
#endif
#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76 /* 6.5 */
#endif
#ifndef SO_RCVPRIORITY
#define SO_RCVPRIORITY 82 /* 6.14 */
#endif
#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83 /* 6.16 */
#endif
#ifndef SO_MEMINFO
#define SO_MEMINFO 55 /* 4.12 */
#endif
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71 /* 5.14 */
#endif
#ifndef SCM_INQ
#define SCM_INQ 84 /* 6.18, of unix sockets: SO_INQ */
#endif
#ifndef SCM_SECURITY
#define SCM_SECURITY 3 /* 2.6.18; glibc leaves it out */
#endif
#ifndef SCM_PIDFD
#define SCM_PIDFD 4 /* 6.5 */
#endif
#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78 /* 4.15 */
#endif
#ifndef SIOCUNIXFILE
#define SIOCUNIXFILE SIOCPROTOPRIVATE /* 4.12 */
#endif
#ifndef SIOCGSKNS
#define SIOCGSKNS 0x894c /* 4.10 */
#endif
#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23 /* 4.20 */
#endif
#ifndef PACKET_VNET_HDR_SZ
#define PACKET_VNET_HDR_SZ 24 /* 6.6 */
#endif
#ifndef TUNGETDEVNETNS
#define TUNGETDEVNETNS _IO('T', 227) /* 5.2 */
#endif
#ifndef IFLA_TARGET_NETNSID
#define IFLA_TARGET_NETNSID 46 /* 4.20; in an enum, which the preprocessor does not see */
#endif

#endif
