/*
 * reenter.c - relative timeouts in the task's memory: how a restored thread gets exactly the rest of one.
 *
 * Such a call cannot be repeated with a shorter time, because criu must not change the time in the task's memory. But
 * the kernel keeps the end of an interrupted sleep in the thread (its restart block). So the restored thread makes the
 * call with the remaining time, from a copy below its red zone, and is interrupted in it at once: then it is in the
 * same state as when it was dumped.
 */
#include <errno.h>
#include "base/memory.h"
#include "internal.h"
#include "interrupted.h"

/* The result goes into `registers`, the thread's own, which stand in front of the call instruction. */
static int make_call_for_rest(struct traced_thread *thread, struct arch_registers *registers,
			      const struct arch_call *call)
{
	uint64_t ip = arch_instruction_pointer(registers);
	struct arch_registers inside = *registers;
	long value = 0;
	int result;

	arch_prepare_call(&inside, ip, arch_stack_pointer(registers), call->number, call->arguments);
	result = set_registers(thread, &inside);
	if (!result)
		result = call_enter(thread);
	if (!result)
		result = call_finish(thread, &value);
	if (result)
		return result;
	arch_set_instruction_pointer(registers, ip + ARCH_CALL_SIZE);
	arch_set_call(registers, value == -ERESTART_RESTARTBLOCK ? call->number : -1, value);
	return 0;
}

int trace_reenter_call(struct traced_thread *thread, uint64_t remaining)
{
	struct victim victim = { .pid = thread->tid };
	struct timespec rest = { remaining / SECOND_NS, remaining % SECOND_NS }, before;
	struct arch_registers registers;
	struct arch_call call;
	uint64_t address;
	int index, result = get_registers(thread, &registers);

	if (result)
		return result;
	arch_get_call(&registers, &call);
	call.number = arch_next_call(&registers);
	index = interrupted_timeout(&call);
	if (index < 0)
		return 0;
	address = round_down(arch_stack_pointer(&registers) - ARCH_RED_ZONE - sizeof(rest), 16UL);
	if (!settle_read(thread->tid, address, &before, sizeof(before)))
		return 0; /* no space on the stack: the call starts from the beginning */
	call.arguments[index] = address;
	result = victim_write(&victim, address, &rest, sizeof(rest));
	if (result)
		return result;
	result = make_call_for_rest(thread, &registers, &call);
	result = first_failure(result, victim_write(&victim, address, &before, sizeof(before)));
	return result ? result : set_registers(thread, &registers);
}
