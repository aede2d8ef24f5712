/*
 * undo.c - refuses tasks for which the kernel would change System V semaphores at their end (SEM_UNDO, semop(2)),
 * because no restore can set that up again.
 *
 * The kernel does not tell whether there is anything to undo. kcmp() tells whether a task has a list of such changes,
 * but every process that ever created a thread has one, mostly empty. So the task itself tries, in calls that cannot
 * succeed and so change nothing: the value to undo must stay between -32768 and 32767, or the error is ERANGE. Adding
 * 32768 to a semaphore with SEM_UNDO (and subtracting it again without) is out of range if the value to undo is
 * negative; subtracting 32767 is out of range if it is positive. If both are possible, the last operation waits for
 * zero on a semaphore that is not zero: EAGAIN.
 *
 * This leaves an empty entry for that set in the task's list, and when the task ends, the time of the set's last change
 * (sem_otime) becomes the time of that end (6.18, exit_sem()). So sets that were never changed are not tried. Sets that
 * the task may not change are not tried either; that is found out without SEM_UNDO, which leaves no entry.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "calls.h"
#include "compel.h"
#include "dump/dump.h"

#define STEP	 16384 /* half of the range */
#define FOR_EACH 4     /* operations for each semaphore */
#define LAST	 2     /* operations at the end that cannot succeed */
#define MOST	 500   /* operations in one call; the kernel may allow fewer (SEMOPM) */

struct set {
	int id;
	unsigned count;
};

struct sets {
	struct set *items;
	size_t count, batch; /* number of sets; how many semaphores are tried in one call */
};

/* ---- which semaphores there are ---- */

static void read_sets(struct sets *sets)
{
	autofree char *text = NULL;
	struct seminfo info = { 0 };

	if (read_text_at(-1, "/proc/sysvipc/sem", &text) < 0)
		return; /* the kernel has none */
	for (char *line = strchr(text, '\n'); line && line[1]; line = strchr(line + 1, '\n')) {
		struct set set;
		long long changed;

		if (sscanf(line + 1, "%*d %d %*o %u %*u %*u %*u %*u %lld", &set.id, &set.count, &changed) ==
			    3 &&
		    changed)
			*grow(&sets->items, &sets->count) = set;
	}
	if (semctl(0, 0, IPC_INFO, &info) < 0 || info.semopm < FOR_EACH + LAST)
		info.semopm = FOR_EACH + LAST;
	sets->batch = (min(info.semopm, MOST) - LAST) / FOR_EACH;
}

/* ---- asking ---- */

struct question {
	int set;
	unsigned first, count;
	bool is_high;  /* its value is too high to add */
	bool is_given; /* asks whether the value to undo is negative; false: whether it is positive */
};

static size_t add_step(struct sembuf *operations, const struct question *question, unsigned number, int step)
{
	const short with_undo = SEM_UNDO | IPC_NOWAIT;
	struct sembuf up = { number, step, question->is_given ? with_undo : IPC_NOWAIT };
	struct sembuf down = { number, -step, question->is_given ? IPC_NOWAIT : with_undo };

	operations[0] = question->is_high ? down : up;
	operations[1] = question->is_high ? up : down;
	return 2;
}

/* The result of the call: -ERANGE means yes, -EAGAIN no. */
static void add_question(struct call_list *calls, const struct question *question)
{
	struct sembuf operations[MOST];
	unsigned end = question->first + question->count;
	size_t count = 0;

	for (unsigned number = question->first; number < end; number++) {
		count += add_step(operations + count, question, number, STEP);
		count += add_step(operations + count, question, number, question->is_given ? STEP : STEP - 1);
	}
	if (!question->is_high)
		operations[count++] = (struct sembuf){ end - 1, 1, IPC_NOWAIT };
	operations[count++] = (struct sembuf){ end - 1, 0, IPC_NOWAIT };
	add_call(calls, "try to change semaphores", SYS_semop, question->set,
		 calls_bytes(calls, operations, count * sizeof(*operations)), count);
}

