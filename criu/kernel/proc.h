/*
 * proc.h - parses what /proc tells of a process. No function here needs the process to be stopped.
 *
 * Readers take a directory fd of /proc/PID (or of /proc/PID/task/TID); parsers take text, so that unit tests need no
 * process. Failures are recorded. Facts are of proc(5) and of Linux 6.18.
 */
#ifndef CRIU_KERNEL_PROC_H
#define CRIU_KERNEL_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>
#include "compiler.h"
#include "model/vma.h"

/* A directory fd of /proc/PID; -errno, not recorded (-ENOENT, -ESRCH: no such process). */
int proc_open(pid_t pid) must_check;

struct proc_stat {
	pid_t pid;
	char comm[64]; /* up to 15 bytes for a thread of user space */
	char state;    /* R S D T t Z X I */
	pid_t parent, group, session;
	uint32_t terminal; /* that controls the session, as st_rdev of stat(2); 0: none */
	pid_t foreground;  /* group; -1: none */
	unsigned flags;	   /* PF_* */
	uint64_t start_code, end_code, start_stack, start_data, end_data, start_brk;
	uint64_t arg_start, arg_end, env_start, env_end;
	uint64_t start_time; /* clock ticks since boot: with the pid, identifies a process for ever */
	int exit_signal;     /* the signal that its parent gets when it ends */
	int exit_code;	     /* as wait(2) reports it */
};
int proc_parse_stat(const char *text, struct proc_stat *stat) must_check;
int proc_read_stat(int proc, struct proc_stat *stat) must_check;
int proc_read_thread_stat(int proc, pid_t tid, struct proc_stat *stat) must_check;

struct proc_status {
	uint32_t uid[4], gid[4]; /* real, effective, saved, file system */
	uint32_t *groups;	 /* owned */
	size_t group_count;
	uint64_t inheritable, permitted, effective, bounding, ambient;
	pid_t group_leader;
	unsigned umask, threads;
	int seccomp, no_new_privileges;
	char state;
};
int proc_parse_status(const char *text, struct proc_status *status) must_check;
int proc_read_status(int proc, struct proc_status *status) must_check;
int proc_read_thread_status(int proc, pid_t tid, struct proc_status *status) must_check;
void proc_status_free(struct proc_status *status);

/* As /proc/PID/limits names it: "Max open files". */
const char *proc_limit_name(int resource);
/* The ids in each pid namespace from that of /proc, which is criu's, to the innermost (NSpid, NSpgid, NSsid). */
struct pid_levels {
	pid_t ids[33]; /* the host, and 32 nested ones: MAX_PID_NS_LEVEL of Linux */
	size_t count;
};
int proc_parse_levels(const char *text, const char *name, struct pid_levels *levels) must_check;

/* RLIM_NLIMITS pairs, from the text of /proc/PID/limits: prlimit() needs CAP_SYS_RESOURCE for another user's task. */
int proc_parse_limits(const char *text, struct rlimit limits[RLIM_NLIMITS]) must_check;
int proc_read_limits(int proc, struct rlimit limits[RLIM_NLIMITS]) must_check;

/* All mappings with their VmFlags. Parsing `maps` would be faster, but it lacks advice and growth. */
int proc_parse_smaps(char *text, struct vmas *vmas) must_check;
int proc_read_smaps(int proc, struct vmas *vmas) must_check;
int proc_read_maps(int proc, struct vmas *vmas) must_check; /* without flags, therefore cheap */
/*
 * Reads an open /proc/PID/maps from its current offset. It shows the memory that the process had when it was opened:
 * none, after an exec.
 */
int proc_read_open_maps(int maps, struct vmas *vmas) must_check;
/* Are all fields equal that `maps` has? Neither may have guard ranges. */
bool vmas_are_same_in_maps(const struct vmas *a, const struct vmas *b);

/* The thread ids of a process; the ids of the children of all its threads. *ids is allocated. */
int proc_read_threads(int proc, pid_t **ids, size_t *count) must_check;
/* The numbers of the descriptors of a process, in ascending order. */
int proc_read_descriptors(int proc, int **fds, size_t *count) must_check;
/* All processes that /proc shows. */
int proc_read_pids(pid_t **ids, size_t *count) must_check;
int proc_read_children(int proc, pid_t **ids, size_t *count) must_check;
/* Those of the first threads only, where a child that is missed costs nothing but time: each thread takes 5 us. */
int proc_read_most_children(int proc, pid_t **ids, size_t *count) must_check;

/*
 * A link in /proc (fd/N, exe, cwd, a name in maps) ends with " (deleted)" if the file is no longer at its path. A name
 * can end like that, too.
 */
bool proc_link_is_deleted(const char *link);
char *proc_link_path(const char *link); /* without that; to be freed */

struct proc_fdinfo {
	int64_t position;
	unsigned flags; /* O_*; with O_CLOEXEC if the descriptor closes on exec */
	int mount;
	char *rest; /* all lines, for kinds of files that have more; owned */
};
int proc_read_fdinfo(int proc, int fd, struct proc_fdinfo *info) must_check;
/* Finds the fields in `info->rest`. */
int proc_parse_fdinfo(struct proc_fdinfo *info) must_check;

/* Reads a single number from a file such as loginuid or oom_score_adj. `base` as for strtoll(). */
int proc_read_number(int proc, const char *name, int base, long long *number) must_check;

#endif
