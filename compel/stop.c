/*
 * stop.c - puts a process into a group stop, by SIGSTOP or by a stop signal of a terminal, even if it blocks it.
 *
 * A signal that is sent is queued behind others, may be blocked, and is ignored in an orphaned process group, because
 * no process could wake this one again. So SIGSTOP, which cannot be blocked, brings a thread to the point where a
 * signal is about to be delivered. There the tracer replaces the signal, and the kernel stops the process by that one.
 * All of this happens before the thread is back in its program.
 */
#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "base/proc_text.h"
#include "base/time.h"
#include "internal.h"

/* Resumes until a stop that is not due to a signal. */
static int go_on(const struct traced_thread *thread, int signal, int *status)
{
	uint64_t deadline = trace_deadline(CALL_SECONDS);
	int result;

	do {
		if (ptrace(PTRACE_CONT, thread->tid, 0, signal) < 0)
			return -errno;
		signal = 0;
		result = wait_for_stop(thread->tid, deadline, status);
	} while (!result && !is_event_stop(*status));
	return result;
}

/*
 * Is a SIGCONT pending? (All signals are blocked.) A stop signal that is sent now would discard it, as it has discarded
 * those before it.
 */
static bool is_told_to_go_on(pid_t pid)
{
	autofree char *status = NULL;
	uint64_t waiting = 0;

	return read_proc(pid, "status", &status) >= 0 && proc_text_number(status, "ShdPnd", 16, &waiting) &&
	       waiting & 1ULL << (SIGCONT - 1);
}

/*
 * Brings the thread to where SIGSTOP is about to be delivered. If a SIGCONT from outside discards the SIGSTOP, the
 * thread traps instead, before it is back in its program. It may also trap because of an interrupt that was still
 * pending.
 */
static int bring_to_stop(const struct traced_thread *thread, pid_t pid)
{
	uint64_t deadline = trace_deadline(CALL_SECONDS);
	int status, result;

	do {
		if (is_told_to_go_on(pid))
			return STOP_COUNTERMANDED;
		if (monotonic_time() > deadline)
			return -ETIMEDOUT;
		if (syscall(SYS_tgkill, pid, thread->tid, SIGSTOP) < 0 ||
		    ptrace(PTRACE_CONT, thread->tid, 0, 0) < 0)
			return -errno;
		result = wait_for_stop(thread->tid, deadline, &status);
	} while (!result && signal_of(status) != SIGSTOP);
	return result;
}

static int stop_by(const struct traced_thread *thread, pid_t pid, int signal)
{
	int status, result = bring_to_stop(thread, pid);

	/* If it does not stop the process, the thread has to stop all the same. */
	if (!result && ptrace(PTRACE_INTERRUPT, thread->tid, 0, 0) < 0)
		result = -errno;
	if (!result)
		result = go_on(thread, signal, &status);
	if (result || WSTOPSIG(status) == signal)
		return result;
	return is_told_to_go_on(pid) ? STOP_COUNTERMANDED : STOP_IGNORED;
}

/*
 * The other threads are in a ptrace stop. Each takes part in the group stop only after it has been resumed and has
 * stopped again.
 */
static int join_stop(const struct victim *victim)
{
	int status, result = 0;

	for (size_t i = 1; !result && i < victim->thread_count; i++)
		result = go_on(&victim->threads[i], 0, &status);
	return result;
}

int victim_stop(struct victim *victim, int signal)
{
	struct traced_thread *thread = &victim->threads[0];
	uint64_t mask = 0;
	int result;

	if (ptrace(PTRACE_GETSIGMASK, thread->tid, sizeof(mask), &mask) < 0)
		return fail(errno, "cannot read the signal mask of thread %d", thread->tid);
	result = set_signal_mask(thread, ALL_SIGNALS & ~(1ULL << (signal - 1)));
	if (!result)
		result = stop_by(thread, victim->pid, signal);
	if (!result)
		result = join_stop(victim);
	if (result >= 0)
		result = set_signal_mask(thread, mask) ?: result;
	return result < 0 ? fail(-result, "cannot stop process %d", victim->pid) : result;
}
