/*
 * timers.c - interval timers: setitimer(2) and alarm(2). Those of timer_create(2): posix_timers.c.
 */
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include "base/error.h"
#include "compel.h"
#include "image/message.h"
#include "task/part.h"

static const struct {
	int which;
	const char *question;
} timers[] = {
	{ ITIMER_REAL, "ask for the timer of real time" },
	{ ITIMER_VIRTUAL, "ask for the timer of user time" },
	{ ITIMER_PROF, "ask for the timer of CPU time" },
};

static void ask(const struct task *task unused, size_t thread, struct call_list *calls)
{
	for (size_t i = 0; !thread && i < array_size(timers); i++)
		call(calls, timers[i].question, SYS_getitimer, timers[i].which,
		     calls_bytes(calls, NULL, sizeof(struct itimerval)));
}

static bool has_alarm_waiting(const SignalQueueEntry *queue)
{
	for (size_t i = 0; i < queue->n_signals; i++)
		if (*(const int *)queue->signals[i]->siginfo.data == SIGALRM)
			return true;
	return false;
}

/*
 * The timer of real time goes on while all else stands still. Here SIGALRM waits (pending_signals.c has looked): if the timer has run
 * out by now, that signal stands for it, too, and it must not go off again.
 */
static int forget_spent_alarm(struct task *task, ItimerEntry *entry)
{
	uint64_t there = victim_scratch(task->victim, NULL);
	struct remote_call again = { SYS_getitimer, { ITIMER_REAL, there }, 0 };
	struct itimerval now;
	int result;

	if (entry->isec || entry->iusec || !has_alarm_waiting(task->cores[0]->tc->signals_s))
		return 0;
	result = victim_call(task->victim, &again, 1) ?: victim_read(task->victim, there, &now, sizeof(now));
	if (!result && !now.it_value.tv_sec && !now.it_value.tv_usec)
		entry->vsec = entry->vusec = 0;
	return result;
}

static int hear(struct task *task, size_t thread, const struct call_list *calls)
{
	TaskTimersEntry *entries;
	ItimerEntry **slots[array_size(timers)];

	if (thread)
		return 0;
	entries = task->cores[0]->tc->timers; /* made by posix_timers.c */
	slots[0] = &entries->real;
	slots[1] = &entries->virt;
	slots[2] = &entries->prof;
	for (size_t i = 0; i < array_size(timers); i++) {
		const struct remote_call *asked = calls_find(calls, timers[i].question);
		const struct itimerval *value = calls_at(calls, asked->arguments[1]);
		ItimerEntry *entry = *slots[i] = message_new(ItimerEntry, itimer_entry);

		if (asked->result < 0)
			return fail(-asked->result, "cannot %s", timers[i].question);
		entry->isec = value->it_interval.tv_sec;
		entry->iusec = value->it_interval.tv_usec;
		entry->vsec = value->it_value.tv_sec;
		entry->vusec = value->it_value.tv_usec;
	}
	return forget_spent_alarm(task, entries->real);
}

static int check(const struct task *task, size_t thread)
{
	const TaskTimersEntry *entries = thread ? NULL : task->cores[0]->tc->timers;
	const ItimerEntry *values[] = { entries ? entries->real : NULL, entries ? entries->virt : NULL,
					entries ? entries->prof : NULL };

	for (size_t i = 0; entries && i < array_size(values); i++)
		if (values[i]->iusec >= 1000000 || values[i]->vusec >= 1000000 ||
		    values[i]->isec > INT64_MAX || values[i]->vsec > INT64_MAX)
			return fail(EINVAL, "the image holds an impossible interval timer");
	return 0;
}

static void make(const struct task *task, size_t thread, struct call_list *calls)
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

		if (value.it_value.tv_sec || value.it_value.tv_usec)
			call(calls, "set an interval timer", SYS_setitimer, timers[i].which,
			     calls_bytes(calls, &value, sizeof(value)), 0);
	}
}

const struct task_part part_timers = {
	.name = "timers",
	.ask = ask,
	.hear = hear,
	.check = check,
	.make = make,
};
