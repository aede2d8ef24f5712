/*
 * interrupted.c - the kernel's rules for a system call that was interrupted. Nothing here depends on the CPU.
 *
 * The kernel ends such a call in one of three ways:
 *
 *	-ERESTARTSYS, -ERESTARTNOINTR, -ERESTARTNOHAND  it repeats the call by itself, with the same arguments
 *	-ERESTART_RESTARTBLOCK                          it continues with the remaining time, kept in the thread
 *	-EINTR, in the calls of signal(7)               the thread sees the interruption
 */
#include "interrupted.h"
#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include "base/memory.h"
#include "compiler.h"

/* Newer architectures lack the older ones of two similar calls. No call has such a number. */
#ifndef SYS_poll
#define SYS_poll -2
#endif
#ifndef SYS_epoll_wait
#define SYS_epoll_wait -3
#endif

#define MILLISECOND_NS 1000000

enum interrupted_end interrupted_end(long result)
{
	switch (result) {
	case -ERESTARTSYS:
	case -ERESTARTNOINTR:
	case -ERESTARTNOHAND: /* if a handler had run, this would be -EINTR by now */
		return CALL_IS_REPEATED;
	case -ERESTART_RESTARTBLOCK:
		return CALL_IS_CONTINUED;
	default:
		return CALL_IS_OVER;
	}
}

/*
 * These end with EINTR after any stop, even if no handler ran: signal(7). For sockets: with SO_RCVTIMEO or SO_SNDTIMEO.
 */
bool interrupted_by_stop(const struct arch_call *call)
{
	static const short numbers[] = {
		SYS_epoll_wait,	     SYS_epoll_pwait,  SYS_epoll_pwait2,  SYS_semop,  SYS_semtimedop,
		SYS_rt_sigtimedwait, SYS_io_getevents, SYS_io_pgetevents, SYS_read,   SYS_readv,
		SYS_recvfrom,	     SYS_recvmsg,      SYS_recvmmsg,	  SYS_accept, SYS_accept4,
		SYS_connect,	     SYS_write,	       SYS_writev,	  SYS_sendto, SYS_sendmsg,
		SYS_io_uring_enter,
	};

	if (call->result != -EINTR)
		return false;
	for (size_t index = 0; index < array_size(numbers); index++) {
		if (numbers[index] == call->number)
			return true;
	}
	return false;
}

bool interrupted_can_continue(long number)
{
	return number == SYS_nanosleep || number == SYS_clock_nanosleep || number == SYS_poll ||
	       number == SYS_futex || number == SYS_restart_syscall;
}

/*
 * The kernel's function identifies futex and poll. Any other call that can be continued is a sleep: the first argument
 * of clock_nanosleep() is the small number of a clock, that of nanosleep() is an address.
 */
long interrupted_original(const char *where, uint64_t first)
{
	if (!*where || *where == '0')
		return 0;
	if (strstr(where, "futex"))
		return SYS_futex;
	if (strstr(where, "poll"))
		return SYS_poll;
	return first < 4096 || (int64_t)first < 0 ? SYS_clock_nanosleep : SYS_nanosleep;
}

/* ---- timeouts ---- */

int interrupted_timeout(const struct arch_call *call)
{
	const uint64_t *arguments = call->arguments;

	if (call->number == SYS_nanosleep)
		return 0;
	if (call->number == SYS_clock_nanosleep && !(arguments[1] & TIMER_ABSTIME))
		return 2;
	if (call->number == SYS_futex && (arguments[1] & FUTEX_CMD_MASK) == FUTEX_WAIT && arguments[3])
		return 3;
	return -1;
}

/* The index of the argument that is a timeout in milliseconds; -1: none. */
static int milliseconds_of(long number)
{
	if (number == SYS_poll)
		return 2;
	return number == SYS_epoll_wait || number == SYS_epoll_pwait ? 3 : -1;
}

bool interrupted_hides_time(const struct arch_call *call)
{
	int index = milliseconds_of(call->number);

	return interrupted_timeout(call) >= 0 || (index >= 0 && (int32_t)call->arguments[index] > 0);
}

void interrupted_shorten(struct arch_call *call, uint64_t asleep)
{
	int index = milliseconds_of(call->number);
	int64_t milliseconds, remaining;

	if (index < 0)
		return;
	milliseconds = (int32_t)call->arguments[index];
	remaining = milliseconds * MILLISECOND_NS - (int64_t)asleep;
	if (milliseconds > 0) /* negative: without end */
		call->arguments[index] = (uint64_t)max((remaining + MILLISECOND_NS - 1) / MILLISECOND_NS,
						       (int64_t)0);
}

/* The kernel has written the remaining time to `rem` of a relative sleep, if there is one. */
bool interrupted_use_told(struct arch_call *call)
{
	uint64_t *arguments = call->arguments;

	if (call->number == SYS_nanosleep && arguments[1]) {
		arguments[0] = arguments[1];
		return true;
	}
	if (call->number == SYS_clock_nanosleep && !(arguments[1] & TIMER_ABSTIME) && arguments[3]) {
		arguments[2] = arguments[3];
		return true;
	}
	return false;
}

uint64_t interrupted_remaining(const struct timespec *timeout, uint64_t asleep)
{
	uint64_t whole = (uint64_t)timeout->tv_sec * SECOND_NS + (uint64_t)timeout->tv_nsec;

	return whole > asleep ? whole - asleep : 1;
}
