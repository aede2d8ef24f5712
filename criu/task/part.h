/*
 * part.h - one aspect of what a task is: its credentials, its signals, its limits, …
 *
 * parts.c lists them in the order in which restore makes them again; a line there says why it stands where it stands.
 * A part works on one thread at a time; thread 0 is the leader, which also answers for the whole process.
 */
#ifndef CRIU_TASK_PART_H
#define CRIU_TASK_PART_H

#include "compiler.h"
#include "kernel/calls.h"
#include "kernel/proc.h"
#include "model/snapshot.h"

/* What dump has read about a thread before the parts look at it. */
struct thread_facts {
	int proc; /* /proc/PID/task/TID */
	struct proc_status status;
	const struct thread_context *context; /* settled: see trace_settle_context() */
};

struct task_part {
	const char *name;
	/* Dump, the task is frozen but untouched: what can be told from outside. Refuses what cannot be saved. */
	int (*look)(struct task *task, size_t thread, const struct thread_facts *facts) must_check;
	/* Dump, in two steps: questions that only the thread itself can answer; then the answers go into its core. */
	void (*ask)(const struct task *task, size_t thread, struct call_list *calls);
	int (*hear)(struct task *task, size_t thread, const struct call_list *calls) must_check;
	/* Restore, before any task exists: can this be made here? Changes nothing. */
	int (*check)(const struct task *task, size_t thread) must_check;
	/* Restore: the calls with which the thread becomes what it was. They run in its final address space. */
	void (*make)(const struct task *task, size_t thread, struct call_list *calls);
	/* Restore, when all threads are what they were: the last calls of a thread, made by ptrace. Few, and a few bytes at most. */
	void (*finish)(const struct task *task, size_t thread, struct call_list *calls);
};

extern const struct task_part *const task_parts[];
extern const size_t task_part_count;
/* Can a thread be restored here, as far as the parts know? The failure is recorded. */
int task_parts_check(const struct task *task, size_t thread) must_check;

extern const struct task_part part_memory_layout, part_process, part_identity, part_scheduling, part_signals,
	part_posix_timers, part_limits, part_credentials, part_pending_signals, part_timers, part_memory_keys,
	part_memory_locks, part_posix_timers_set, part_machine;

/* signals.c: is it SIG_DFL, by the image? */
bool signal_has_default_action(const struct task *task, int signal);
struct cpus; /* kernel/cpus.h */
/* scheduling.c, dump: `all` are those of the thread's cpuset. If it may run on all of these, it is kept to none. */
void scheduling_drop_full_affinity(ThreadCoreEntry *core, const struct cpus *all);
/* Restore: warns if a thread that is kept to some CPUs cannot have all of them; `here` are those of the cpuset that it will be in. */
void scheduling_warn_of_cpus(const struct task *task, size_t thread, const struct cpus *here);
/* Restore: once more, for a thread that has come to another cpuset since it has done so itself. */
int scheduling_set_affinity(const struct task *task, size_t thread) must_check;

/* identity.c: has it calls to finish with that would be seen outside if the restore failed after them? */
bool identity_waits(const struct task *task);

/* posix_timers.c, dump: are there timers whose owners are found by whose time goes on? Then one thread is asked at a time. */
bool posix_timers_look_for_owners(const struct task *task);
/* posix_timers.c: does a timer, when it is set again, send this signal anew? Then nobody else puts it back. */
bool posix_timer_resends(const struct task *task, const SiginfoEntry *entry);

#endif
