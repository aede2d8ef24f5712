/*
 * compel.h - stops foreign threads, runs system calls inside them, and lets them go as if nothing had been.
 *
 * Invariants:
 *  1. A thread never depends on the tracer staying alive. At every instant between two ptrace requests its registers are
 *     such that, set free by our death, it returns by itself to where it was, with its signal mask, FPU state and
 *     memory, and with no mapping or descriptor of ours left behind.
 *  2. No instruction of the task is overwritten where it has a `syscall; ret` and an rt_sigreturn mapped.
 *  3. What an ordinary release gives back is exact: registers, FPU, mask, and the kernel's restart block.
 * Documentation/blobs.md has the pictures. Failures are recorded with fail(); all functions return 0 or -errno.
 */
#ifndef COMPEL_H
#define COMPEL_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>
#include "compiler.h"

/* ---- one thread ---- */

/* The machine state of a thread, as PTRACE_GETREGSET gives it. */
struct thread_context {
	struct user_regs_struct registers; /* x86-64: with fs_base, gs_base, orig_rax */
	void *extended;			   /* XSAVE area, standard format (NT_X86_XSTATE) */
	size_t extended_size;
	uint64_t signal_mask;
};

struct traced_thread {
	pid_t tid;
	bool is_seized;
	bool is_parked;	  /* in PTRACE_EVENT_STOP: the state between two operations */
	bool was_stopped; /* it was in a group stop (SIGSTOP, …) when we came */
	int stop_signal;  /* then: by which signal */
	struct thread_context
		context; /* as it was when we came, syscall restart not yet applied; set by trace_wait() */

	unsigned options;     /* PTRACE_O_* that are set */
	bool asleep_is_known; /* when we came it waited in a call that does not tell its remaining time … */
	uint64_t asleep;      /* … since so many nanoseconds */
	long restarted;	      /* the call that it was restarting then, by its number; 0: none, or unknown */
	uint64_t remaining; /* set by trace_settle_context(): see trace_reenter_call(); ns, 0: unknown, or none */
	struct for_now *for_now; /* see victim_call_for_now(); opaque */
};

/* `deadline` is CLOCK_MONOTONIC in nanoseconds. -ESRCH: the thread is gone (not recorded); -ETIMEDOUT: recorded. */
int trace_seize(struct traced_thread *thread, pid_t tid, bool suspend_seccomp)
	must_check; /* PTRACE_SEIZE + INTERRUPT; does not wait */
/* For a task that must die with us long before it is to be stopped: PTRACE_SEIZE with PTRACE_O_EXITKILL, and no more. */
int trace_guard(struct traced_thread *thread, pid_t tid) must_check;
int trace_interrupt(struct traced_thread *thread) must_check; /* what trace_seize() would have done then */
/*
 * Threads that run while they are traced stop when somebody sends them a signal. Lets all such threads of ours go on: the signal is
 * delivered, and a group stop lasts until SIGCONT (the log says so). Whoever waits for something that they do has to call it now and
 * then: best when SIGCHLD comes, which tells of each stop.
 */
void trace_pass_signals(void);
int trace_wait(struct traced_thread *thread, uint64_t deadline)
	must_check; /* … until it is parked; reads `context` */
int trace_get_context(const struct traced_thread *thread, struct thread_context *context) must_check;
int trace_set_context(const struct traced_thread *thread, const struct thread_context *context) must_check;
void trace_free_context(struct thread_context *context);
/*
 * One system call in a parked thread, at a `syscall` instruction at `ip` with stack pointer `sp`; the caller answers for what
 * happens there if we die. Other registers than the ABI's are kept. Leaves the thread parked; *result is rax.
 */
int trace_syscall(struct traced_thread *thread, uint64_t ip, uint64_t sp, long number,
		  const uint64_t arguments[6], long *result) must_check;
int trace_exit_kill(struct traced_thread *thread, bool on)
	must_check; /* PTRACE_O_EXITKILL: for tasks that must die with us */
int trace_release(struct traced_thread *thread) must_check; /* PTRACE_DETACH; a group stop goes on */
uint64_t trace_deadline(double seconds);		    /* from now */

/*
 * The registers a thread must be started with to go on as if never interrupted, where there is no kernel restart block to
 * go back to: a restored image, or a thread that finds its own way home. Applies ERESTART*; turns calls that the kernel
 * ends with EINTR although no signal came (epoll_wait, semtimedop, …) and those with a restart block (nanosleep, poll, futex)
 * into the same call again, with the remaining time where the kernel or the scheduler's clock tells it; aborts an rseq
 * critical section. `context` is changed in place; `pid`/`tid` name the (parked) thread it came from.
 */
int trace_settle_context(struct traced_thread *thread, struct thread_context *context) must_check;
/*
 * The rest of what trace_settle_context() cannot say with registers: a relative timeout that stands in the task's memory
 * (nanosleep, clock_nanosleep, futex). It leaves in thread->remaining what remained of it, if that is known. A parked thread that has
 * those registers is put into that very call for that time, and is interrupted in it again: the kernel then holds the rest, as it
 * did when the thread was dumped. If the call ends at once, the registers say so.
 */
