/*
 * part.h - the contract of a part of a task: credentials, signals, limits, …
 *
 * parts.c lists the parts in the order in which restore runs them, with the reason for each position. A part works on
 * one thread at a time; thread 0 is the leader, which also stands for the whole process. Documentation/add-a-kind.md
 * describes how to add a part.
 */
#ifndef CRIU_TASK_PART_H
#define CRIU_TASK_PART_H

#include "calls.h"
#include "compiler.h"
#include "kernel/proc.h"
#include "model/snapshot.h"

/* What dump knows about a thread before the parts look at it. */
struct thread_facts {
	struct proc_status status;
	const struct thread_context *context; /* settled: see trace_settle_context() */
};

/*
 * The callbacks of a part; an unused one is NULL. A thread is its index in task->threads. All but prepare() are called
 * for every thread, and none for a zombie, in the order of the table in parts.c. An error is recorded (fail()) and
 * returned as -errno: it ends the journey. The task owns its messages and frees them.
 */
struct task_part {
	const char *name;
	/*
	 * What it saves belongs to an object that several tasks may share: it is called for the first thread of the
	 * leader only.
	 */
	bool is_of_object;
	enum object_kind object;
	/*
	 * Dump, in criu; the task is frozen and otherwise untouched. Reads what is visible from outside into the
	 * messages of the task. refuse() what cannot be saved: the other parts are called all the same. May add files
	 * to the snapshot.
	 */
	int (*look)(struct snapshot *snapshot, struct task *task, size_t thread,
		    const struct thread_facts *facts) must_check;
	/*
	 * Dump, in criu; the parasite is in the task. Adds calls for the thread to make, and changes nothing else.
	 * Returns what hear() needs to find the answers: one allocation, mostly a struct of handles, which the caller
	 * frees; NULL: nothing.
	 */
	void *(*ask)(const struct snapshot *snapshot, const struct task *task, size_t thread,
		     struct call_list *calls);
	/*
	 * Dump, in criu; the calls have been made. Moves the answers into the messages. `asked` is what ask() returned
	 * for this thread. May have the task make more calls; thread 0 is heard before the others. Must not refuse: it
	 * is too late for that.
	 */
	int (*hear)(const struct snapshot *snapshot, struct task *task, size_t thread,
		    const struct call_list *calls, const void *asked) must_check;
	/* The parts whose hear() must run before this one. They stand above it in the table. NULL ends the list. */
	const struct task_part *hears_after[3];
	/*
	 * Restore, in criu, before any task exists; and at the end of a dump, as a forecast. Are the messages valid,
	 * and can criu restore this here? Changes nothing but the messages.
	 */
	int (*check)(const struct snapshot *snapshot, const struct task *task, size_t thread) must_check;
	/*
	 * Restore, in the newborn, once for the process. It has only one thread, criu's code, memory, open files and
	 * privileges; the memory of the task has been created. Does what lists of calls cannot do: write files of
	 * /proc, enter directories, wait. Other tasks do the same at the same time; all have their pids. A failure is
	 * reported with the name of the process, and ends all of them.
	 */
	int (*prepare)(const struct snapshot *snapshot, const struct task *task) must_check;
	/*
	 * Restore, in the newborn, when it is prepared and has its descriptors. Adds the calls that restore the state
	 * of the thread, and changes nothing else. Each thread makes its own calls, in its final address space, with
	 * all signals blocked. A call that fails ends the restore; its purpose is in the message.
	 */
	void (*make)(const struct snapshot *snapshot, const struct task *task, size_t thread,
		     struct call_list *calls);
	/*
	 * Restore, in criu; all threads are restored and stopped. Adds the last calls of the thread, which criu makes
	 * by ptrace; those of the leader come last. They must be few, with only a few bytes.
	 */
	void (*finish)(const struct snapshot *snapshot, const struct task *task, size_t thread,
		       struct call_list *calls);
};

/* Is the part called for this thread? What belongs to an object is for the first thread of its leader. */
static inline bool part_concerns(const struct task_part *part, const struct task *task, size_t thread)
{
	return !part->is_of_object || (!thread && task_leads(task, part->object));
}

extern const struct task_part *const task_parts[];
extern const size_t task_part_count;

/* The questions of all parts to one thread. */
struct questions {
	struct call_list calls;
	void **asked; /* for each part what its ask() returned */
};
/* The bytes of the calls will be at `base` in the task. To be freed in any case. */
void task_parts_ask(const struct snapshot *snapshot, const struct task *task, size_t thread, uint64_t base,
		    struct questions *questions);
int task_parts_hear(const struct snapshot *snapshot, struct task *task, size_t thread,
		    const struct questions *questions) must_check;
void questions_free(struct questions *questions);

/* In the newborn. The failure is recorded. */
int task_parts_prepare(const struct snapshot *snapshot, const struct task *task) must_check;
/* Can the parts restore this thread here? A failure is recorded. */
int task_parts_check(const struct snapshot *snapshot, const struct task *task, size_t thread) must_check;

extern const struct task_part part_memory_layout, part_process, part_directories, part_identity,
	part_scheduling, part_signals, part_posix_timers, part_limits, part_credentials, part_pending_signals,
	part_timers, part_memory_keys, part_memory_locks, part_posix_timers_set, part_machine,
	part_ring_buffers, part_rings;

/*
 * signals.c: the signals that the thread blocks, from the image. The mask is set with the registers; until then all
 * signals are blocked.
 */
uint64_t signals_blocked(const struct task *task, size_t thread);
/* signals.c: is the action SIG_DFL in the image? */
bool signal_has_default_action(const struct task *task, int signal);
/* machine.c, dump: from the flags of the thread in its `stat`. */
void machine_hear_flags(ThreadCoreEntry *core, unsigned flags);
struct cpus; /* kernel/cpus.h */
/* scheduling.c, dump: `all` is the cpuset of the thread. A thread that may run on all of it has no affinity to save. */
void scheduling_drop_full_affinity(ThreadCoreEntry *core, const struct cpus *all);
/* Restore: warns if a thread with an affinity cannot have all of its CPUs; `here` is the cpuset that it will be in. */
void scheduling_warn_of_cpus(const struct task *task, size_t thread, const struct cpus *here);
/* Restore: sets the affinity again, for a thread that has moved to another cpuset since it set it itself. */
int scheduling_set_affinity(const struct task *task, size_t thread) must_check;

/* identity.c: does it have last calls that would be visible outside if the restore failed after them? */
bool identity_waits(const struct task *task);

/*
 * posix_timers.c, dump: are there timers whose owner can be found only by watching whose CPU time advances? Then
 * threads are asked one at a time.
 */
bool posix_timers_look_for_owners(const struct task *task);
/* posix_timers.c: does a timer send this signal again when it is set? Then no other part puts the signal back. */
bool posix_timer_resends(const struct task *task, const SiginfoEntry *entry);

#endif
