/*
 * settle.c - computes the registers with which a thread continues as if it had not been interrupted.
 *
 * interrupted.c has the rules of the kernel, arch.h the registers. If a call ends with EINTR only because the thread
 * was stopped, settle_arrival() hides that.
 *
 * The kernel repeats or continues the call of a thread that is released by ptrace. It does not do so for a thread that
 * goes home by itself, or is restored: trace_settle_context() repeats the call, with the remaining time if it can be
 * found out: from rem of nanosleep, or by the scheduler's clock, which has the time when the thread went to sleep.
 *
 * A limit: if the tracer is killed in the microseconds between its interrupt and settle_arrival(), the thread sees the
 * EINTR, as it would after SIGSTOP and SIGCONT.
 */
#include <errno.h>
#include <linux/rseq.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "base/proc_text.h"
#include "internal.h"
#include "interrupted.h"
#include "kernel_constants.h"

bool settle_read(pid_t tid, uint64_t address, void *buffer, size_t size)
{
	struct iovec here = { buffer, size }, there = { (void *)address, size };

	return process_vm_readv(tid, &here, 1, &there, 1, 0) == (ssize_t)size;
}

/* ---- time ---- */

/* The time when the thread last began or stopped running, on the scheduler's clock, in nanoseconds. */
static bool read_scheduled(pid_t tid, uint64_t *when)
{
	autofree char *text = NULL;
	const char *line;
	char *end;

	if (read_proc(tid, "sched", &text) < 0 || !(line = strstr(text, "se.exec_start")) ||
	    !(line = strchr(line, ':')))
		return false;
	*when = strtoull(line + 1, &end, 10) * 1000000;
	if (*end == '.')
		*when += strtoull(end + 1, NULL, 10);
	return true;
}

/* The CPU that a thread ran on last: the 39th word of its `stat`, the 37th behind the name. */
static int read_processor(pid_t tid)
{
	autofree char *text = NULL;
	const char *word;

	if (read_proc(tid, "stat", &text) < 0 || !(word = strrchr(text, ')')))
		return -1;
	for (int index = 0; index < 37 && word; index++)
		word = strchr(word + 1, ' ');
	return word ? (int)strtol(word, NULL, 10) : -1;
}

/* The current time of that clock. Each CPU has its own (without the time stolen from it), so it is read on that CPU. */
static bool read_clock_of(int processor, uint64_t *when)
{
	cpu_set_t before, there;
	bool is_known;

	CPU_ZERO(&there);
	CPU_SET(processor, &there);
	if (sched_getaffinity(0, sizeof(before), &before) || sched_setaffinity(0, sizeof(there), &there))
		return false;
	sched_yield(); /* updates this thread's own time */
	is_known = read_scheduled(gettid(), when);
	sched_setaffinity(0, sizeof(before), &before);
	return is_known;
}

/* For the kernel, a call that was interrupted before is restart_syscall(), with the arguments of the original call. */
static long look_for_original(pid_t tid, const struct arch_call *call)
{
	autofree char *where = NULL;

	return read_proc(tid, "wchan", &where) < 0 ? 0 : interrupted_original(where, call->arguments[0]);
}

/* /proc/TID/syscall is cheap, and for most threads it has "running", or another call. */
void settle_look_asleep(struct traced_thread *thread)
{
	autofree char *text = NULL;
	struct arch_call call = {};
	uint64_t *arguments = call.arguments;
	uint64_t then, now;
	int processor;

	if (read_proc(thread->tid, "syscall", &text) < 0 ||
	    sscanf(text, "%ld %lx %lx %lx %lx", &call.number, &arguments[0], &arguments[1], &arguments[2],
		   &arguments[3]) != 5)
		return;
	if (call.number == SYS_restart_syscall)
		thread->restarted = look_for_original(thread->tid, &call);
	if (!interrupted_hides_time(&call))
		return;
	processor = read_processor(thread->tid);
	if (processor < 0 || processor >= CPU_SETSIZE || !read_scheduled(thread->tid, &then) || !then ||
	    !read_clock_of(processor, &now) || now < then)
		return;
	thread->asleep = now - then;
	thread->asleep_is_known = true;
}

/* ---- the call again ---- */

static bool stands_behind_call(const struct traced_thread *thread, uint64_t ip)
{
	unsigned char code[ARCH_CALL_SIZE];

	return settle_read(thread->tid, ip - sizeof(code), code, sizeof(code)) &&
	       arch_is_call_instruction(code);
}

static bool is_original(long number)
{
	return number != SYS_restart_syscall && interrupted_can_continue(number);
}

/*
 * The original call of a restart_syscall(), if the place where it waited is unknown: the program loads its number
 * shortly before the call instruction. -1: not found.
 */
static long original_in_code(const struct traced_thread *thread, const struct arch_registers *registers)
{
	unsigned char code[ARCH_CODE_BEFORE_CALL];
	uint64_t end = arch_instruction_pointer(registers) - ARCH_CALL_SIZE;

	if (!settle_read(thread->tid, end - sizeof(code), code, sizeof(code)))
		return -1;
	return arch_loaded_number(code, is_original);
}

