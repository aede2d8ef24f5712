/*
 * for_now.c - calls whose effect is undone if the process lives on, even if criu dies.
 *
 * For the parasite's own thread, the state of the parasite has the calls that undo. For any other thread, its way home
 * has a frame for each such call (frame_add_call()), from before the first call until the thread is home. So the effect
 * is undone whenever criu dies.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/memory.h"
#include "internal.h"

struct for_now {
	struct remote_call back[2];
	size_t count;
	struct way_home home; /* of a thread other than the parasite's */
};

void for_now_free(struct traced_thread *thread)
{
	if (!thread->for_now)
		return;
	home_free(&thread->for_now->home);
	free(thread->for_now);
	thread->for_now = NULL;
}

/* ---- the thread that the parasite is in ---- */

static int tell_parasite(struct victim *victim, const struct for_now *for_now)
{
	struct parasite_state state = { .back_count = for_now ? (int32_t)for_now->count : 0 };
	const size_t first = offsetof(struct parasite_state, back);
	uint64_t address = victim->infection->region + PARASITE_STATE;
	int result = 0;

	for (size_t i = 0; for_now && i < for_now->count; i++) {
		state.back[i].number = for_now->back[i].number;
		memcpy(state.back[i].arguments, for_now->back[i].arguments, sizeof(state.back[i].arguments));
	}
	if (for_now)
		result = victim_write(victim, address + first, state.back, sizeof(state.back));
	if (!result)
		result = victim_write(victim, address + offsetof(struct parasite_state, back_count),
				      &state.back_count, sizeof(state.back_count));
	return result;
}

/* ---- any other ---- */

/* If code is borrowed, nothing can stay, because the code must be given back. */
static int call_and_stay(struct victim *victim, struct traced_thread *thread, struct remote_call *calls,
			 size_t count)
{
	const struct gadgets *gadgets = &victim->infection->gadgets;
	struct for_now *for_now = thread->for_now;
	int result = home_prepare(&for_now->home, victim, thread, gadgets, for_now->back, for_now->count);

	if (result)
		return result;
	result = call_on_stack(victim, thread, &for_now->home, calls, count);
	if (!result && !gadgets->borrowed)
		return 0;
	result = first_failure(result, home_leave(&for_now->home, victim, thread));
	home_free(&for_now->home);
	return result;
}

static int come_home(struct victim *victim, struct traced_thread *thread)
{
	struct for_now *for_now = thread->for_now;
	bool is_on_its_way = for_now->home.image;
	int result = 0;

	if (!is_on_its_way)
		result = home_prepare(&for_now->home, victim, thread, &victim->infection->gadgets, NULL, 0);
	if (result)
		return result;
	result = call_on_stack(victim, thread, &for_now->home, for_now->back, for_now->count);
	return first_failure(result, home_leave(&for_now->home, victim, thread));
}

/* ---- both ---- */

int victim_call_for_now(struct victim *victim, size_t index, struct remote_call *calls, size_t count,
			const struct remote_call *back, size_t back_count)
{
	struct traced_thread *thread = &victim->threads[index];
	struct for_now *for_now = thread->for_now = allocate(sizeof(*for_now));
	int result;

	for_now->count = min(back_count, array_size(for_now->back));
	memcpy(for_now->back, back, for_now->count * sizeof(*back));
	if (index == victim->infection->index)
		return tell_parasite(victim, for_now) ?: victim_call(victim, calls, count);
	result = gadgets_lend(&victim->infection->gadgets, victim->pid);
	if (!result) {
		result = call_and_stay(victim, thread, calls, count);
		result = first_failure(result, gadgets_give_back(&victim->infection->gadgets, victim->pid));
	}
	return result < 0 ? fail_in(result, "thread %d", thread->tid) : 0;
}

int victim_take_back(struct victim *victim, size_t index)
{
	struct traced_thread *thread = &victim->threads[index];
	struct for_now *for_now = thread->for_now;
	int result;

	if (!for_now)
		return 0;
	if (index == victim->infection->index) {
		result = victim_call(victim, for_now->back, for_now->count) ?: tell_parasite(victim, NULL);
	} else {
		result = gadgets_lend(&victim->infection->gadgets, victim->pid);
		if (!result)
			result = come_home(victim, thread);
		result = first_failure(result, gadgets_give_back(&victim->infection->gadgets, victim->pid));
	}
	for_now_free(thread);
	return result < 0 ? fail_in(result, "thread %d", thread->tid) : 0;
}
