/*
 * identity.c - the name of a thread, the addresses it has registered with the kernel (clear_child_tid, robust futexes,
 * rseq), and the signal it gets when its parent dies.
 */
#include <errno.h>
#include <linux/futex.h>
#include <linux/rseq.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include "arch/arch.h"
#include "base/error.h"
#include "base/io.h"
#include "image/message.h"
#include "kernel_constants.h"
#include "task/ending.h"
#include "task/part.h"

/* struct ptrace_rseq_configuration of <linux/ptrace.h>, which cannot be included beside <sys/ptrace.h> */
struct rseq_configuration {
	uint64_t address;
	uint32_t size, signature, flags, padding;
};

#define NAME_SIZE 16 /* TASK_COMM_LEN */

struct asked {
	call_handle name, tid_address, parent_death;
};

static int look_rseq(pid_t tid, ThreadCoreEntry *core)
{
	struct rseq_configuration rseq = { 0 };

	if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, tid, sizeof(rseq), &rseq) < 0) {
		if (errno == EIO || errno == EINVAL)
			return 0; /* a kernel without rseq */
		return fail(errno, "cannot read the rseq registration of thread %d", tid);
	}
	core->rseq_entry = message_new(RseqEntry, rseq_entry);
	core->rseq_entry->rseq_abi_pointer = rseq.address;
	core->rseq_entry->rseq_abi_size = rseq.size;
	core->rseq_entry->signature = rseq.signature;
	return 0;
}

static int identity_look(struct snapshot *snapshot unused, struct task *task, size_t thread,
			 const struct thread_facts *facts unused)
{
	ThreadCoreEntry *core = task->cores[thread]->thread_core;
	pid_t tid = task->threads[thread].here;
	uint64_t head = 0;
	size_t length = 0;

	/* Threads that never set a list have a NULL head and the only possible size. */
	if (syscall(SYS_get_robust_list, tid, &head, &length) < 0)
		return fail(errno, "cannot read the robust futex list of thread %d", tid);
	core->futex_rla = head;
	core->futex_rla_len = length;
	return look_rseq(tid, core);
}

static void *identity_ask(const struct snapshot *snapshot unused, const struct task *task unused,
			  size_t thread unused, struct call_list *calls)
{
	struct asked *asked = allocate(sizeof(*asked));

	asked->name = add_call(calls, "ask for the name", SYS_prctl, PR_GET_NAME,
			       calls_bytes(calls, NULL, NAME_SIZE));
	asked->tid_address = add_call(calls, "ask for clear_child_tid", SYS_prctl, PR_GET_TID_ADDRESS,
				      calls_bytes(calls, NULL, sizeof(uint64_t)));
	asked->parent_death = add_call(calls, "ask for the parent death signal", SYS_prctl, PR_GET_PDEATHSIG,
				       calls_bytes(calls, NULL, sizeof(int)));
	return asked;
}

static int identity_hear(const struct snapshot *snapshot unused, struct task *task, size_t thread,
			 const struct call_list *calls, const void *state)
{
	const struct asked *asked = state;
	long result = min(calls_result(calls, asked->tid_address), calls_result(calls, asked->parent_death));
	int number;

	if (result < 0)
		return fail(-result, "cannot read the addresses that the kernel has for thread %d",
			    task->threads[thread].here);
	result = calls_result(calls, asked->name);
	if (result < 0)
		return fail(-result, "cannot ask thread %d for its name", task->threads[thread].here);
	task->cores[thread]->thread_core->comm =
		format_text("%.*s", NAME_SIZE, (const char *)calls_answer(calls, asked->name, 1));
	arch_set_clear_tid(task->cores[thread],
			   *(const uint64_t *)calls_answer(calls, asked->tid_address, 1));
	number = *(const int *)calls_answer(calls, asked->parent_death, 1);
	if (number)
		message_set(task->cores[thread]->thread_core, pdeath_sig, number);
	return 0;
}

/* In a newborn, whose memory may not be at its final address yet. */
static bool read_own_memory(const struct task *task, uint64_t address, void *buffer, size_t size)
{
	const struct vma *vma = vmas_find(&task->space->vmas, address);
	struct iovec here = { buffer, size }, there = { NULL, size };

	if (!vma)
		return false;
	there.iov_base = (void *)(uintptr_t)(vma->place + (address - vma->start));
	return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == (ssize_t)size;
}

static void set_clear_tid(const CoreEntry *core, struct call_list *calls)
{
	add_call(calls, "set clear_child_tid", SYS_set_tid_address, arch_clear_tid(core));
}

static void set_robust_list(const CoreEntry *core, struct call_list *calls)
{
	add_call(calls, "set the robust futex list", SYS_set_robust_list, core->thread_core->futex_rla,
		 core->thread_core->futex_rla_len);
}

/* finish() sets what would be visible in files if the restore still failed (task/ending.h). */
static void identity_make(const struct snapshot *snapshot unused, const struct task *task, size_t thread,
			  struct call_list *calls)
{
	const CoreEntry *core = task->cores[thread];
	const RseqEntry *rseq = core->thread_core->rseq_entry;
	char name[16] = "";

	snprintf(name, sizeof(name), "%.15s",
		 core->thread_core->comm ?:
			 core->tc	 ? core->tc->comm :
					   task->name);
	add_call(calls, "set the name of the thread", SYS_prctl, PR_SET_NAME,
		 calls_bytes(calls, name, sizeof(name)));
	if (!ending_clears_word(task, thread))
		set_clear_tid(core, calls);
	if (core->thread_core->futex_rla_len && !ending_marks_futexes(task, thread, read_own_memory))
		set_robust_list(core, calls);
	if (rseq && rseq->rseq_abi_pointer)
		add_call(calls, "register rseq", SYS_rseq, rseq->rseq_abi_pointer, rseq->rseq_abi_size, 0,
			 rseq->signature);
}

static bool has_robust_list(const struct task *task, size_t thread)
{
	uint64_t head = 0;
	size_t length;

	return syscall(SYS_get_robust_list, task->threads[thread].here, &head, &length) == 0 &&
	       head == task->cores[thread]->thread_core->futex_rla;
}

/*
 * Until now the parent death signal was criu's own: a newborn dies with criu. The other threads get theirs just as
 * late, because their parent may have changed (restore/parent.c), and because a change of user ids clears it.
 */
static void identity_finish(const struct snapshot *snapshot unused, const struct task *task, size_t thread,
			    struct call_list *calls)
{
	const CoreEntry *core = task->cores[thread];

	if (ending_clears_word(task, thread))
		set_clear_tid(core, calls);
	if (core->thread_core->futex_rla && !has_robust_list(task, thread))
		set_robust_list(core, calls);
	if (!thread || core->thread_core->pdeath_sig)
		add_call(calls, "set the parent death signal", SYS_prctl, PR_SET_PDEATHSIG,
			 core->thread_core->pdeath_sig);
}

bool identity_waits(const struct task *task)
{
	for (size_t i = 0; i < task->thread_count; i++)
		if (ending_clears_word(task, i) ||
		    (task->cores[i]->thread_core->futex_rla && !has_robust_list(task, i)))
			return true;
	return false;
}

const struct task_part part_identity = {
	.name = "identity",
	.look = identity_look,
	.ask = identity_ask,
	.hear = identity_hear,
	.make = identity_make,
	.finish = identity_finish,
};
