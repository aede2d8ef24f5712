/*
 * timers.c - interval timers: setitimer(2) and alarm(2). Those of timer_create(2): posix_timers.c.
 *
 * An ITIMER_REAL with an interval stops when it expires, until any SIGALRM leaves the queue of the process: only then
 * does the kernel set it again. Meanwhile getitimer() returns a value of 0 and the interval. If the signal is discarded
 * (SIG_IGN), the timer is dead: it keeps its interval, and continues when another SIGALRM is taken (all seen on Linux
 * 6.18). The timers of CPU time set themselves again; with a value of 0 they are disarmed, and keep their interval,
 * too.
 */
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include "base/error.h"
#include "compel.h"
#include "image/message.h"
#include "task/part.h"

#define SECOND 1000000 /* microseconds */

static const struct {
	int which;
	const char *question;
} timers[] = {
	{ ITIMER_REAL, "read the timer of real time" },
	{ ITIMER_VIRTUAL, "read the timer of user time" },
	{ ITIMER_PROF, "read the timer of CPU time" },
};

struct asked {
	call_handle timers[array_size(timers)];
};

static void *timers_ask(const struct snapshot *snapshot unused, const struct task *task unused, size_t thread,
			struct call_list *calls)
{
	struct asked *asked;

	if (thread)
		return NULL;
	asked = allocate(sizeof(*asked));
	for (size_t i = 0; i < array_size(timers); i++)
		asked->timers[i] = add_call(calls, timers[i].question, SYS_getitimer, timers[i].which,
					    calls_bytes(calls, NULL, sizeof(struct itimerval)));
	return asked;
}

static bool has_alarm_waiting(const SignalQueueEntry *queue)
{
	for (size_t i = 0; i < queue->n_signals; i++)
		if (*(const int *)queue->signals[i]->siginfo.data == SIGALRM)
			return true;
	return false;
}

/*
 * The timer of real time goes on while everything else is stopped. Here a SIGALRM is pending (pending_signals.c has
 * looked). If the timer has expired by now, that signal is also the timer's, and the timer must not expire again before
 * the signal is taken.
 */
static int forget_spent_alarm(struct task *task, ItimerEntry *entry)
{
	struct remote_call again = { SYS_getitimer, { ITIMER_REAL }, 0 };
	struct itimerval now;
	uint64_t there;
	int result;

	if (!has_alarm_waiting(task->cores[0]->tc->signals_s))
		return 0;
	there = again.arguments[1] = victim_scratch(task->victim, NULL);
	result = victim_call(task->victim, &again, 1) ?: victim_read(task->victim, there, &now, sizeof(now));
	if (!result && !now.it_value.tv_sec && !now.it_value.tv_usec)
		entry->vsec = entry->vusec = 0;
	return result;
}

/* It had expired before the queue was read, and no signal is there. criu 4.2 would restore it as not set. */
static void note_dead(const struct task *task, ItimerEntry *entry)
{
	if (entry->vsec || entry->vusec || (!entry->isec && !entry->iusec) ||
	    has_alarm_waiting(task->cores[0]->tc->signals_s))
		return;
	message_set(entry, dead_interval, entry->isec * SECOND + entry->iusec);
	entry->isec = entry->iusec = 0;
}

static int timers_hear(const struct snapshot *snapshot unused, struct task *task, size_t thread,
		       const struct call_list *calls, const void *state)
{
	const struct asked *asked = state;
	TaskTimersEntry *entries;
	ItimerEntry **slots[array_size(timers)];

	if (thread)
		return 0;
	entries = task->cores[0]->tc->timers; /* created by posix_timers.c */
	slots[0] = &entries->real;
	slots[1] = &entries->virt;
	slots[2] = &entries->prof;
	for (size_t i = 0; i < array_size(timers); i++) {
		long result = calls_result(calls, asked->timers[i]);
		const struct itimerval *value = calls_answer(calls, asked->timers[i], 1);
		ItimerEntry *entry = *slots[i] = message_new(ItimerEntry, itimer_entry);

		if (result < 0)
			return fail(-result, "cannot %s", timers[i].question);
		entry->isec = value->it_interval.tv_sec;
		entry->iusec = value->it_interval.tv_usec;
		entry->vsec = value->it_value.tv_sec;
		entry->vusec = value->it_value.tv_usec;
	}
	note_dead(task, entries->real);
	return forget_spent_alarm(task, entries->real);
}

