/*
 * home.c - the way home: bytes below a thread's stack pointer with which it returns by itself if criu dies.
 *
 * They are written before the registers of the thread are changed for the first time, and the stack is restored as soon
 * as the thread has its own registers again. The order in which mask, registers and memory change makes every moment in
 * between safe:
 *
 *	in    memory, registers (home_take()), mask               out    mask, registers, memory
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "internal.h"

/*
 * The stack of a main thread may end directly below its stack pointer. The kernel grows it for accesses through
 * /proc/PID/mem, as it does for a signal.
 */
static bool grow_stack(pid_t pid, uint64_t address)
{
	char path[64], byte;
	autoclose int fd = -1;

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && pread(fd, &byte, 1, (off_t)address) == 1;
}

static bool read_below(const struct way_home *home, const struct victim *victim)
{
	struct memory_piece below = { home->start, home->saved, home->end - home->start };

	return pieces_read(victim, &below, 1) ||
	       (grow_stack(victim->pid, home->start) && pieces_read(victim, &below, 1));
}

int home_build(struct way_home *home, struct traced_thread *thread, const struct gadgets *gadgets,
	       const struct remote_call *detours, size_t detour_count)
{
	struct return_frame frame;
	int result = frame_build(&frame, thread, gadgets);

	*home = (struct way_home){};
	if (result < 0)
		return result;
	for (size_t i = detour_count; i-- > 0;)
		frame_add_call(&frame, thread, gadgets, &detours[i]);
	home->entry = frame.entry;
	home->start = frame.entry - HOME_CHAIN;
	home->end = frame.entry + frame.size;
	home->image = frame.bytes;
	home->saved = allocate(home->end - home->start);
	return 0;
}

int home_save(const struct way_home *home, const struct victim *victim, const struct traced_thread *thread)
{
	return read_below(home, victim) ?
		       0 :
		       fail(ENOSPC, "there is not enough space on the stack of thread %d", thread->tid);
}

int home_prepare(struct way_home *home, const struct victim *victim, struct traced_thread *thread,
		 const struct gadgets *gadgets, const struct remote_call *detours, size_t detour_count)
{
	int result = home_build(home, thread, gadgets, detours, detour_count);

	if (result)
		return result;
	result = home_save(home, victim, thread);
	if (result)
		home_free(home);
	return result;
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

int home_take(const struct way_home *home, struct traced_thread *thread, const struct gadgets *gadgets)
{
	struct arch_registers registers = thread->context.registers;
	int result;

	arch_prepare_home(&registers, gadgets, home->entry);
	result = set_registers(thread, &registers);
	return result < 0 ? fail(-result, "cannot set the registers of thread %d", thread->tid) : 0;
}

int home_return(struct traced_thread *thread)
{
	int result = set_signal_mask(thread, thread->context.signal_mask);

	if (!result)
		result = set_registers(thread, &thread->context.registers);
	return result < 0 ? fail(-result, "cannot restore the registers of thread %d", thread->tid) : 0;
}

int home_leave(const struct way_home *home, const struct victim *victim, struct traced_thread *thread)
{
	return home_return(thread) ?: victim_write(victim, home->start, home->saved, home->end - home->start);
}

void home_free(struct way_home *home)
{
	free(home->image);
	free(home->saved);
	*home = (struct way_home){};
}
