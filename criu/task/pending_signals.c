/*
 * pending_signals.c - signals that were sent and not yet taken, with their siginfo, for threads and for whole processes.
 *
 * PTRACE_PEEKSIGINFO (Linux 3.10) reads the queues without taking anything out. A thread may send itself any siginfo, even one
 * that looks like the kernel's (rt_sigqueueinfo(2)), so restore has each thread fill its own queue.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include "base/error.h"
#include "image/message.h"
#include "task/part.h"

#define SIGINFO_SIZE 128 /* of the kernel, on every architecture */
#define BATCH	     32

static int read_queue(pid_t tid, bool shared, SignalQueueEntry *queue)
{
	struct __ptrace_peeksiginfo_args request = { .flags = shared ? PTRACE_PEEKSIGINFO_SHARED : 0, .nr = BATCH };
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
		if (got < BATCH)
			return 0;
		request.off += got;
	}
}

static int look(struct task *task, size_t thread, const struct thread_facts *facts)
{
	CoreEntry *core = task->cores[thread];
	pid_t tid = task->threads[thread];
	int result = 0;

	core->thread_core->signals_p = message_new(SignalQueueEntry, signal_queue_entry);
	if (facts->status.pending)
		result = read_queue(tid, false, core->thread_core->signals_p);
	if (!core->tc)
		return result;
	core->tc->signals_s = message_new(SignalQueueEntry, signal_queue_entry);
	if (!result && facts->status.shared_pending)
		result = read_queue(tid, true, core->tc->signals_s);
	return result;
}

static int check_queue(const SignalQueueEntry *queue)
{
	for (size_t i = 0; queue && i < queue->n_signals; i++) {
		const ProtobufCBinaryData *info = &queue->signals[i]->siginfo;
		int signal = 0;

		if (info->len == SIGINFO_SIZE)
			memcpy(&signal, info->data, sizeof(signal));
		if (signal < 1 || signal > 64)
			return fail(EINVAL, "the image holds a pending signal that is none");
	}
	return 0;
}

static int check(const struct task *task, size_t thread)
{
	int result = check_queue(task->cores[thread]->thread_core->signals_p);

	return result || thread ? result : check_queue(task->cores[0]->tc->signals_s);
}

static void make(const struct task *task, size_t thread, struct call_list *calls)
{
	const SignalQueueEntry *own = task->cores[thread]->thread_core->signals_p;
	const SignalQueueEntry *shared = thread ? NULL : task->cores[0]->tc->signals_s;
	pid_t pid = task->threads[0], tid = task->threads[thread];

	for (size_t i = 0; own && i < own->n_signals; i++) {
		const int *signal = (const int *)own->signals[i]->siginfo.data;

		call(calls, "put back a pending signal of the thread", SYS_rt_tgsigqueueinfo, pid, tid, *signal,
		     calls_bytes(calls, signal, SIGINFO_SIZE));
	}
	for (size_t i = 0; shared && i < shared->n_signals; i++) {
		const int *signal = (const int *)shared->signals[i]->siginfo.data;

		call(calls, "put back a pending signal of the process", SYS_rt_sigqueueinfo, pid, *signal,
		     calls_bytes(calls, signal, SIGINFO_SIZE));
	}
}

const struct task_part part_pending_signals = {
	.name = "pending signals",
	.look = look,
	.check = check,
	.make = make,
};
