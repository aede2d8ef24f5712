/*
 * baton.c - see baton.h. The baton is a futex in the memory that they share. The leader is born with it.
 *
 * Raw system calls only: those of libc write errno, which belongs to the newborn that has the baton.
 */
#include "futex.h"
#include "restore/baton.h"
#include "restore/restore.h"

enum { BATON_IS_HELD = 0, BATON_IS_FREE = 1 };

static uint32_t *baton_of(const struct task *task)
{
	const struct object *space = &task->space->object;

	return space->user_count > 1 ? &space->leader->newborn->baton : NULL;
}

void baton_take(const struct task *task)
{
	uint32_t *baton = baton_of(task), expected = BATON_IS_FREE;

	while (baton && !__atomic_compare_exchange_n(baton, &expected, BATON_IS_HELD, 0, __ATOMIC_ACQUIRE,
						     __ATOMIC_RELAXED)) {
		sys_futex(baton, FUTEX_WAIT, BATON_IS_HELD, NULL, NULL, 0);
		expected = BATON_IS_FREE;
	}
}

void baton_give(const struct task *task)
{
	uint32_t *baton = baton_of(task);

	if (!baton)
		return;
	__atomic_store_n(baton, BATON_IS_FREE, __ATOMIC_RELEASE);
	futex_wake(baton);
}