int trace_reenter_call(struct traced_thread *thread, uint64_t remaining) must_check;

/* ---- one process ---- */

struct victim {
	pid_t pid;
	struct traced_thread *threads; /* [0] is the leader */
	size_t thread_count;
	struct infection *infection; /* while infected: opaque */
};

/*
 * Learns from a running process what infection will need to know: it saves a third of a millisecond while it is frozen. Fails in
 * silence, and clears the failure record: to be called when nothing can have failed yet.
 */
void victim_look_ahead(pid_t pid);
/* Freezes all threads, and those born meanwhile, until there are no new ones. On failure everything is thawed. */
int victim_freeze(struct victim *victim, pid_t pid, uint64_t deadline) must_check;
/* All threads run on (or stay in the group stop they were in). Undoes an infection first. */
int victim_thaw(struct victim *victim) must_check;
/* From now on our death is the death of all of them. Before they are killed: that is not done in one moment. */
void victims_tie(struct victim *const *victims, size_t count);
/* SIGKILLs the process and detaches; the caller reaps if it is the parent. */
int victim_kill(struct victim *victim) must_check;
/*
 * The process, whose threads are parked with all signals blocked, is in a group stop when they are released. `signal` stops it, which is
 * SIGSTOP, or one of SIGTSTP, SIGTTIN and SIGTTOU with its default action. Or it is not stopped: the kernel ignores these in an
 * orphaned process group; or somebody has sent SIGCONT, which waits to be delivered.
 */
#define STOP_IGNORED	   1
#define STOP_COUNTERMANDED 2
int victim_stop(struct victim *victim, int signal) must_check;
/* Leaves all threads in a group stop (SIGSTOP, if it was in none), detached. */
int victim_thaw_stopped(struct victim *victim) must_check;
void victim_free(struct victim *victim);

/* One system call to make inside. Pointers are addresses in the victim; see victim_scratch(). */
struct remote_call {
	long number;
	uint64_t arguments[6];
	long result; /* -errno, or what the call returned */
};

/*
 * No number of the kernel's, but for victim_call() while the parasite serves (-ENOSYS: it does not): how many requests are in
 * flight in an AIO ring? Arguments: its address, its slots, and how many of them the kernel fills at most. How it is told, and
 * why the ring is afterwards as it was: criu/blobs/parasite/ring.c. The thread that works there must not have a seccomp filter.
 */
#define CALL_COUNT_REQUESTS (-1L)
/* compel's own: returns when all desks have been worked off. */
#define CALL_AWAIT_DESKS (-2L)

/*
 * Puts the parasite in: a mapping of ours, a socket between us, the leader (or a better suited thread) in our code. While
 * it is in, a child that criu forks must not keep the socket (exec closes it): its closing tells the parasite of our death.
 */
int victim_infect(struct victim *victim) must_check;
/* A piece of our mapping in the victim for arguments and results of calls: its address there, and its size (>= 64 KiB). */
uint64_t victim_scratch(const struct victim *victim, size_t *size);
/* Runs the calls in order, all of them, in the parasite: one round trip, whatever their count. */
int victim_call(struct victim *victim, struct remote_call *calls, size_t count) must_check;
/* The same in thread `index`, by ptrace, for what only a thread can tell of itself. Scratch may be used. */
int victim_call_thread(struct victim *victim, size_t index, struct remote_call *calls, size_t count)
	must_check;
/*
 * The same in many threads at once, each its own list, in one entry a thread. The bytes that the calls of lists[i] point to (arguments and
 * results) lie at victim_desk(victim, i), where bytes and calls together have PARASITE_LIST_ROOM; they are copied there and back.
 * At most PARASITE_LISTS lists. Where that is not possible (no parasite that serves, no code of the task's own to go home by) the calls
 * are made by ptrace. No call may block, and no thread of the process may have a seccomp filter, which would judge them if we died.
 */
struct thread_calls {
	size_t thread;
	struct remote_call *calls;
	size_t count;
	char *bytes;
	size_t size;
};
#define PARASITE_LISTS	   88
#define PARASITE_LIST_ROOM 1984
uint64_t victim_desk(const struct victim *victim, size_t number);
int victim_call_threads(struct victim *victim, struct thread_calls *lists, size_t count) must_check;
/*
 * victim_call_thread() of what must not be if the process lives on: should we die, the thread makes the calls `back` (two at most) before it goes on.
 * So it stays until it is taken back, or the process is killed. A thread that the parasite is not in makes none of them where the task has
 * no `syscall; ret` of its own.
 */
int victim_call_for_now(struct victim *victim, size_t index, struct remote_call *calls, size_t count,
			const struct remote_call *back, size_t back_count) must_check;
int victim_take_back(struct victim *victim, size_t index) must_check;
int victim_read(const struct victim *victim, uint64_t address, void *buffer, size_t size)
	must_check; /* process_vm_readv */
int victim_write(const struct victim *victim, uint64_t address, const void *buffer, size_t size) must_check;
/* Takes everything of ours out again; threads are parked with the context they came with. */
int victim_cure(struct victim *victim) must_check;

#endif
