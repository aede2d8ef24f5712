/*
 * compel.h - stops threads of other processes, runs system calls inside them, and lets them continue as if nothing had
 * happened.
 *
 * Invariants:
 *  1. A thread never depends on the tracer staying alive. At every instant between two ptrace requests its registers
 *     are such that, if the tracer dies, it returns by itself to where it was, with its signal mask, FPU state and
 *     memory, and without any mapping or descriptor of the tracer.
 *  2. If a system call that returns and an rt_sigreturn are mapped in the task, none of its code is overwritten.
 *  3. An ordinary release restores everything exactly: registers, FPU, mask, and the kernel's restart block.
 * Documentation/blobs.md has the pictures. Failures are recorded with fail(); all functions return 0 or -errno.
 * Functions on one infected process do not name it in a failure: the caller does (fail_in()). Those on many name it
 * only if they do not tell which one failed.
 */
#ifndef COMPEL_H
#define COMPEL_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "arch_types.h"
#include "compiler.h"

/* ---- one thread ---- */

/* The machine state of a thread, from PTRACE_GETREGSET. */
struct thread_context {
	struct arch_registers registers; /* opaque: see arch.h */
	void *extended; /* the rest: floating point, vectors, … as the architecture lays it out */
	size_t extended_size;
	uint64_t signal_mask;
};

struct traced_thread {
	pid_t tid;
	bool is_seized;
	bool is_parked;		       /* in PTRACE_EVENT_STOP: the state between two operations */
	bool was_stopped;	       /* it was already in a group stop (SIGSTOP, …) */
	int stop_signal;	       /* the signal of that stop */
	struct thread_context context; /* its original state, without syscall restart; set by trace_wait() */

	unsigned options;     /* PTRACE_O_* that are set */
	bool asleep_is_known; /* it was waiting in a call that does not tell its remaining time … */
	uint64_t asleep;      /* … for this many nanoseconds */
	long restarted;	      /* the number of the call that it was restarting; 0: none, or unknown */
	uint64_t remaining; /* set by trace_settle_context(): see trace_reenter_call(); ns, 0: unknown, or none */
	struct for_now *for_now; /* see victim_call_for_now(); opaque */
};

/* `deadline` is CLOCK_MONOTONIC in nanoseconds. -ESRCH: the thread is gone (not recorded); -ETIMEDOUT: recorded. */
int trace_seize(struct traced_thread *thread, pid_t tid, bool suspend_seccomp)
	must_check; /* PTRACE_SEIZE + INTERRUPT; does not wait */
/* For a task that must die with the tracer long before it is stopped: only PTRACE_SEIZE with PTRACE_O_EXITKILL. */
int trace_with_exitkill(struct traced_thread *thread, pid_t tid) must_check;
int trace_interrupt(struct traced_thread *thread) must_check; /* the rest of trace_seize() */
/*
 * Traced threads that run stop when they get a signal. This lets all of them continue: the signal is delivered, and a
 * group stop lasts until SIGCONT (the log tells). Code that waits for such threads must call this now and then, best
 * when SIGCHLD arrives, which reports each stop.
 */
void trace_pass_signals(void);
int trace_wait(struct traced_thread *thread, uint64_t deadline)
	must_check; /* … until it is parked; reads `context` */
int trace_get_context(const struct traced_thread *thread, struct thread_context *context) must_check;
int trace_set_context(const struct traced_thread *thread, const struct thread_context *context) must_check;
void trace_free_context(struct thread_context *context);
/*
 * Makes one system call in a parked thread, at a system call instruction at `ip` with stack pointer `sp`; the caller is
 * responsible for what happens there if the tracer dies. Registers that the ABI does not change are kept. Leaves the
 * thread parked; *result is what the call returned.
 */
int trace_syscall(struct traced_thread *thread, uint64_t ip, uint64_t sp, long number,
		  const uint64_t arguments[6], long *result) must_check;
int trace_exit_kill(struct traced_thread *thread, bool on)
	must_check; /* PTRACE_O_EXITKILL: for tasks that must die with the tracer */
int trace_release(struct traced_thread *thread) must_check; /* PTRACE_DETACH; a group stop continues */
uint64_t trace_deadline(double seconds);		    /* from now */

/*
 * Computes the registers with which a thread continues as if it had never been interrupted, if it has no restart block
 * in the kernel: for an image, or for a thread that goes home by itself. Applies ERESTART*. Calls that the kernel ends
 * with EINTR although no signal came (epoll_wait, semtimedop, …), and calls with a restart block (nanosleep, poll,
 * futex), become the same call again, with the remaining time if the kernel or the scheduler's clock tells it. Aborts
 * an rseq critical section. `context` is changed in place; it must come from this (parked) thread.
 */
