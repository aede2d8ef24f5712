/*
 * posix_timers.c - timers of timer_create(2): their ids, which programs store, whom they notify and how, and the time
 * that is left.
 *
 * /proc/PID/timers (CONFIG_CHECKPOINT_RESTORE) describes the timers; the process itself tells the time that is left.
 * Restore gets the same ids with PR_TIMER_CREATE_RESTORE_IDS (Linux 6.15). On older kernels, a process that never had a
 * timer counts ids from 0, so the ids in between are created and deleted. Timers are created while all privileges exist
 * (a CLOCK_BOOTTIME_ALARM needs one), and set last of all: hence two parts.
 *
 * The pending signal of a timer is part of the timer: a periodic timer sends no second one until the first is taken. So
 * a periodic timer with a pending signal is set to a time in the past, one interval ago, and sends the signal itself.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "image/message.h"
#include "kernel_constants.h"
#include "task/part.h"

#define SECOND		1000000000LL
#define MOST_COUNTED_ID 100000 /* the highest id to count to, where ids cannot be chosen: 13 MB of calls */

/* The kernel's numbers for CPU clocks: ~pid << 3, a bit for a thread's own clock, and the kind of time. */
#define CLOCK_OF_THREAD 4
#define CLOCK_COUNTS	3
#define CLOCK_IS_FILE	3

static int clock_of(const PosixTimerEntry *timer)
{
	return (int)timer->clock_id;
}

/* Does it count the time of the thread that created it, which /proc does not name? */
static bool counts_its_maker(const PosixTimerEntry *timer)
{
	return clock_of(timer) < 0 && clock_of(timer) >> 3 == ~0 && clock_of(timer) & CLOCK_OF_THREAD;
}

static bool tells_the_dead(const struct task *task, const PosixTimerEntry *timer)
{
	return timer->it_sigev_notify & SIGEV_THREAD_ID && !task_has_thread(task, timer->notify_thread_id);
}

/* ---- dump ---- */

/* Four lines a timer: "ID: 7", "signal: 34/00007ffe12345678", "notify: signal/tid.4711", "ClockID: -6". */
static int parse_timer(const char **text, PosixTimerEntry *timer)
{
	char notify[8], target[4];
	unsigned long value;
	int clock, length = 0, whom;

	if (sscanf(*text, "ID: %u signal: %u/%lx notify: %7[a-z]/%3[a-z].%d ClockID: %d %n", &timer->it_id,
		   &timer->si_signo, &value, notify, target, &whom, &clock, &length) != 7 ||
	    !length)
		return fail(EINVAL, "cannot understand /proc/PID/timers: %.80s", *text);
	*text += length;
	timer->sival_ptr = value;
	timer->clock_id = (uint32_t)clock;
	timer->it_sigev_notify = !strcmp(notify, "none")   ? SIGEV_NONE :
				 !strcmp(notify, "thread") ? SIGEV_THREAD :
							     SIGEV_SIGNAL;
	if (!strcmp(target, "tid")) {
		timer->it_sigev_notify |= SIGEV_THREAD_ID;
		message_set(timer, notify_thread_id, whom);
	}
	return 0;
}

static int look_at_timer(const struct task *task, PosixTimerEntry *timer)
{
	/* /proc shows ids as criu sees them; the task made the timer, and its clock, with its own. */
	const struct thread *notified = task_find_thread_here(task, timer->notify_thread_id);
	int clock = clock_of(timer);

	if (clock < 0 && (clock & 7) == CLOCK_IS_FILE)
		return refuse(
			"process %d (%s): timer %u counts by a clock that is a device, which is not supported",
			task->here, task->name, timer->it_id);
	if (clock < 0 && ~(clock >> 3) && !task_has_thread(task, ~(clock >> 3)))
		return refuse(
			"process %d (%s): timer %u counts the CPU time of %d, which is not one of its threads (any more)",
			task->here, task->name, timer->it_id, ~(clock >> 3));
	if (timer->it_sigev_notify & SIGEV_THREAD_ID && notified) {
		timer->notify_thread_id = thread_own_id(notified);
	} else if (timer->it_sigev_notify & SIGEV_THREAD_ID) {
		log_info("process %d: timer %u notifies thread %d, which is gone: it will notify nothing",
			 task->here, timer->it_id, timer->notify_thread_id);
		timer->has_notify_thread_id = false;
		timer->it_sigev_notify =
			SIGEV_NONE; /* criu 4.2 saves the original value, and cannot restore it */
	}
	return 0;
}

