/*
 * seize.c - one thread: seizes it, waits for it, reads and sets its state, lets it go.
 *
 * Relies on PTRACE_SEIZE semantics (Linux >= 3.4): an interrupted thread stops in PTRACE_EVENT_STOP, before the
 * kernel's own syscall restart, and resuming or detaching it there loses nothing. PTRACE_O_TRACESYSGOOD is always set:
 * if criu dies while the thread is in a syscall-stop, the kernel sends it the code of the stop as a signal. 0x85 is no
 * signal, but SIGTRAP would kill.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/proc_text.h"
#include "base/time.h"
#include "internal.h"
#include "kernel_constants.h"

#define RELEASE_PATIENCE 0.5	    /* seconds */
#define VFORK_PATIENCE	 2.0	    /* seconds for a child of vfork() to run another program */
#define MOST_SLEEP	 50000000UL /* nanoseconds; see sleep_until_news() */

uint64_t trace_deadline(double seconds)
{
	return monotonic_time() + (uint64_t)(seconds * 1e9);
}

ssize_t read_proc(pid_t tid, const char *name, char **text)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", tid, name);
	return read_record_at(AT_FDCWD, path, text);
}

bool is_event_stop(int status)
{
	return WIFSTOPPED(status) && status >> 16 == PTRACE_EVENT_STOP;
}

bool is_syscall_stop(int status)
{
	return WIFSTOPPED(status) && WSTOPSIG(status) == (SIGTRAP | 0x80);
}

int signal_of(int status)
{
	return !status || status >> 16 || is_syscall_stop(status) ? 0 : WSTOPSIG(status);
}

/*
 * The tracer is told of a death first and has to reap; but a child of criu is reaped elsewhere. A leader is not
 * reported before its last thread has been reaped, although it is dead.
 */
static bool is_dead(pid_t tid)
{
	autofree char *status = NULL;
	uint64_t parent = 0, leader = 0;
	const char *state;

	if (read_proc(tid, "status", &status) < 0)
		return true;
	state = proc_text_value(status, "State");
	if (!state || !strchr("ZX", *state))
		return false;
	proc_text_number(status, "PPid", 10, &parent);
	proc_text_number(status, "Tgid", 10, &leader);
	if (parent != (uint64_t)getpid() || leader != (uint64_t)tid)
		waitpid(tid, NULL, __WALL | WNOHANG);
	return true;
}

int look_for_stop(pid_t tid, int *status)
{
	siginfo_t info = {};

	if (waitid(P_PID, tid, &info, WSTOPPED | __WALL | WNOHANG) < 0 && errno != EINTR) {
		is_dead(tid); /* a zombie is not found when waiting only for stops */
		return -ESRCH;
	}
	if (info.si_pid != tid)
		return -EAGAIN;
	*status = info.si_status << 8 | 0x7f;
	return 0;
}

/*
 * The kernel sends SIGCHLD to the tracer's process whenever a traced thread stops or dies. While it is blocked it is
 * not lost, even without a handler, and it ends this sleep, which, unlike waitid(), also ends by itself. Two things are
 * not reported this way, and are noticed late: the death of a leader whose process was cloned with another exit signal,
 * if its last thread was not traced by criu; and everything, if criu was started with SIGCHLD ignored (main() handles
 * that).
 */
static void sleep_until_news(const sigset_t *news, uint64_t nanoseconds)
{
	uint64_t most = min(nanoseconds, MOST_SLEEP);
	struct timespec patience = { 0, (long)most };

	sigtimedwait(news, NULL, &patience);
}

