/*
 * settle.c - computes the registers with which a thread continues as if it had not been interrupted.
 *
 * The kernel ends an interrupted system call in one of three ways:
 *
 *	-ERESTARTSYS, -ERESTARTNOINTR, -ERESTARTNOHAND  it repeats the call by itself, with the same arguments
 *	-ERESTART_RESTARTBLOCK                          it continues with the remaining time, kept in the thread
 *	-EINTR, in the calls of signal(7)               the thread sees the interruption: settle_arrival() hides it
 *
 * For a thread that is released by ptrace, the kernel handles the first two. For one that goes home by itself, or is
 * restored, it does not: trace_settle_context() repeats the call, with the remaining time if it can be found out: from
 * rem of nanosleep, or by the scheduler's clock, which has the time when the thread went to sleep.
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
#include <time.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "../../internal.h"
#include "base/proc_text.h"
#include "machine.h"
#include "settle.h"

#define RESTARTSYS	   (-512)
#define RESTARTNOINTR	   (-513)
#define RESTARTNOHAND	   (-514)
#define RESTART_WITH_BLOCK (-516)

/* Timeouts in milliseconds are in a register; for timeouts that are structures in memory see reenter.c. */
static bool has_millisecond_timeout(long number)
{
	return number == SYS_epoll_wait || number == SYS_epoll_pwait || number == SYS_poll;
}

/*
 * These end with EINTR after any stop, even if no handler ran: signal(7). For sockets: with SO_RCVTIMEO or SO_SNDTIMEO.
 */
static bool minds_a_stop(long number)
{
	static const short numbers[] = {
		SYS_epoll_wait,	     SYS_epoll_pwait,  SYS_epoll_pwait2,  SYS_semop,  SYS_semtimedop,
		SYS_rt_sigtimedwait, SYS_io_getevents, SYS_io_pgetevents, SYS_read,   SYS_readv,
		SYS_recvfrom,	     SYS_recvmsg,      SYS_recvmmsg,	  SYS_accept, SYS_accept4,
		SYS_connect,	     SYS_write,	       SYS_writev,	  SYS_sendto, SYS_sendmsg,
		SYS_io_uring_enter,
	};

	for (size_t index = 0; index < array_size(numbers); index++) {
		if (numbers[index] == number)
			return true;
	}
	return false;
}

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

/*
 * For the kernel, a call that was interrupted before is restart_syscall(), with the arguments of the original call. The
 * function in which it waits identifies futex and poll; any other call with a restart block is a sleep: the first
 * argument of clock_nanosleep() is the small number of a clock, that of nanosleep() is an address.
 */
static long look_for_restarted(pid_t tid, const struct user_regs_struct *arguments)
{
	autofree char *where = NULL;

	if (read_proc(tid, "wchan", &where) < 0 || !*where || *where == '0')
		return 0;
	if (strstr(where, "futex"))
		return SYS_futex;
	if (strstr(where, "poll"))
		return SYS_poll;
	return (int64_t)arguments->rdi < 4096 ? SYS_clock_nanosleep : SYS_nanosleep;
}

/* /proc/TID/syscall is cheap, and for most threads it has "running", or another call. */
void settle_look_asleep(struct traced_thread *thread)
{
	autofree char *call = NULL;
	struct user_regs_struct arguments = {};
	uint64_t then, now;
	long number;
	int processor;

	if (read_proc(thread->tid, "syscall", &call) < 0 ||
	    sscanf(call, "%ld %llx %llx %llx %llx", &number, &arguments.rdi, &arguments.rsi, &arguments.rdx,
		   &arguments.r10) != 5)
		return;
	if (number == SYS_restart_syscall)
		thread->restarted = look_for_restarted(thread->tid, &arguments);
	if (!timeout_in_memory(&arguments, number) &&
	    (!has_millisecond_timeout(number) ||
	     (int32_t)(number == SYS_poll ? arguments.rdx : arguments.r10) <= 0))
		return;
	processor = read_processor(thread->tid);
	if (processor < 0 || processor >= CPU_SETSIZE || !read_scheduled(thread->tid, &then) || !then ||
	    !read_clock_of(processor, &now) || now < then)
		return;
	thread->asleep = now - then;
	thread->asleep_is_known = true;
}

static void shorten_timeout(const struct traced_thread *thread, unsigned long long *timeout)
{
	int64_t milliseconds = (int32_t)*timeout;
	int64_t remaining = milliseconds * 1000000 - (int64_t)thread->asleep;

	if (milliseconds > 0 && thread->asleep_is_known)
		*timeout = (uint64_t)max((remaining + 999999) / 1000000, (int64_t)0);
}

/* ---- the call again ---- */

static bool stands_behind_syscall(const struct traced_thread *thread,
				  const struct user_regs_struct *registers)
{
	unsigned char bytes[SYSCALL_SIZE];

	return settle_read(thread->tid, registers->rip - SYSCALL_SIZE, bytes, sizeof(bytes)) &&
	       bytes[0] == 0x0f && bytes[1] == 0x05;
}