int trace_settle_context(struct traced_thread *thread, struct thread_context *context) must_check;
/*
 * Restores what registers cannot express: a relative timeout in the task's memory (nanosleep, clock_nanosleep, futex).
 * trace_settle_context() stores the rest of it in thread->remaining, if it is known. A parked thread with those
 * registers makes that very call with that time, and is interrupted in it: then the kernel holds the remaining time, as
 * it did when the thread was dumped. If the call ends at once, the registers have its result.
 */
int trace_reenter_call(struct traced_thread *thread, uint64_t remaining) must_check;

/* ---- one process ---- */

/* The numbers and structures that system calls have. Lists of calls are made for CALL_ABI_64 only: see calls.h. */
enum call_abi {
	CALL_ABI_64, /* criu's own */
	CALL_ABI_32,
	CALL_ABI_32_ON_64, /* 32-bit pointers, 64-bit registers */
};

struct victim {
	pid_t pid;
	enum call_abi abi;	       /* of the code that it runs */
	struct traced_thread *threads; /* [0] is the leader */
	size_t thread_count;
	/*
	 * Threads of the kernel in this process, which work for an io_uring (PF_IO_WORKER). They run none of its code,
	 * and are not stopped.
	 */
	pid_t *workers;
	size_t worker_count;
	struct infection *infection; /* while infected: opaque */
};

/*
 * Finds out from a running process what an infection will need; this saves a third of a millisecond of its frozen time.
 * Failures are silent. It clears the failure record, so it must be called before anything can have failed.
 */
void victim_look_ahead(pid_t pid);
/* Freezes all threads, and those created meanwhile, until there are no new ones. On failure everything is thawed. */
int victim_freeze(struct victim *victim, pid_t pid, uint64_t deadline) must_check;
/*
 * Lets all threads of all victims continue (or stay in the group stop they were in). With are_stopped it leaves them in
 * a group stop (SIGSTOP, if they were in none). First it cures many at the same time; it releases each one, also if
 * others fail.
 */
int victims_thaw(struct victim *const *victims, size_t count, bool are_stopped) must_check;
/* From now on all of them die with the tracer. They are parked: the options of a running thread cannot be set. */
void victims_tie(struct victim *const *victims, size_t count);
/* SIGKILLs the process and detaches; the caller reaps if it is the parent. */
int victim_kill(struct victim *victim) must_check;
/*
 * Puts a process, whose threads are parked with all signals blocked, into a group stop, which lasts after their
 * release. `signal` is SIGSTOP, or one of SIGTSTP, SIGTTIN and SIGTTOU with its default action. The process may also
 * not be stopped: the kernel ignores these signals in an orphaned process group, or a SIGCONT is pending.
 */
#define STOP_IGNORED	   1
#define STOP_COUNTERMANDED 2
int victim_stop(struct victim *victim, int signal) must_check;
void victim_free(struct victim *victim);

/* A system call to make in the victim. Pointers are addresses in the victim; see victim_scratch(). */
struct remote_call {
	long number;
	uint64_t arguments[6];
	long result; /* -errno, or the result of the call */
};

/*
 * Not a call of the kernel, but of the parasite, for victim_call() while the parasite serves (otherwise -ENOSYS):
 * counts the requests in flight in an AIO ring. Arguments: the address of the ring, the number of its slots, and the
 * most slots that the kernel fills. criu/blobs/parasite/ring.c explains how, and why the ring is unchanged afterwards.
 * The thread of the parasite must not have a seccomp filter.
 */
#define CALL_COUNT_REQUESTS (-1L)
/* Calls of compel: returns when the work at all desks is done; see victims_make_twins(). */
#define CALL_AWAIT_DESKS (-2L)
#define CALL_MAKE_TWIN	 (-3L)

/*
 * Inserts the parasite: a mapping, a socket to it, and the leader (or a better suited thread) in its code. Meanwhile a
 * child that criu forks must not keep the socket (exec closes it): the parasite learns of criu's death when it closes.
 */
int victim_infect(struct victim *victim) must_check;
#define VICTIM_GROUP 64 /* the number of processes that are worked on at the same time */
/*
 * Infects many at the same time. Afterwards each one is infected, or is as it was. If some fail, the first failure is
 * recorded and returned, and *failed (may be NULL) is its index.
 */
