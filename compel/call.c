/*
 * call.c - makes one system call in a parked thread, by ptrace alone.
 *
 * The thread goes from PTRACE_EVENT_STOP into the syscall-entry-stop, and is interrupted there. So it makes the call
 * and stops again before it is back in user mode, without executing another instruction. This is used before the
 * parasite exists and after it has gone, and for threads that it does not serve.
 *
 * Each of the two stops has a function that resumes the thread and one that waits for the stop. So many threads can run
 * to the same stop at the same time: see group.c.
 */
#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include "base/error.h"
#include "internal.h"

static int lost(const struct traced_thread *thread, int result)
{
	if (result == -ETIMEDOUT)
		return fail(ETIMEDOUT, "thread %d does not return from a system call", thread->tid);
	if (result == -ESRCH)
		return fail(ESRCH, "thread %d was killed", thread->tid);
	return fail(-result, "cannot make a system call in thread %d", thread->tid);
}

static int resume_call(struct traced_thread *thread, int request, int signal)
{
	return ptrace(request, thread->tid, 0, signal) < 0 ? lost(thread, -errno) : 0;
}

/*
 * Waits for a stop that satisfies `is_wanted`. After any other stop the thread is resumed with `request`: SIGSTOP
 * cannot be blocked and is let through. Then the thread traps once more (PTRACE_EVENT_STOP) as part of the group
 * stop, continues to work here, and stays stopped when it is released. SIGCONT traps, too.
 */
static int await_call_stop(struct traced_thread *thread, int request, bool (*is_wanted)(int))
{
	uint64_t deadline = trace_deadline(CALL_SECONDS);
	int status, result;

	for (;;) {
		result = wait_for_stop(thread->tid, deadline, &status);
		if (result < 0)
			return lost(thread, result);
		if (is_wanted(status))
			return 0;
		result = resume_call(thread, request, signal_of(status));
		if (result < 0)
			return result;
	}
}

int call_begin(struct traced_thread *thread)
{
	return resume_call(thread, PTRACE_SYSCALL, 0);
}

int call_await_entry(struct traced_thread *thread)
{
	return await_call_stop(thread, PTRACE_SYSCALL, is_syscall_stop);
}

int call_await_exit(struct traced_thread *thread)
{
	return await_call_stop(thread, PTRACE_SYSCALL, is_syscall_stop);
}

int call_make(struct traced_thread *thread)
{
	if (ptrace(PTRACE_INTERRUPT, thread->tid, 0, 0) < 0)
		return lost(thread, -errno);
	return resume_call(thread, PTRACE_CONT, 0);
}

int call_await(struct traced_thread *thread, long *result)
{
	struct arch_registers registers;
	int failed = await_call_stop(thread, PTRACE_CONT, is_event_stop);

	if (failed < 0)
		return failed;
	failed = get_registers(thread, &registers);
	if (failed < 0)
		return lost(thread, failed);
	*result = arch_call_result(&registers);
	return 0;
}

int call_enter(struct traced_thread *thread)
{
	return call_begin(thread) ?: call_await_entry(thread);
}

int call_finish(struct traced_thread *thread, long *result)
{
	return call_make(thread) ?: call_await(thread, result);
}

/* The kernel's codes for "restart the call": ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK. */
static bool is_interrupted(long result)
{
	return (result <= -512 && result >= -514) || result == -516;
}

int trace_syscall(struct traced_thread *thread, uint64_t ip, uint64_t sp, long number,
		  const uint64_t arguments[6], long *result)
{
	struct arch_registers registers;
	int failed = get_registers(thread, &registers);

	if (failed < 0)
		return lost(thread, failed);
	arch_prepare_call(&registers, ip, sp, number, arguments);
	failed = set_registers(thread, &registers);
	if (failed < 0)
		return lost(thread, failed);
	failed = call_enter(thread);
	if (!failed)
		failed = call_finish(thread, result);
	if (failed || !is_interrupted(*result))
		return failed;
	/* The interrupt has ended the call early (as with fork): repeat it, and interrupt only when it is done. */
	failed = set_registers(thread, &registers);
	if (failed < 0)
		return lost(thread, failed);
	failed = call_enter(thread);
	if (!failed)
		failed = call_enter(thread);
	return failed ? failed : call_finish(thread, result);
}
