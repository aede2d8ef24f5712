/*
 * reenter.c - relative timeouts in the task's memory: which calls have one, how much of it is left, and how a restored
 * thread gets exactly the rest of it.
 *
 * Such a call cannot be repeated with a shorter time, because criu must not change the time in the task's memory. But
 * the kernel keeps the end of an interrupted sleep in the thread (its restart block). So the restored thread makes the
 * call with the remaining time, from a copy below its red zone, and is interrupted in it at once: then it is in the
 * same state as when it was dumped.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include "../../internal.h"
#include "machine.h"
#include "settle.h"

#define RESTART_WITH_BLOCK (-516)
#define NANOSECONDS	   1000000000ULL

unsigned long long *timeout_in_memory(struct user_regs_struct *registers, long number)
{
	if (number == SYS_nanosleep)
		return &registers->rdi;
	if (number == SYS_clock_nanosleep && !(registers->rsi & TIMER_ABSTIME))
		return &registers->rdx;
	if (number == SYS_futex && (registers->rsi & FUTEX_CMD_MASK) == FUTEX_WAIT && registers->r10)
		return &registers->r10;
	return NULL;
}

void settle_remaining(struct traced_thread *thread, struct user_regs_struct *registers, long number)
{
	const unsigned long long *address = timeout_in_memory(registers, number);
	struct timespec period;
	uint64_t whole;

	if (!address || !thread->asleep_is_known ||
	    !settle_read(thread->tid, *address, &period, sizeof(period)))
		return;
	whole = period.tv_sec * NANOSECONDS + period.tv_nsec;
	thread->remaining = whole > thread->asleep ? whole - thread->asleep : 1;
}

static int make_call_for_rest(struct traced_thread *thread, const struct arch_registers *registers,
			      long *value)
{
	int result = set_registers(thread, registers);

	if (!result)
		result = call_enter(thread);
	return result ? result : call_finish(thread, value);
}

int trace_reenter_call(struct traced_thread *thread, uint64_t remaining)
{
	struct victim victim = { .pid = thread->tid };
	struct timespec rest = { remaining / NANOSECONDS, remaining % NANOSECONDS }, before;
	struct arch_registers registers, inside;
	uint64_t address;
	long value = 0;
	int result = get_registers(thread, &registers);

	inside = registers;
	if (result || !timeout_in_memory(&inside.user, (long)inside.user.rax))
		return result;
	address = round_down(registers.user.rsp - RED_ZONE - sizeof(rest), 16UL);
	*timeout_in_memory(&inside.user, (long)inside.user.rax) = address;
	if (!settle_read(thread->tid, address, &before, sizeof(before)))
		return 0; /* no space on the stack: the call starts from the beginning */
	result = victim_write(&victim, address, &rest, sizeof(rest));
	if (result)
		return result;
	result = make_call_for_rest(thread, &inside, &value);
	result = first_failure(result, victim_write(&victim, address, &before, sizeof(before)));
	if (result)
		return result;
	if (value == RESTART_WITH_BLOCK)
		registers.user.orig_rax = registers.user.rax;
	registers.user.rax = (uint64_t)value;
	registers.user.rip += SYSCALL_SIZE;
	return set_registers(thread, &registers);
}
