/*
 * pending_signals.c - pending signals, with their siginfo, of threads and whole processes.
 *
 * PTRACE_PEEKSIGINFO (Linux 3.10) reads the queues without changing them. They are read after the timers, which go on
 * while everything else is stopped: what expires in between is in the queue, and not lost. A thread may send itself any
 * siginfo, even one that looks like the kernel's (rt_sigqueueinfo(2)), so on restore each thread fills its own queue.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include "base/error.h"
#include "image/message.h"
#include "task/part.h"

#define SIGINFO_SIZE 128 /* size in the kernel, on every architecture */
#define BATCH	     32

static int read_queue(pid_t tid, bool shared, SignalQueueEntry *queue)
{
	struct __ptrace_peeksiginfo_args request = { .flags = shared ? PTRACE_PEEKSIGINFO_SHARED : 0,
						     .nr = BATCH };
	siginfo_t pending[BATCH];

	for (;;) {
		long got = ptrace(PTRACE_PEEKSIGINFO, tid, &request, pending);

		if (got < 0)
			return fail(errno, "cannot read the pending signals of thread %d", tid);
		for (long i = 0; i < got; i++) {
			SiginfoEntry *entry = message_new(SiginfoEntry, siginfo_entry);

			entry->siginfo.data = copy_bytes(&pending[i], SIGINFO_SIZE);
			entry->siginfo.len = SIGINFO_SIZE;
			*grow(&queue->signals, &queue->n_signals) = entry;
		}
		if (!got)
			return 0;
		request.off += got;
	}
}

static int read_queues(const struct task *task, size_t thread)
{
	CoreEntry *core = task->cores[thread];
	pid_t tid = task->threads[thread].here;
	int result;

	core->thread_core->signals_p = message_new(SignalQueueEntry, signal_queue_entry);
	result = read_queue(tid, false, core->thread_core->signals_p);
	if (result || !core->tc)
		return result;
	core->tc->signals_s = message_new(SignalQueueEntry, signal_queue_entry);
	return read_queue(tid, true, core->tc->signals_s);
}

/* The thread of the parasite runs, but queues can only be read of a stopped thread. */
static int read_queues_of_running(const struct task *task, size_t thread)
{
	pid_t tid = task->threads[thread].here;
	int status, result;

	if (ptrace(PTRACE_INTERRUPT, tid, 0, 0) < 0 || waitpid(tid, &status, __WALL) < 0)
		return fail(errno, "cannot stop thread %d", tid);
	if (!WIFSTOPPED(status))
		return fail(0, "thread %d was killed", tid);
	result = read_queues(task, thread);
	/* Unlike a trap (whose event is in the upper bits), a signal that it was about to take must be delivered. */
	if (ptrace(PTRACE_CONT, tid, 0, status >> 16 || WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status)) <
	    0)
		return fail(errno, "cannot resume thread %d", tid);
	return result;
}

/*
 * A SIGSTOP that arrives now cannot be blocked, so it cannot be put back: instead the process is saved as stopped by
 * it.
 */
static void take_stop_out(struct task *task, SignalQueueEntry *queue)
{
	size_t kept = 0;

	for (size_t i = 0; i < queue->n_signals; i++) {
		if (*(const int *)queue->signals[i]->siginfo.data != SIGSTOP) {
			queue->signals[kept++] = queue->signals[i];
			continue;
		}
		image_free(queue->signals[i]);
		task->state = task->cores[0]->tc->task_state = TASK_STOPPED;
		task->stop_signal = SIGSTOP;
		message_set(task->cores[0]->tc, stop_signo, SIGSTOP);
	}
	queue->n_signals = kept;
}

static int pending_signals_hear(const struct snapshot *snapshot unused, struct task *task, size_t thread,
				const struct call_list *calls unused, const void *state unused)
{
	bool is_stopped = task->victim->threads[thread].is_parked;
	int result = is_stopped ? read_queues(task, thread) : read_queues_of_running(task, thread);

	if (result)
		return result;
	take_stop_out(task, task->cores[thread]->thread_core->signals_p);
	if (!thread)
		take_stop_out(task, task->cores[0]->tc->signals_s);
	return 0;
}

static int check_queue(const SignalQueueEntry *queue)
{
	for (size_t i = 0; queue && i < queue->n_signals; i++) {
		const ProtobufCBinaryData *info = &queue->signals[i]->siginfo;
		int signal = 0;

		if (info->len == SIGINFO_SIZE)
			memcpy(&signal, info->data, sizeof(signal));
		if (signal < 1 || signal > 64)
			return fail(EINVAL, "the core image has an invalid pending signal");
		if (signal == SIGKILL || signal == SIGSTOP)
			return fail(EINVAL, "the core image has a pending signal that cannot be blocked: %d",
				    signal);
	}
	return 0;
}

static int pending_signals_check(const struct snapshot *snapshot unused, const struct task *task,
				 size_t thread)
{
	int result = check_queue(task->cores[thread]->thread_core->signals_p);

	return result || thread ? result : check_queue(task->cores[0]->tc->signals_s);
}

static void put_signals_back(const struct task *task, size_t thread, const SignalQueueEntry *queue,
			     bool is_shared, struct call_list *calls)
{
	pid_t pid = thread_own_id(&task->threads[0]), tid = thread_own_id(&task->threads[thread]);

	for (size_t i = 0; queue && i < queue->n_signals; i++) {
		const SiginfoEntry *entry = queue->signals[i];
		int signal;

		if (posix_timer_resends(task, entry))
			continue;
		memcpy(&signal, entry->siginfo.data, sizeof(signal));
		if (is_shared)
			add_call(calls, "put back a pending signal of the process", SYS_rt_sigqueueinfo, pid,
				 signal, calls_bytes(calls, entry->siginfo.data, SIGINFO_SIZE));
		else
			add_call(calls, "put back a pending signal of the thread", SYS_rt_tgsigqueueinfo, pid,
				 tid, signal, calls_bytes(calls, entry->siginfo.data, SIGINFO_SIZE));
	}
}

static void pending_signals_make(const struct snapshot *snapshot unused, const struct task *task,
				 size_t thread, struct call_list *calls)
{
	put_signals_back(task, thread, task->cores[thread]->thread_core->signals_p, false, calls);
	if (!thread)
		put_signals_back(task, thread, task->cores[0]->tc->signals_s, true, calls);
}

const struct task_part part_pending_signals = {
	.name = "pending signals",
	.hear = pending_signals_hear,
	.check = pending_signals_check,
	.make = pending_signals_make,
};