static int compare_timer_ids(const void *left, const void *right)
{
	const PosixTimerEntry *a = *(PosixTimerEntry *const *)left, *b = *(PosixTimerEntry *const *)right;

	return a->it_id < b->it_id ? -1 : a->it_id > b->it_id;
}

static int posix_timers_look(struct snapshot *snapshot unused, struct task *task, size_t thread,
			     const struct thread_facts *facts unused)
{
	TaskTimersEntry *timers;
	autofree char *text = NULL;
	const char *at;
	int result = 0;
	ssize_t length;

	if (thread)
		return 0;
	timers = task->cores[0]->tc->timers = message_new(TaskTimersEntry, task_timers_entry);
	length = read_text_at(task->proc, "timers", &text);
	if (length < 0)
		return fail(-length, "cannot read /proc/%d/timers", task->here);
	for (at = text; !result && *at;) {
		PosixTimerEntry *timer = message_new(PosixTimerEntry, posix_timer_entry);

		*grow(&timers->posix, &timers->n_posix) = timer;
		result = parse_timer(&at, timer) ?: unless_refused(look_at_timer(task, timer));
	}
	if (timers->n_posix)
		qsort(timers->posix, timers->n_posix, sizeof(*timers->posix), compare_timer_ids);
	return result;
}

/* The questions to a thread about one timer. An array of these has the order of TaskTimersEntry.posix. */
struct asked_timer {
	call_handle left, overrun; /* of the leader */
	call_handle owner[2];	   /* of another thread: does the timer count its time? */
};

static call_handle ask_left(const PosixTimerEntry *timer, struct call_list *calls)
{
	return add_call(calls, "ask for what is left of a timer", SYS_timer_gettime, timer->it_id,
			calls_bytes(calls, NULL, sizeof(struct itimerspec)));
}

bool posix_timers_look_for_owners(const struct task *task)
{
	const TaskTimersEntry *timers = task->cores[0]->tc->timers;

	for (size_t i = 0; i < timers->n_posix; i++)
		if (counts_its_maker(timers->posix[i]))
			return true;
	return false;
}

/*
 * While a thread makes the calls, only its own CPU time advances. So a timer that changes between two questions counts
 * the time of this thread.
 */
static void *posix_timers_ask(const struct snapshot *snapshot unused, const struct task *task, size_t thread,
			      struct call_list *calls)
{
	const TaskTimersEntry *timers = task->cores[0]->tc->timers;
	struct asked_timer *asked;

	if (!timers->n_posix)
		return NULL;
	asked = allocate_array(timers->n_posix, sizeof(*asked));
	for (size_t i = 0; i < timers->n_posix; i++) {
		const PosixTimerEntry *timer = timers->posix[i];

		if (thread && counts_its_maker(timer)) {
			asked[i].owner[0] = ask_left(timer, calls);
			asked[i].owner[1] = ask_left(timer, calls);
		}
		if (!thread)
			asked[i].left = ask_left(timer, calls);
	}
	for (size_t i = 0; !thread && i < timers->n_posix; i++)
		asked[i].overrun = add_call(calls, "ask for the overrun of a timer", SYS_timer_getoverrun,
					    timers->posix[i]->it_id);
	return asked;
}

static int hear_left(TaskTimersEntry *timers, const struct call_list *calls, const struct asked_timer *asked)
{
	for (size_t i = 0; i < timers->n_posix; i++) {
		PosixTimerEntry *timer = timers->posix[i];
		long left = calls_result(calls, asked[i].left),
		     overrun = calls_result(calls, asked[i].overrun);
		const struct itimerspec *value = calls_answer(calls, asked[i].left, 1);

		if (left < 0 || overrun < 0)
			return fail(-min(left, overrun), "cannot read timer %u", timer->it_id);
		timer->overrun = overrun;
		timer->isec = value->it_interval.tv_sec;
		timer->insec = value->it_interval.tv_nsec;
		timer->vsec = value->it_value.tv_sec;
		timer->vnsec = value->it_value.tv_nsec;
	}
	return 0;
}

/* A clock that names the thread counts the same time, and any thread can create a timer with it. */
static void hear_owners(const struct task *task, size_t thread, const struct call_list *calls,
			const struct asked_timer *asked)
{
	TaskTimersEntry *timers = task->cores[0]->tc->timers;

	for (size_t i = 0; i < timers->n_posix; i++) {
		PosixTimerEntry *timer = timers->posix[i];
		const call_handle *owner = asked[i].owner;

		if (calls_result(calls, owner[0]) == 0 && calls_result(calls, owner[1]) == 0 &&
		    memcmp(calls_answer(calls, owner[0], 1), calls_answer(calls, owner[1], 1),
			   sizeof(struct itimerspec)))
			timer->clock_id = (uint32_t)(~thread_own_id(&task->threads[thread]) * 8 |
						     (clock_of(timer) & 7));
	}
}

