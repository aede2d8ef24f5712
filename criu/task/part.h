/*
 * part.h - one aspect of what a task is: its credentials, its signals, its limits, …
 *
 * parts.c lists them in the order in which restore makes them again; a line there says why it stands where it stands.
 * A part works on one thread at a time; thread 0 is the leader, which also answers for the whole process. Documentation/add-a-kind.md
 * walks through a new one.
 */
#ifndef CRIU_TASK_PART_H
#define CRIU_TASK_PART_H

#include "calls.h"
#include "compiler.h"
#include "kernel/proc.h"
#include "model/snapshot.h"

/* What dump has read about a thread before the parts look at it. */
struct thread_facts {
	int proc; /* /proc/PID/task/TID */
	struct proc_status status;
	struct proc_stat stat;
	const struct thread_context *context; /* settled: see trace_settle_context() */
};

/*
 * The callbacks of a part; one that it does not need is NULL. A thread is its number in task->threads. All but prepare() are called
 * for every thread, and none for a zombie, in the order of the table in parts.c. An error is recorded (fail()) and returned as -errno: it ends the
 * journey. Messages belong to the task, which frees them.
 */
struct task_part {
	const char *name;
	/*
	 * Dump, in criu; the task is frozen, and nothing has been done to it yet. Reads what can be seen from outside into the messages of
	 * the task. refuse() what cannot be saved: the others are asked all the same. May add files to the snapshot.
	 */
	int (*look)(struct snapshot *snapshot, struct task *task, size_t thread,
		    const struct thread_facts *facts) must_check;
	/*
	 * Dump, in criu; the parasite is in the task. Adds calls that the thread itself is going to make, and changes nothing else. Returns
	 * what hear() needs to find the answers: one allocation, mostly a struct of handles, which the caller frees; NULL: nothing.
	 */
	void *(*ask)(const struct snapshot *snapshot, const struct task *task, size_t thread,
		     struct call_list *calls);
	/*
	 * Dump, in criu; the calls have been made. Moves the answers into the messages. `asked` is what ask() has returned for this thread.
	 * May have the task make more calls; thread 0 is heard before the others. Does not refuse: that is too late.
	 */
	int (*hear)(const struct snapshot *snapshot, struct task *task, size_t thread,
		    const struct call_list *calls, const void *asked) must_check;
	/* The parts of whose hear() this hear() needs the outcome. They stand above it in the table. NULL ends the list. */
	const struct task_part *hears_after[3];
	/*
	 * Restore, in criu, before any task exists; and at the end of a dump, as a forecast. Are the messages possible, and can this be made
	 * here, by us? Changes nothing outside of them.
	 */
	int (*check)(const struct snapshot *snapshot, const struct task *task, size_t thread) must_check;
	/*
	 * Restore, in the newborn, once for the process: it has one thread yet, criu's code, memory, open files and privileges, and its
	 * memory is made. Does what lists of calls cannot: write files of /proc, enter directories, wait. Other tasks do the same at the same
	 * time; all have their pids. A failure is told with the process's name, and ends all of them.
	 */
	int (*prepare)(const struct snapshot *snapshot, const struct task *task) must_check;
	/*
	 * Restore, in the newborn, when it is prepared and has its descriptors. Adds the calls with which the thread becomes what it was, and
	 * changes nothing else. Each thread makes its own, in its final address space, with all signals blocked. A call that fails ends the
	 * restore; its purpose is the sentence.
	 */
	void (*make)(const struct snapshot *snapshot, const struct task *task, size_t thread,
		     struct call_list *calls);
	/*
	 * Restore, in criu; all threads are what they were, and stand still. Adds the last calls of the thread, which criu makes by ptrace: the
	 * leader's come last. Few of them, a few bytes at most.
	 */
	void (*finish)(const struct snapshot *snapshot, const struct task *task, size_t thread,
		       struct call_list *calls);
};

extern const struct task_part *const task_parts[];
extern const size_t task_part_count;

/* What all parts ask a thread. */
struct questions {
	struct call_list calls;
	void **asked; /* one a part: what its ask() has returned */
};
/* The bytes of the calls will lie at `base` in the task. To be freed, whatever comes of the calls. */
void task_parts_ask(const struct snapshot *snapshot, const struct task *task, size_t thread, uint64_t base,
		    struct questions *questions);
int task_parts_hear(const struct snapshot *snapshot, struct task *task, size_t thread,
		    const struct questions *questions) must_check;
void questions_free(struct questions *questions);

/* In the newborn. The failure is recorded. */
int task_parts_prepare(const struct snapshot *snapshot, const struct task *task) must_check;
/* Can a thread be restored here, as far as the parts know? The failure is recorded. */
int task_parts_check(const struct snapshot *snapshot, const struct task *task, size_t thread) must_check;

extern const struct task_part part_memory_layout, part_process, part_directories, part_identity,
	part_scheduling, part_signals, part_posix_timers, part_limits, part_credentials, part_pending_signals,
	part_timers, part_memory_keys, part_memory_locks, part_posix_timers_set, part_machine;

/* signals.c: what the thread blocks, by the image. It is set with the registers: until then all is blocked. */
uint64_t signals_blocked(const struct task *task, size_t thread);
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