int victims_infect(struct victim *const *victims, size_t count, size_t *failed) must_check;
/*
 * The part of the mapping in the victim for arguments and results of calls: its address there, and its size (>= 64
 * KiB).
 */
uint64_t victim_scratch(const struct victim *victim, size_t *size);
/* Makes all the calls in order, in the parasite: one round trip, however many. */
int victim_call(struct victim *victim, struct remote_call *calls, size_t count) must_check;
/* The same in thread `index`, by ptrace, for what a thread can only tell about itself. Scratch may be used. */
int victim_call_thread(struct victim *victim, size_t index, struct remote_call *calls, size_t count)
	must_check;
/*
 * The same in many threads at once, each with its own list, with one entry for each thread. The bytes that the calls of
 * lists[i] point to (arguments and results) are at victim_desk(victim, i), where bytes and calls together have
 * PARASITE_LIST_ROOM; they are copied there and back. At most PARASITE_LISTS lists. If this is not possible (no serving
 * parasite, no code of the task's own to go home by), the calls are made by ptrace. No call may block. If criu dies, a
 * seccomp filter of a thread would judge the calls on its way home; threads with filters are asked by ptrace.
 */
struct thread_calls {
	size_t thread;
	enum call_abi abi;
	struct remote_call *calls;
	size_t count;
	char *bytes;
	size_t size;
};
#define PARASITE_LISTS	   248
#define PARASITE_LIST_ROOM 1984
/* A list for a thread of one of many processes, which work at the same time. The bytes are at victim_scratch(). */
struct process_calls {
	struct victim *victim;
	struct thread_calls list; /* only the parasite's thread works at the same time as other processes */
};
/* Each process makes its calls, also if others fail. Returns the first failure; *failed (may be NULL) is its index. */
int victims_call(struct process_calls *processes, size_t count, size_t *failed) must_check;
/* Memory of which a twin gets no copy. */
struct twin_range {
	uint64_t start, size;
	uint64_t is_hidden; /* used by the parasite */
};
#define MOST_TWIN_RANGES 20000 /* of one process */
/*
 * Makes a twin of each process: a process with a copy of its memory and nothing else of it, in the pid namespace
 * `pids`, where its parent is the first process. It copies what it is told to, until it is killed. The task's tree
 * cannot notice it: no process of it is the parent, and gets a signal. For `pids` each victim needs CAP_SYS_ADMIN, in its user namespace and in the owner
 * of `pids`; it has that if it can join `user`, the owner. -1: it has it already. No thread with a seccomp filter can
 * make one. blobs/parasite/twin.c has the details. *twin is the pid in that namespace; -errno: there is none. If criu
 * dies meanwhile, there may be one. A failure (< 0, recorded) is only that a process is lost.
 */
struct twin_order {
	struct victim *victim;
	int room; /* a memfd of this size, which the twin maps: twin_room.h */
	uint64_t room_size;
	int user, pids;
	const struct twin_range *ranges; /* whole mappings, which do not have MADV_DONTFORK already */
	size_t range_count;
	long twin;
};
int victims_make_twins(struct twin_order *orders, size_t count) must_check;
/*
 * Stops the parasites until the next call: no thread of these processes runs, not even to do in the kernel what waits
 * for it. victims_call() has done it already, other calls have not.
 */
int victims_park(struct victim *const *victims, size_t count) must_check;
uint64_t victim_desk(const struct victim *victim, size_t number);
int victim_call_threads(struct victim *victim, struct thread_calls *lists, size_t count) must_check;
/*
 * victim_call_thread() for changes that must not stay if the process lives on: if criu dies, the thread makes the calls
 * `back` (two at most) before it continues. So the change stays until it is taken back, or the process is killed. In a
 * thread other than the parasite's, none of the calls is made if the task has no code of its own that makes a system
 * call and returns.
 */
int victim_call_for_now(struct victim *victim, size_t index, struct remote_call *calls, size_t count,
			const struct remote_call *back, size_t back_count) must_check;
int victim_take_back(struct victim *victim, size_t index) must_check;
int victim_read(const struct victim *victim, uint64_t address, void *buffer, size_t size)
	must_check; /* process_vm_readv */
int victim_write(const struct victim *victim, uint64_t address, const void *buffer, size_t size) must_check;
/* Removes the parasite; the threads are parked with their original context. */
int victim_cure(struct victim *victim) must_check;
/* Cures all that are infected, at the same time, also if some of them fail. Returns the first failure. */
int victims_cure(struct victim *const *victims, size_t count) must_check;

#endif