static int posix_timers_hear(const struct snapshot *snapshot unused, struct task *task, size_t thread,
			     const struct call_list *calls, const void *state)
{
	if (!thread)
		return hear_left(task->cores[0]->tc->timers, calls, state);
	hear_owners(task, thread, calls, state);
	return 0;
}

/* ---- restore: making them ---- */

static bool can_ask_for_ids(void)
{
	return prctl(PR_TIMER_CREATE_RESTORE_IDS, PR_TIMER_CREATE_RESTORE_IDS_GET, 0, 0, 0) >= 0;
}

static int check_timer(const PosixTimerEntry *timer)
{
	unsigned how = timer->it_sigev_notify;

	if (timer->it_id > INT32_MAX || timer->insec >= SECOND || timer->vnsec >= SECOND ||
	    timer->isec > INT64_MAX / SECOND || timer->vsec > INT64_MAX / SECOND)
		return fail(EINVAL, "the core image has an invalid timer: %u", timer->it_id);
	if (how != SIGEV_NONE && (timer->si_signo < 1 || timer->si_signo > 64))
		return fail(EINVAL, "timer %u of the core image sends signal %u, which does not exist",
			    timer->it_id, timer->si_signo);
	if (timer->it_id > MOST_COUNTED_ID && !can_ask_for_ids())
		return fail(
			0,
			"timer id %u cannot be restored: this kernel has no PR_TIMER_CREATE_RESTORE_IDS (Linux 6.15)",
			timer->it_id);
	return 0;
}

static int posix_timers_check(const struct snapshot *snapshot unused, const struct task *task, size_t thread)
{
	const TaskTimersEntry *timers = thread ? NULL : task->cores[0]->tc->timers;
	int result = 0;

	if (!timers || !timers->n_posix)
		return 0;
	qsort(timers->posix, timers->n_posix, sizeof(*timers->posix), compare_timer_ids);
	for (size_t i = 0; !result && i < timers->n_posix; i++) {
		result = check_timer(timers->posix[i]);
		if (i && timers->posix[i]->it_id == timers->posix[i - 1]->it_id)
			result = fail(EINVAL, "the core image has timer %u twice", timers->posix[i]->it_id);
	}
	return result;
}

static void make_timer(const struct task *task, const PosixTimerEntry *timer, struct call_list *calls)
{
	int id = timer->it_id;
	struct sigevent event = {
		.sigev_value.sival_ptr = (void *)(uintptr_t)timer->sival_ptr,
		.sigev_signo = timer->si_signo,
		.sigev_notify = tells_the_dead(task, timer) ? SIGEV_NONE : (int)timer->it_sigev_notify,
	};
	uint64_t there;

	if (event.sigev_notify & SIGEV_THREAD_ID)
		event._sigev_un._tid = timer->notify_thread_id;
	there = calls_bytes(calls, &event, sizeof(event));
	add_call(calls, "make a timer", SYS_timer_create, (uint64_t)clock_of(timer), there,
		 calls_bytes(calls, &id, sizeof(id)));
}

/* Each new timer takes the next number, from `next` on: those below the wanted one are deleted again. */
static void count_to(uint32_t wanted, uint32_t *next, struct call_list *calls)
{
	struct sigevent event = { .sigev_notify = SIGEV_NONE };

	if (*next < wanted) {
		uint64_t there = calls_bytes(calls, &event, sizeof(event)),
			 id = calls_bytes(calls, NULL, sizeof(int));

		for (; *next < wanted; ++*next) {
			add_call(calls, "create a temporary timer", SYS_timer_create, CLOCK_MONOTONIC, there,
				 id);
			add_call(calls, "delete a timer", SYS_timer_delete, *next);
		}
	}
	++*next;
}

static void posix_timers_make(const struct snapshot *snapshot unused, const struct task *task, size_t thread,
			      struct call_list *calls)
{
	const TaskTimersEntry *timers = thread ? NULL : task->cores[0]->tc->timers;
	bool can_ask = can_ask_for_ids();
	uint32_t next = 0;