static void make_again(struct user_regs_struct *registers, long number)
{
	registers->rax = (uint64_t)number;
	registers->rip -= SYSCALL_SIZE;
	registers->orig_rax = NO_CALL;
}

/*
 * The original call of a restart_syscall(), if the place where it waited is unknown: the program has `mov $NUMBER,%eax`
 * shortly before the `syscall`. -1: not found.
 */
static long number_before_restart(const struct traced_thread *thread,
				  const struct user_regs_struct *registers)
{
	static const int candidates[] = { SYS_nanosleep, SYS_clock_nanosleep, SYS_poll, SYS_futex };
	unsigned char code[26];
	int32_t number;

	if (!settle_read(thread->tid, registers->rip - SYSCALL_SIZE - sizeof(code), code, sizeof(code)))
		return -1;
	for (size_t at = sizeof(code) - 3; at-- > 1;) {
		memcpy(&number, code + at, sizeof(number));
		for (size_t index = 0; index < array_size(candidates); index++) {
			if ((code[at - 1] == 0xb8 || code[at - 1] == 0xc0) && number == candidates[index])
				return number;
		}
	}
	return -1;
}

/* nanosleep() has already written the remaining time to `rem`, if there is one. */
static void make_again_with_rest(struct traced_thread *thread, struct user_regs_struct *registers,
				 long number)
{
	if (number == SYS_restart_syscall)
		number = thread->restarted ?: number_before_restart(thread, registers);
	if (number < 0) {
		registers->rax = (uint64_t)-EINTR;
		registers->orig_rax = NO_CALL;
		return;
	}
	if (number == SYS_nanosleep && registers->rsi)
		registers->rdi = registers->rsi;
	else if (number == SYS_clock_nanosleep && !(registers->rsi & TIMER_ABSTIME) && registers->r10)
		registers->rdx = registers->r10;
	else if (number == SYS_poll)
		shorten_timeout(thread, &registers->rdx);
	else if (number == (long)registers->orig_rax)
		settle_remaining(thread, registers, number);
	make_again(registers, number);
}

/* ---- restartable sequences ---- */

/*
 * The kernel aborts an rseq critical section only when a thread returns into it. A thread that it finds elsewhere
 * first, in compel's code, has to be moved to the abort handler here.
 */
static void abort_sequence(struct traced_thread *thread, struct user_regs_struct *registers)
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
	if (registers->rip - section.start_ip < section.post_commit_offset)
		registers->rip = section.abort_ip;
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

static void hide_interruption(struct traced_thread *thread, struct user_regs_struct *registers)
{
	long number = (long)registers->orig_rax;

	if ((long)registers->rax != -EINTR || !minds_a_stop(number) ||
	    !stands_behind_syscall(thread, registers) || signal_is_pending(thread->tid))
		return;
	if (has_millisecond_timeout(number))
		shorten_timeout(thread, &registers->r10);
	make_again(registers, number);
}

static bool has_restart_block(long number)
{
	return number == SYS_nanosleep || number == SYS_clock_nanosleep || number == SYS_poll ||
	       number == SYS_futex || number == SYS_restart_syscall;
}

/*
 * A thread that is interrupted again before it has run may be about to make restart_syscall(). If it made that call on
 * its way home, or after a restore, it would get EINTR. Here the thread goes back to the moment before the kernel chose
 * that call. If it has been in user mode since, the original call is unknown: the thread is treated as if the call had
 * been restarted before.
 */
static void step_back(const struct traced_thread *thread, struct user_regs_struct *registers)
{
	struct user_regs_struct behind = *registers;
	bool was_in_user_mode = (long)registers->orig_rax < 0;

	behind.rip += SYSCALL_SIZE;
	if (registers->rax != SYS_restart_syscall ||
	    (!was_in_user_mode && !has_restart_block((long)registers->orig_rax)) ||
	    !stands_behind_syscall(thread, &behind))
		return;
	*registers = behind;
	registers->rax = (uint64_t)RESTART_WITH_BLOCK;
	if (was_in_user_mode)
		registers->orig_rax = SYS_restart_syscall;
}

int settle_arrival(struct traced_thread *thread)
{
	struct user_regs_struct *registers = &thread->context.registers.user;
	uint64_t ip = registers->rip;
	int result;

	if ((long)registers->orig_rax >= 0)
		hide_interruption(thread, registers);
	else
		abort_sequence(thread, registers);
	step_back(thread, registers);
	if (registers->rip == ip)
		return 0;
	result = set_registers(thread, &thread->context.registers);
	return result < 0 ? fail(-result, "cannot set the registers of thread %d", thread->tid) : 0;
}

int trace_settle_context(struct traced_thread *thread, struct thread_context *context)
{
	struct user_regs_struct *registers = &context->registers.user;

	if ((long)registers->orig_rax < 0)
		return 0;
	switch ((long)registers->rax) {
	case RESTARTSYS:
	case RESTARTNOINTR:
	case RESTARTNOHAND:
		make_again(registers, (long)registers->orig_rax);
		break;
	case RESTART_WITH_BLOCK:
		make_again_with_rest(thread, registers, (long)registers->orig_rax);
		break;
	}
	return 0;
}