/* What remains of a timeout in memory: into thread->remaining, if it is known how long the thread has been asleep. */
static void note_remaining(struct traced_thread *thread, const struct arch_call *call)
{
	int index = interrupted_timeout(call);
	struct timespec timeout;

	if (index >= 0 && thread->asleep_is_known &&
	    settle_read(thread->tid, call->arguments[index], &timeout, sizeof(timeout)))
		thread->remaining = interrupted_remaining(&timeout, thread->asleep);
}

static void make_again_with_rest(struct traced_thread *thread, struct arch_registers *registers,
				 struct arch_call *call)
{
	bool was_continued = call->number == SYS_restart_syscall;

	if (was_continued)
		call->number = thread->restarted ?: original_in_code(thread, registers);
	if (call->number < 0) {
		arch_set_call(registers, -1, -EINTR);
		return;
	}
	if (thread->asleep_is_known)
		interrupted_shorten(call, thread->asleep);
	if (!interrupted_use_told(call) && !was_continued)
		note_remaining(thread, call);
	arch_make_again(registers, call);
}

/* ---- restartable sequences ---- */

/*
 * The kernel aborts an rseq critical section only when a thread returns into it. A thread that it finds elsewhere
 * first, in compel's code, has to be moved to the abort handler here.
 */
static void abort_sequence(const struct traced_thread *thread, struct arch_registers *registers)
{
	struct __ptrace_rseq_configuration configuration;
	struct rseq_cs section;
	uint64_t address = 0;

	if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, thread->tid, sizeof(configuration), &configuration) <= 0 ||
	    !configuration.rseq_abi_pointer)
		return;
	if (!settle_read(thread->tid, configuration.rseq_abi_pointer + offsetof(struct rseq, rseq_cs),
			 &address, sizeof(address)) ||
	    !address || !settle_read(thread->tid, address, &section, sizeof(section)))
		return;
	if (arch_instruction_pointer(registers) - section.start_ip < section.post_commit_offset)
		arch_set_instruction_pointer(registers, section.abort_ip);
}

/* ---- all of it ---- */

static bool signal_is_pending(pid_t tid)
{
	autofree char *status = NULL;
	uint64_t own = 0, shared = 0, blocked = 0;

	if (read_proc(tid, "status", &status) < 0)
		return true;
	proc_text_number(status, "SigPnd", 16, &own);
	proc_text_number(status, "ShdPnd", 16, &shared);
	proc_text_number(status, "SigBlk", 16, &blocked);
	return (own | shared) & ~blocked;
}

static void hide_interruption(const struct traced_thread *thread, struct arch_registers *registers,
			      struct arch_call *call)
{
	if (!interrupted_by_stop(call) || !stands_behind_call(thread, arch_instruction_pointer(registers)) ||
	    signal_is_pending(thread->tid))
		return;
	if (thread->asleep_is_known)
		interrupted_shorten(call, thread->asleep);
	arch_make_again(registers, call);
}

/*
 * A thread that is interrupted again before it has run may be about to make restart_syscall(). If it made that call on
 * its way home, or after a restore, it would get EINTR. Here the thread goes back to the moment before the kernel chose
 * that call. If it has been in user mode since, the original call is unknown: the thread is treated as if the call had
 * been restarted before.
 */
static void undo_continuation(const struct traced_thread *thread, struct arch_registers *registers)
{
	uint64_t behind = arch_instruction_pointer(registers) + ARCH_CALL_SIZE;
	struct arch_call call;
	bool was_in_user_mode;

	arch_get_call(registers, &call);
	was_in_user_mode = call.number < 0;
	if (arch_next_call(registers) != SYS_restart_syscall ||
	    (!was_in_user_mode && !interrupted_can_continue(call.number)) ||
	    !stands_behind_call(thread, behind))
		return;
	arch_set_instruction_pointer(registers, behind);
	arch_set_call(registers, was_in_user_mode ? SYS_restart_syscall : call.number,
		      -ERESTART_RESTARTBLOCK);
}

int settle_arrival(struct traced_thread *thread)
{
	struct arch_registers *registers = &thread->context.registers;
	uint64_t ip = arch_instruction_pointer(registers);
	struct arch_call call;
	int result;

	arch_get_call(registers, &call);
	if (call.number >= 0)
		hide_interruption(thread, registers, &call);
	else
		abort_sequence(thread, registers);
	undo_continuation(thread, registers);
	if (arch_instruction_pointer(registers) == ip)
		return 0;
	result = set_registers(thread, registers);
	return result < 0 ? fail(-result, "cannot set the registers of thread %d", thread->tid) : 0;
}

int trace_settle_context(struct traced_thread *thread, struct thread_context *context)
{
	struct arch_registers *registers = &context->registers;
	struct arch_call call;

	arch_get_call(registers, &call);
	if (call.number < 0)
		return 0;
	switch (interrupted_end(call.result)) {
	case CALL_IS_REPEATED:
		arch_make_again(registers, &call);
		break;
	case CALL_IS_CONTINUED:
		make_again_with_rest(thread, registers, &call);
		break;
	case CALL_IS_OVER:
		break;
	}
	return 0;
}