/* 1: something would be undone, or a value is too high to add. */
static int ask_semaphore(struct task *task, size_t thread, struct question question)
{
	struct call_list calls;
	int result;

	calls_init(&calls, victim_scratch(task->victim, NULL));
	add_question(&calls, &question);
	question.is_given = !question.is_given;
	add_question(&calls, &question);
	result = calls_make(&calls, task->victim, thread);
	if (!result)
		result = calls.calls[0].result == -ERANGE || calls.calls[1].result == -ERANGE;
	calls_free(&calls);
	return result;
}

/* The value may change meanwhile, because other processes run. */
static int ask_for_one(struct task *task, size_t thread, int set, unsigned number)
{
	bool is_high;
	int result;

	do {
		is_high = semctl(set, number, GETVAL) >= STEP;
		result = ask_semaphore(task, thread, (struct question){ set, number, 1, is_high, false });
	} while (result >= 0 && (semctl(set, number, GETVAL) >= STEP) != is_high);
	return result;
}

static int ask_for_each(struct task *task, size_t thread, const struct question *batch)
{
	for (unsigned number = batch->first; number < batch->first + batch->count; number++) {
		int result = ask_for_one(task, thread, batch->set, number);

		if (result < 0)
			return result;
		if (result) {
			refuse("process %d (%s): when it ends, the kernel would change semaphore %u of set %d (SEM_UNDO), "
			       "which cannot be saved",
			       task->here, task->name, number, batch->set);
			fail_advice("first let the process release its semaphores");
		}
	}
	return 0;
}

/* 1: it may. */
static int may_change(struct task *task, size_t thread, const struct set *set)
{
	const struct sembuf operations[LAST] = { { 0, 1, IPC_NOWAIT }, { 0, 0, IPC_NOWAIT } };
	struct call_list calls;
	int result;

	calls_init(&calls, victim_scratch(task->victim, NULL));
	add_call(&calls, "try to change a semaphore", SYS_semop, set->id,
		 calls_bytes(&calls, operations, sizeof(operations)), LAST);
	result = calls_make(&calls, task->victim, thread);
	if (!result)
		result = calls.calls[0].result == -EAGAIN || calls.calls[0].result == -ERANGE;
	calls_free(&calls);
	return result;
}

static int ask_for_set(struct task *task, size_t thread, const struct set *set, unsigned batch)
{
	int result = may_change(task, thread, set);

	if (result <= 0)
		return result;
	for (unsigned first = 0; result >= 0 && first < set->count; first += batch) {
		struct question question = { set->id, first, min(batch, set->count - first), false, false };

		result = ask_semaphore(task, thread, question);
		if (result > 0)
			result = ask_for_each(task, thread, &question);
	}
	return result;
}

/* ---- which tasks are asked ---- */

static bool has_same_list(pid_t one, pid_t other)
{
	return syscall(SYS_kcmp, one, other, KCMP_SYSVSEM, 0, 0) == 0;
}

static int look_for_undo_of_task(struct task *task, const struct sets *sets)
{
	int result = 0;

	for (size_t i = 0; i < task->thread_count; i++) {
		if (has_same_list(getpid(), task->threads[i].here) ||
		    (i && has_same_list(task->here, task->threads[i].here)))
			continue; /* it has no list (as criu has none), or the same list as the leader */
		for (size_t set = 0; result >= 0 && set < sets->count; set++)
			result = ask_for_set(task, i, &sets->items[set], sets->batch);
		if (result < 0)
			return result;
	}
	return 0;
}

int dump_look_for_undo(void *context)
{
	struct dump *dump = context;
	struct sets sets = { 0 };
	struct task *task;
	int result = 0;

	read_sets(&sets);
	for_each_task (task, &dump->snapshot)
		if (!result && sets.count && task->victim) {
			result = look_for_undo_of_task(task, &sets);
			if (result)
				result = fail_in(result, "process %d (%s)", task->here, task->name);
		}
	free(sets.items);
	if (!result && refusals())
		result = -REFUSED;
	return result;
}
