/*
 * home.c - the way home: bytes below a thread's stack pointer that let it return by itself, should we die.
 *
 * Written before the thread's registers are changed for the first time, put back as soon as they are its own again. The
 * order in which mask, registers and memory change is what makes every moment in between survivable:
 *
 *	in    memory, registers (now `ret` leads home), mask      out    mask, registers, memory
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/memory.h"
#include "internal.h"

int home_prepare(struct way_home *home, const struct victim *victim, struct traced_thread *thread,
		 const struct gadgets *gadgets)
{
	struct frame frame;
	int result = frame_build(&frame, thread, gadgets);

	*home = (struct way_home){};
	if (result < 0)
		return result;
	home->entry = frame.entry;
	home->start = frame.entry - HOME_CHAIN;
	home->end = frame.entry + frame.size;
	home->image = frame.bytes;
	home->saved = allocate(home->end - home->start);
	result = victim_read(victim, home->start, home->saved, home->end - home->start);
	if (result < 0) {
		home_free(home);
		return fail_in(result, "thread %d: no room on its stack", thread->tid);
	}
	return 0;
}

int home_write(const struct way_home *home, const struct victim *victim, const uint64_t *chain, size_t count,
	       uint64_t *sp)
{
	size_t size = count * sizeof(*chain), total = home->end - home->entry + size;
	autofree char *bytes = allocate(total);

	if (size)
		memcpy(bytes, chain, size);
	memcpy(bytes + size, home->image, total - size);
	*sp = home->entry - size;
	return victim_write(victim, *sp, bytes, total);
}

int home_leave(const struct way_home *home, const struct victim *victim, struct traced_thread *thread)
{
	int result = set_signal_mask(thread, thread->context.signal_mask);

	if (!result)
		result = set_registers(thread, &thread->context.registers);
	if (result < 0)
		return fail(-result, "cannot give thread %d its registers back", thread->tid);
	return victim_write(victim, home->start, home->saved, home->end - home->start);
}

void home_free(struct way_home *home)
{
	free(home->image);
	free(home->saved);
	*home = (struct way_home){};
}