int wait_for_stop(pid_t tid, uint64_t deadline, int *status)
{
	int result = look_for_stop(tid, status);
	sigset_t news, before;
	uint64_t now;

	if (result != -EAGAIN)
		return result;
	sigemptyset(&news);
	sigaddset(&news, SIGCHLD);
	pthread_sigmask(SIG_BLOCK, &news, &before);
	while ((result = look_for_stop(tid, status)) == -EAGAIN) {
		now = monotonic_time();
		if (now >= deadline)
			break;
		sleep_until_news(&news, deadline - now);
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return result != -EAGAIN ? result : is_dead(tid) ? -ESRCH : -ETIMEDOUT;
}

int trace_reap(struct traced_thread *thread, uint64_t deadline)
{
	int status, result = 0;

	while (!result && !(result = wait_for_stop(thread->tid, deadline, &status)))
		ptrace(PTRACE_CONT, thread->tid, 0, 0);
	return result == -ESRCH ? 0 : result;
}

static void name_of_thread(pid_t tid, char name[32])
{
	autofree char *text = NULL;

	if (read_proc(tid, "comm", &text) < 0)
		text = copy_text("?");
	text[strcspn(text, "\n")] = '\0';
	snprintf(name, 32, "%s", text);
}

static int seize_failed(pid_t tid, int error)
{
	autofree char *status = NULL;
	uint64_t tracer = 0;
	char name[32];

	if (error == ESRCH || read_proc(tid, "status", &status) < 0 || strstr(status, "\nState:\tZ") ||
	    strstr(status, "\nState:\tX"))
		return -ESRCH;
	if (proc_text_number(status, "TracerPid", 10, &tracer) && tracer) {
		name_of_thread((pid_t)tracer, name);
		fail(EBUSY, "thread %d is being traced by process %d (%s)", tid, (int)tracer, name);
		fail_advice("end the debugger first");
		return -EBUSY;
	}
	return fail(error, "cannot trace thread %d", tid);
}

int trace_seize(struct traced_thread *thread, pid_t tid, bool suspend_seccomp)
{
	*thread = (struct traced_thread){ .tid = tid, .options = PTRACE_O_TRACESYSGOOD };
	if (suspend_seccomp)
		thread->options |= PTRACE_O_SUSPEND_SECCOMP;
	if (ptrace(PTRACE_SEIZE, tid, 0, thread->options) < 0) {
		/* Without CAP_SYS_ADMIN no filter is suspended. Most threads have none; the infection checks. */
		thread->options &= ~PTRACE_O_SUSPEND_SECCOMP;
		if (!suspend_seccomp || (errno != EPERM && errno != EINVAL) ||
		    ptrace(PTRACE_SEIZE, tid, 0, thread->options) < 0)
			return seize_failed(tid, errno);
	}
	thread->is_seized = true;
	settle_look_asleep(thread);
	return trace_interrupt(thread);
}

int trace_interrupt(struct traced_thread *thread)
{
	if (ptrace(PTRACE_INTERRUPT, thread->tid, 0, 0) == 0)
		return 0;
	/* It is ending, but criu has become its tracer already. */
	ignore(trace_reap(thread, trace_deadline(RELEASE_PATIENCE)));
	return -ESRCH;
}

int trace_with_exitkill(struct traced_thread *thread, pid_t tid)
{
	*thread = (struct traced_thread){ .tid = tid, .options = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL };
	if (ptrace(PTRACE_SEIZE, tid, 0, thread->options) < 0)
		return seize_failed(tid, errno);
	thread->is_seized = true;
	return 0;
}

/* Children that are not traced may be among them. They are left alone, but their notification is consumed. */
void trace_pass_signals(void)
{
	siginfo_t info = {};

	while (waitid(P_ALL, 0, &info, WSTOPPED | WNOHANG | __WALL) == 0 && info.si_pid) {
		int status = info.si_status << 8 | 0x7f;
		bool is_group_stop = is_event_stop(status) && WSTOPSIG(status) != SIGTRAP;

		if (is_group_stop)
			log_info("thread %d was stopped by signal %d from outside, until SIGCONT",
				 info.si_pid, WSTOPSIG(status));
		ptrace(is_group_stop ? PTRACE_LISTEN : PTRACE_CONT, info.si_pid, 0, signal_of(status));
		info.si_pid = 0;
	}
}

int get_registers(const struct traced_thread *thread, struct arch_registers *registers)
{
	return arch_get_registers(thread->tid, registers);
}

int set_registers(const struct traced_thread *thread, const struct arch_registers *registers)
{
	return arch_set_registers(thread->tid, registers);
}

int set_signal_mask(const struct traced_thread *thread, uint64_t mask)
{
	return ptrace(PTRACE_SETSIGMASK, thread->tid, sizeof(mask), &mask) < 0 ? -errno : 0;
}

int trace_get_context(const struct traced_thread *thread, struct thread_context *context)
{
	int result = get_registers(thread, &context->registers);

	context->extended = NULL;
	if (!result && ptrace(PTRACE_GETSIGMASK, thread->tid, sizeof(uint64_t), &context->signal_mask) < 0)
		result = -errno;
	if (!result)
		result = arch_get_extended(thread->tid, context);
	return result < 0 && result != -ESRCH ?
		       fail(-result, "cannot read the registers of thread %d", thread->tid) :
		       result;
}

int trace_set_context(const struct traced_thread *thread, const struct thread_context *context)
{
	int result = context->extended ? arch_set_extended(thread->tid, context) : 0;

	if (!result)
		result = set_signal_mask(thread, context->signal_mask);
	if (!result)
		result = set_registers(thread, &context->registers);
	return result < 0 ? fail(-result, "cannot set the registers of thread %d", thread->tid) : 0;
}

void trace_free_context(struct thread_context *context)
{
	free(context->extended);
	context->extended = NULL;
	context->extended_size = 0;
}

/*
 * Does it wait in vfork() until its child runs another program or ends? Only a SIGKILL interrupts that (Linux 6.18:
 * wait_for_vfork_done() sleeps in TASK_KILLABLE), so it can neither be stopped, nor can its registers be read: ptrace
 * wants a stopped thread, and /proc/PID/syscall tells the call, its arguments, the stack and the instruction pointer
 * only.
 */
static bool waits_in_vfork(pid_t tid)
{
	unsigned long long number, first, flags;
	autofree char *text = NULL;
	struct iovec here = { &flags, sizeof(flags) }, there = { NULL, sizeof(flags) };

	if (read_proc(tid, "syscall", &text) <= 0 || sscanf(text, "%llu 0x%llx", &number, &first) != 2)
		return false;
#ifdef SYS_vfork /* else libc makes it with clone() */
	if (number == SYS_vfork)
		return true;
#endif
	if (number == SYS_clone)
		return first & CLONE_VFORK;
	there.iov_base = (void *)(uintptr_t)first; /* struct clone_args begins with the flags */
	return number == SYS_clone3 && process_vm_readv(tid, &here, 1, &there, 1, 0) == sizeof(flags) &&
	       flags & CLONE_VFORK;
}

static int timed_out(const struct traced_thread *thread)
{
	autofree char *status = NULL;
	const char *state = NULL;
	char name[32];

	name_of_thread(thread->tid, name);
	if (waits_in_vfork(thread->tid))
		return fail(
			ETIMEDOUT,
			"thread %d (%s) does not stop: it waits in vfork() for a child that neither runs another "
			"program nor ends",
			thread->tid, name);
	if (read_proc(thread->tid, "status", &status) > 0)
		state = strstr(status, "\nState:\t");
	return fail(ETIMEDOUT, "thread %d (%s) does not stop: its state is %c", thread->tid, name,
		    state ? state[8] : '?');
}

/*
 * On its way to the requested stop a thread may meet a signal first. It is delivered normally, and the thread stops at
 * the first instruction of the handler. Usually the interrupt is still pending then, but not always: while the kernel
 * takes the signal of a timer, it releases the lock for a moment, and if the interrupt comes just then, the stop of the
 * signal clears it (seen on Linux 6.18). Interrupting a thread that is in a stop is right in both cases: it sets one
 * bit.
 */
static int pass_signal_on(const struct traced_thread *thread, int status)
{
	if (ptrace(PTRACE_INTERRUPT, thread->tid, 0, 0) < 0 ||
	    ptrace(PTRACE_CONT, thread->tid, 0, signal_of(status)) < 0)
		return -errno;
	return 0;
}

int trace_wait(struct traced_thread *thread, uint64_t deadline)
{
	uint64_t patience = min(deadline, trace_deadline(VFORK_PATIENCE));
	int status, result;

	for (;;) {
		result = wait_for_stop(thread->tid, patience, &status);
		if (result == -ETIMEDOUT && patience < deadline && !waits_in_vfork(thread->tid)) {
			patience = deadline;
			continue;
		}
		if (result == -ETIMEDOUT)
			return timed_out(thread);
		if (result < 0) {
			thread->is_seized = false;
			return result;
		}
		if (is_event_stop(status))
			break;
		result = pass_signal_on(thread, status);
		if (result && result != -ESRCH)
			return fail(-result, "cannot resume thread %d", thread->tid);
	}
	thread->is_parked = true;
	thread->was_stopped = WSTOPSIG(status) != SIGTRAP;
	thread->stop_signal = thread->was_stopped ? WSTOPSIG(status) : 0;
	result = trace_get_context(thread, &thread->context);
	return result < 0 ? result : settle_arrival(thread);
}

int trace_park(struct traced_thread *thread, uint64_t deadline)
{
	return ptrace(PTRACE_INTERRUPT, thread->tid, 0, 0) < 0 ? -errno : trace_await_park(thread, deadline);
}

int trace_await_park(struct traced_thread *thread, uint64_t deadline)
{
	int status, result;

	for (;;) {
		result = wait_for_stop(thread->tid, deadline, &status);
		if (result < 0)
			return result;
		if (is_event_stop(status))
			break;
		result = pass_signal_on(thread, status);
		if (result)
			return result;
	}
	thread->is_parked = true;
	return 0;
}

int trace_exit_kill(struct traced_thread *thread, bool on)
{
	unsigned options = on ? thread->options | PTRACE_O_EXITKILL : thread->options & ~PTRACE_O_EXITKILL;

	if (ptrace(PTRACE_SETOPTIONS, thread->tid, 0, options) < 0)
		return fail(errno, "cannot set the options of thread %d", thread->tid);
	thread->options = options;
	return 0;
}

/*
 * A thread that cannot be detached is dying, and its parent is told of that only after the tracer; or it has never
 * stopped, and the kernel detaches it when criu ends.
 */
int trace_release(struct traced_thread *thread)
{
	int result = 0;

	if (thread->is_seized && ptrace(PTRACE_DETACH, thread->tid, 0, 0) < 0) {
		if (errno != ESRCH)
			result = fail(errno, "cannot let go of thread %d", thread->tid);
		else if (trace_reap(thread, trace_deadline(RELEASE_PATIENCE)) < 0)
			log_warning("thread %d still has not stopped; it continues when criu ends",
				    thread->tid);
	}
	trace_free_context(&thread->context);
	thread->is_seized = thread->is_parked = false;
	return result;
}