static int timers_check(const struct snapshot *snapshot unused, const struct task *task, size_t thread)
{
	const TaskTimersEntry *entries = thread ? NULL : task->cores[0]->tc->timers;
	const ItimerEntry *values[] = { entries ? entries->real : NULL, entries ? entries->virt : NULL,
					entries ? entries->prof : NULL };

	for (size_t i = 0; entries && i < array_size(values); i++)
		if (values[i]->iusec >= SECOND || values[i]->vusec >= SECOND || values[i]->isec > INT64_MAX ||
		    values[i]->vsec > INT64_MAX || values[i]->dead_interval > INT64_MAX)
			return fail(EINVAL, "the core image has an invalid interval timer");
	return 0;
}

/*
 * Makes the newborn's timer, which is the task's, expire, and discards its signal. All signals are blocked (signals.c).
 */
static void make_dead(uint64_t interval)
{
	struct itimerval times = { { interval / SECOND, interval % SECOND }, { 0, 1 } };

	signal(SIGALRM, SIG_DFL);
	setitimer(ITIMER_REAL, &times, NULL);
	do
		getitimer(ITIMER_REAL, &times);
	while (times.it_value.tv_sec || times.it_value.tv_usec);
	signal(SIGALRM, SIG_IGN);
	signal(SIGALRM, SIG_DFL);
}

/* A list of calls cannot wait for a timer. */
static int timers_prepare(const struct snapshot *snapshot unused, const struct task *task)
{
	const TaskTimersEntry *entries = task->cores[0]->tc->timers;

	if (entries && entries->real->dead_interval && !entries->real->vsec && !entries->real->vusec)
		make_dead(entries->real->dead_interval);
	return 0;
}

/*
 * A timer that has expired expires again, at once. If pending_signals.c has put its signal back, that signal stands for
 * it. criu 4.2 saves the timer after the queue, so its images may lack the signal.
 */
static bool runs_out_at_once(size_t timer, const ItimerEntry *value)
{
	return timers[timer].which == ITIMER_REAL && !value->vsec && !value->vusec &&
	       (value->isec || value->iusec);
}

static void timers_make(const struct snapshot *snapshot unused, const struct task *task, size_t thread,
			struct call_list *calls)
{
	const TaskTimersEntry *entries = thread ? NULL : task->cores[0]->tc->timers;
	const ItimerEntry *values[array_size(timers)];

	if (!entries)
		return;
	values[0] = entries->real;
	values[1] = entries->virt;
	values[2] = entries->prof;
	for (size_t i = 0; i < array_size(timers); i++) {
		struct itimerval value = {
			.it_interval = { values[i]->isec, values[i]->iusec },
			.it_value = { values[i]->vsec, values[i]->vusec },
		};

		if (runs_out_at_once(i, values[i]))
			value.it_value.tv_usec = 1;
		if (value.it_value.tv_sec || value.it_value.tv_usec || value.it_interval.tv_sec ||
		    value.it_interval.tv_usec)
			add_call(calls, "set an interval timer", SYS_setitimer, timers[i].which,
				 calls_bytes(calls, &value, sizeof(value)), 0);
	}
}

const struct task_part part_timers = {
	.name = "timers",
	.ask = timers_ask,
	.hear = timers_hear,
	.hears_after = { &part_pending_signals }, /* is a SIGALRM pending? */
	.check = timers_check,
	.prepare = timers_prepare,
	.make = timers_make,
};
