/*
 * group.c - many victims go the same way at the same time, step by step.
 *
 * A step ends when it has resumed a thread that is going to stop again, and the next step begins with the wait for that
 * stop. With one victim, each wait costs two context switches. In a group, the threads of the others run meanwhile. A
 * victim may stand longer at a stop than it would alone: that is safe, because each stop is safe (invariant 1).
 */
#include "base/error.h"
#include "base/memory.h"
#include "internal.h"

/* What all victims of a walk have in common. */
struct group {
	const victim_step *steps;
	size_t step_count;
	int (*abandon)(struct victim *victim, int error);
	int result;    /* the first failure */
	size_t failed; /* the index of its victim */
};

static int step_or_abandon(const struct group *group, victim_step step, struct victim *victim)
{
	int result = step(victim);

	return result < 0 ? group->abandon(victim, result) : 0;
}

/* Only the first failure is recorded: another one would add its places to it. Returns whether the victim continues. */
static bool make_group_step(struct group *group, size_t step, struct victim *victim, size_t index)
{
	int result = group->result ? attempted(step_or_abandon(group, group->steps[step], victim)) :
				     step_or_abandon(group, group->steps[step], victim);

	if (result && !group->result) {
		group->result = result;
		group->failed = index;
	}
	return !result;
}

/* Its code is overwritten temporarily: that has to be short. */
static bool walks_alone(const struct victim *victim)
{
	return victim->infection && victim->infection->gadgets.borrowed;
}

static void walk_group(struct group *group, struct victim *const *victims, size_t first, size_t count)
{
	size_t made[VICTIM_GROUP] = { 0 };

	for (size_t step = 0; step < group->step_count; step++)
		for (size_t i = 0; i < count; i++)
			while (made[i] <= step ||
			       (made[i] < group->step_count && walks_alone(victims[first + i])))
				if (!make_group_step(group, made[i]++, victims[first + i], first + i))
					made[i] = group->step_count;
}

int group_walk(struct victim *const *victims, size_t count, const victim_step *steps, size_t step_count,
	       int (*abandon)(struct victim *victim, int error), size_t *failed)
{
	struct group group = { .steps = steps, .step_count = step_count, .abandon = abandon };

	for (size_t first = 0; first < count; first += VICTIM_GROUP)
		walk_group(&group, victims, first, min(count - first, (size_t)VICTIM_GROUP));
	if (failed && group.result)
		*failed = group.failed;
	return group.result;
}

int keep_error(struct victim *victim unused, int error)
{
	return error;
}