	if (!timers || !timers->n_posix)
		return;
	if (can_ask)
		add_call(calls, "enable chosen timer ids", SYS_prctl, PR_TIMER_CREATE_RESTORE_IDS, 1);
	for (size_t i = 0; i < timers->n_posix; i++) {
		if (!can_ask)
			count_to(timers->posix[i]->it_id, &next, calls);
		make_timer(task, timers->posix[i], calls);
	}
	if (can_ask)
		add_call(calls, "disable chosen timer ids", SYS_prctl, PR_TIMER_CREATE_RESTORE_IDS, 0);
}

const struct task_part part_posix_timers = {
	.name = "POSIX timers",
	.look = posix_timers_look,
	.ask = posix_timers_ask,
	.hear = posix_timers_hear,
	.check = posix_timers_check,
	.make = posix_timers_make,
};

/* ---- setting them ---- */

static bool is_sent_by(const SiginfoEntry *entry, const PosixTimerEntry *timer)
{
	siginfo_t info = { 0 };

	memcpy(&info, entry->siginfo.data, min(entry->siginfo.len, sizeof(info)));
	return info.si_code == SI_TIMER && (uint32_t)info.si_timerid == timer->it_id &&
	       (unsigned)info.si_signo == timer->si_signo;
}

static bool queue_has_signal_of(const SignalQueueEntry *queue, const PosixTimerEntry *timer)
{
	for (size_t i = 0; queue && i < queue->n_signals; i++)
		if (is_sent_by(queue->signals[i], timer))
			return true;
	return false;
}

static bool has_signal_waiting(const struct task *task, const PosixTimerEntry *timer)
{
	if (queue_has_signal_of(task->cores[0]->tc->signals_s, timer))
		return true;
	for (size_t i = 0; i < task->thread_count; i++)
		if (queue_has_signal_of(task->cores[i]->thread_core->signals_p, timer))
			return true;
	return false;
}

/* On its clock, in nanoseconds: one interval before its next expiry. 0: it cannot be set back that far. */
static int64_t last_time(const PosixTimerEntry *timer)
{
	int64_t interval = timer->isec * SECOND + timer->insec, left = timer->vsec * SECOND + timer->vnsec;
	struct timespec now;

	if (!interval || clock_of(timer) < 0 || clock_gettime(clock_of(timer), &now) < 0)
		return 0;
	return max(now.tv_sec * SECOND + now.tv_nsec - interval + left % interval, (int64_t)0);
}

bool posix_timer_resends(const struct task *task, const SiginfoEntry *entry)
{
	const TaskTimersEntry *timers = task->cores[0]->tc->timers;

	for (size_t i = 0; timers && i < timers->n_posix; i++)
		if (is_sent_by(entry, timers->posix[i]))
			return last_time(timers->posix[i]) > 0;
	return false;
}

/*
 * After all threads have reported their pending signals: a one-shot timer with a pending signal has expired since it
 * was asked.
 */
static int hear_signals(const struct snapshot *snapshot unused, struct task *task, size_t thread,
			const struct call_list *calls unused, const void *state unused)
{
	const TaskTimersEntry *timers = task->cores[0]->tc->timers;

	for (size_t i = 0; thread + 1 == task->thread_count && i < timers->n_posix; i++) {
		PosixTimerEntry *timer = timers->posix[i];

		if (!timer->isec && !timer->insec && has_signal_waiting(task, timer))
			timer->vsec = timer->vnsec = 0;
	}
	return 0;
}

static void set_timer(const struct task *task, const PosixTimerEntry *timer, struct call_list *calls)
{
	struct itimerspec value = {
		.it_interval = { timer->isec, timer->insec },
		.it_value = { timer->vsec, timer->vnsec },
	};
	int64_t last = has_signal_waiting(task, timer) ? last_time(timer) : 0;

	if (!last && !timer->vsec && !timer->vnsec && !timer->isec && !timer->insec)
		return; /* a disarmed timer of CPU time keeps its interval */
	if (last)
		value.it_value = (struct timespec){ last / SECOND, last % SECOND };
	add_call(calls, "set a timer", SYS_timer_settime, timer->it_id, last ? TIMER_ABSTIME : 0,
		 calls_bytes(calls, &value, sizeof(value)), 0);
}

static void set_timers(const struct snapshot *snapshot unused, const struct task *task, size_t thread,
		       struct call_list *calls)
{
	const TaskTimersEntry *timers = thread ? NULL : task->cores[0]->tc->timers;

	for (size_t i = 0; timers && i < timers->n_posix; i++)
		set_timer(task, timers->posix[i], calls);
}

const struct task_part part_posix_timers_set = {
	.name = "POSIX timers, set",
	.hear = hear_signals,
	.hears_after = { &part_posix_timers,
			 &part_pending_signals }, /* the time left; is its signal pending? */
	.make = set_timers,
};
