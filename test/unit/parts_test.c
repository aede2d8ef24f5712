/*
 * parts_test.c - the calls that restore the state of a thread from its core: which calls, in which order; and what is
 * refused before any call is made.
 */
#include "unit.h"
#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "image/message.h"
#include "task/part.h"
#include "task_of_two.h"

#define BASE 0x10000000000ULL

static struct snapshot snapshot; /* empty */

static int start_clean(void **state unused)
{
	failure_clear();
	log_level = 0;
	return 0;
}

static struct call_list make(const struct task_part *part, const struct task *task, size_t thread)
{
	struct call_list calls;

	calls_init(&calls, BASE);
	part->make(&snapshot, task, thread, &calls);
	return calls;
}

static void assert_check(const struct task_part *part, const struct task *task, const char *says)
{
	int result = part->check(&snapshot, task, 0);
	char report[4096];

	failure_report(report, sizeof(report), "test", NULL);
	if (says && (result >= 0 || !strstr(report, says)))
		fail_msg("%d instead of \"%s\":\n%s", result, says, report);
	if (!says && result)
		fail_msg("refused: %s", report);
	failure_clear();
}

/* The call with this number and first argument, from `*at` on; *at is moved behind it. */
static const struct remote_call *next_call(const struct call_list *calls, size_t *at, long number,
					   uint64_t first)
{
	for (; *at < calls->count; ++*at)
		if (calls->calls[*at].number == number && calls->calls[*at].arguments[0] == first)
			return &calls->calls[(*at)++];
	fail_msg("no call %ld(%llu, …) there", number, (unsigned long long)first);
	return NULL;
}

static size_t count_calls(const struct call_list *calls, long number)
{
	size_t count = 0;

	for (size_t i = 0; i < calls->count; i++)
		count += calls->calls[i].number == number;
	return count;
}

/* ---- credentials ---- */

static void credentials_in_order(void **state unused)
{
	struct task *task = new_task();
	CredsEntry *creds = task->cores[0]->thread_core->creds;
	const struct __user_cap_data_struct *data;
	const struct remote_call *made;
	struct call_list calls;
	size_t at = 0;

	creds->uid = 1000, creds->euid = 1001, creds->suid = 1002, creds->fsuid = 1003;
	creds->gid = creds->egid = creds->sgid = creds->fsgid = 50;
	creds->secbits = SECURE_ALL_BITS | SECURE_ALL_LOCKS;
	creds->groups = copy_bytes((uint32_t[]){ 5, 6, 70000 }, 12);
	creds->n_groups = 3;
	creds->cap_inh[0] = creds->cap_prm[0] = creds->cap_amb[0] = 1 << CAP_KILL;
	creds->cap_bnd[0] &= ~(1u << CAP_KILL);
	message_set(creds, no_new_privs, 1);
	calls = make(&part_credentials, task, 0);

	made = next_call(&calls, &at, SYS_prctl, PR_SET_SECUREBITS);
	assert_int_equal(made->arguments[1], SECBIT_NO_SETUID_FIXUP);
	made = next_call(&calls, &at, SYS_setgroups, 3);
	assert_memory_equal(calls_at(&calls, made->arguments[1]), ((uint32_t[]){ 5, 6, 70000 }), 12);
	made = next_call(&calls, &at, SYS_setresgid, 50);
	assert_int_equal(count_calls(&calls, SYS_setfsgid), 0); /* setresgid() has done it */
	made = next_call(&calls, &at, SYS_setresuid, 1000);
	assert_int_equal(made->arguments[1], 1001);
	assert_int_equal(made->arguments[2], 1002);
	next_call(&calls, &at, SYS_setfsuid, 1003);
	while (calls.calls[at].number != SYS_capset)
		at++;
	data = calls_at(&calls, calls.calls[at].arguments[1]);
	assert_int_equal(data[0].inheritable, 1 << CAP_KILL);
	next_call(&calls, &at, SYS_prctl, PR_CAP_AMBIENT);
	assert_int_equal(next_call(&calls, &at, SYS_prctl, PR_CAP_AMBIENT)->arguments[1],
			 PR_CAP_AMBIENT_RAISE);
	if (prctl(PR_CAPBSET_READ, CAP_KILL) == 1)
		assert_int_equal(next_call(&calls, &at, SYS_prctl, PR_CAPBSET_DROP)->arguments[1], CAP_KILL);
	made = next_call(&calls, &at, SYS_prctl, PR_SET_SECUREBITS);
	assert_int_equal(made->arguments[1], SECURE_ALL_BITS | SECURE_ALL_LOCKS);
	while (calls.calls[at].number != SYS_capset)
		at++;
	data = calls_at(&calls, calls.calls[at].arguments[1]);
	assert_int_equal(data[0].permitted, 1 << CAP_KILL);
	assert_int_equal(data[0].effective, 0);
	next_call(&calls, &at, SYS_prctl, PR_SET_NO_NEW_PRIVS);
	assert_int_equal(at, calls.count);
	calls_free(&calls);
	free_task(task);
}

/* Credentials that a newborn has anyway need no privileges. */
static void credentials_of_our_own(void **state unused)
{
	struct task *task = new_task();
	CredsEntry *creds = task->cores[0]->thread_core->creds;
	struct call_list calls;

	creds->uid = creds->euid = creds->suid = creds->fsuid = geteuid();
	creds->gid = creds->egid = creds->sgid = creds->fsgid = getegid();
	creds->n_groups = getgroups(0, NULL);
	creds->groups = allocate_array(creds->n_groups + 1, sizeof(*creds->groups));
	getgroups(creds->n_groups, creds->groups);
	creds->secbits = prctl(PR_GET_SECUREBITS);
	calls = make(&part_credentials, task, 0);
	assert_int_equal(count_calls(&calls, SYS_setresuid), 0);
	assert_int_equal(count_calls(&calls, SYS_setresgid), 0);
	assert_int_equal(count_calls(&calls, SYS_setgroups), 0);
	assert_int_equal(count_calls(&calls, SYS_capset), 1);
	for (size_t i = 0; i < calls.count; i++)
		assert_false(calls.calls[i].number == SYS_prctl &&
			     calls.calls[i].arguments[0] == PR_SET_SECUREBITS);
	calls_free(&calls);
	free_task(task);
}

static struct call_list finish(const struct task_part *part, const struct task *task, size_t thread)
{
	struct call_list calls;

	calls_init(&calls, BASE);
	part->finish(&snapshot, task, thread, &calls);
	return calls;
}

/*
 * The signal is set last, because changes of ids clear it. The leader also clears criu's own; other threads have
 * none.
 */
static void parent_death_signals(void **state unused)
{
	const int wanted[] = { SIGUSR2, SIGUSR1 };
	struct task *task = new_task();
	struct call_list calls;

	for (size_t thread = 0; thread < 2; thread++) {
		calls = finish(&part_identity, task, thread);
		assert_int_equal(calls.count, !thread);
		calls_free(&calls);
		message_set(task->cores[thread]->thread_core, pdeath_sig, wanted[thread]);
		calls = finish(&part_identity, task, thread);
		assert_int_equal(calls.count, 1);
		assert_int_equal(calls.calls[0].arguments[1], wanted[thread]);
		calls_free(&calls);
	}
	free_task(task);
}

static void credentials_refused(void **state unused)
{
	struct task *task = new_task();
	CredsEntry *creds = task->cores[0]->thread_core->creds;

	assert_check(&part_credentials, task, NULL);
	creds->cap_prm[1] = 1u << 31; /* no kernel has it */
	assert_check(&part_credentials, task, "capabilities that criu does not have");
	creds->cap_prm[1] = 0;
	creds->cap_inh[1] = 1u << 31;
	assert_check(&part_credentials, task, "inheritable");
	creds->cap_inh[1] = 0;
	message_set(task->cores[0]->thread_core, seccomp_mode, SECCOMP_MODE__filter);
	assert_check(&part_credentials, task, "seccomp");
	image_free(creds);
	task->cores[0]->thread_core->creds = NULL;
	assert_check(&part_credentials, task, "no credentials");
	free_task(task);
}

/* ---- signals ---- */

static void give_actions(TaskCoreEntry *core, size_t count)
{
	message_array(core, sigactions, count);
	for (size_t i = 0; i < count; i++) {
		core->sigactions[i] = message_new(SaEntry, sa_entry);
		core->sigactions[i]->sigaction = 0x1000 + i;
	}
}

static void signal_actions(void **state unused)
{
	struct task *task = new_task();
	struct call_list calls;
	size_t at = 0;

	give_actions(task->cores[0]->tc, 62);
	assert_check(&part_signals, task, NULL);
	calls = make(&part_signals, task, 0);
	assert_int_equal(count_calls(&calls, SYS_rt_sigaction), 62);
	for (int signal = 1, i = 0; signal <= 64; signal++) {
		const struct remote_call *made;

		if (signal == SIGKILL || signal == SIGSTOP)
			continue;
		made = next_call(&calls, &at, SYS_rt_sigaction, signal);
		assert_int_equal(*(uint64_t *)calls_at(&calls, made->arguments[1]), 0x1000 + i++);
		assert_int_equal(made->arguments[3], 8);
	}
	calls_free(&calls);
	calls = make(&part_signals, task, 1);
	assert_int_equal(count_calls(&calls, SYS_rt_sigaction), 0);
	calls_free(&calls);
	free_task(task);
}

static void signal_stacks(void **state unused)
{
	static const struct {
		uint32_t saved, made;
	} flags[] = { { 0, 0 }, { SS_ONSTACK, 0 }, { 1u << 31, 1u << 31 }, { SS_DISABLE, SS_DISABLE } };
	struct task *task = new_task();
	ThreadSasEntry *stack = task->cores[1]->thread_core->sas = message_new(ThreadSasEntry,
									       thread_sas_entry);

	stack->ss_sp = 0x7000;
	stack->ss_size = 0x9000;
	for (size_t i = 0; i < array_size(flags); i++) {
		struct call_list calls;
		const stack_t *made;

		stack->ss_flags = flags[i].saved;
		calls = make(&part_signals, task, 1);
		made = calls_at(&calls,
				next_call(&calls, &(size_t){ 0 }, SYS_sigaltstack, BASE)->arguments[0]);
		assert_int_equal((uint32_t)made->ss_flags, flags[i].made);
		assert_int_equal(made->ss_size, flags[i].made == SS_DISABLE ? 0 : 0x9000);
		calls_free(&calls);
	}
	free_task(task);
}

static void too_few_actions(void **state unused)
{
	struct task *task = new_task();

	assert_check(&part_signals, task, "signal actions");
	give_actions(task->cores[0]->tc, 61);
	assert_check(&part_signals, task, "61");
	free_task(task);
}

/* ---- pending signals and timers ---- */

static void add_signal(SignalQueueEntry **queue, int signal, int code, int value, int timer)
{
	siginfo_t info = { .si_signo = signal, .si_code = code };
	SiginfoEntry *entry = message_new(SiginfoEntry, siginfo_entry);

	info.si_value.sival_int = value;
	if (code == SI_TIMER)
		info.si_timerid = timer;
	entry->siginfo.len = 128;
	entry->siginfo.data = copy_bytes(&info, 128);
	if (!*queue)
		*queue = message_new(SignalQueueEntry, signal_queue_entry);
	*grow(&(*queue)->signals, &(*queue)->n_signals) = entry;
}

static void pending_in_order(void **state unused)
{
	struct task *task = new_task();
	struct call_list calls;

	for (int i = 0; i < 1000; i++)
		add_signal(&task->cores[0]->tc->signals_s, 40, SI_QUEUE, i, 0);
	add_signal(&task->cores[0]->thread_core->signals_p, SIGUSR2, SI_TKILL, 7, 0);
	add_signal(&task->cores[1]->thread_core->signals_p, 41, SI_QUEUE, 8, 0);
	assert_check(&part_pending_signals, task, NULL);
	calls = make(&part_pending_signals, task, 0);
	assert_int_equal(calls.count, 1001);
	assert_int_equal(calls.calls[0].number, SYS_rt_tgsigqueueinfo);
	for (int i = 0; i < 1000; i++) {
		const struct remote_call *made = &calls.calls[1 + i];
		const siginfo_t *info = calls_at(&calls, made->arguments[2]);

		assert_int_equal(made->number, SYS_rt_sigqueueinfo);
		assert_int_equal(made->arguments[0], PID);
		assert_int_equal(made->arguments[1], 40);
		assert_int_equal(info->si_value.sival_int, i);
	}
	calls_free(&calls);
	calls = make(&part_pending_signals, task, 1);
	assert_int_equal(calls.count, 1);
	assert_int_equal(calls.calls[0].arguments[1], PID + 1);
	calls_free(&calls);
	free_task(task);
}

static void pending_refused(void **state unused)
{
	static const int wrong[] = { 0, -1, 65, SIGKILL, SIGSTOP };

	for (size_t i = 0; i < array_size(wrong); i++) {
		struct task *task = new_task();

		add_signal(&task->cores[0]->tc->signals_s, wrong[i], SI_USER, 0, 0);
		assert_check(&part_pending_signals, task, "pending signal");
		task->cores[0]->tc->signals_s->signals[0]->siginfo.len = 3;
		assert_check(&part_pending_signals, task, "pending signal");
		free_task(task);
	}
}

/* A pending signal of a periodic timer is sent again by the timer. That of a timer that has run out is queued. */
static void pending_of_timers(void **state unused)
{
	struct task *task = new_task();
	const struct remote_call *made;
	struct call_list calls;
	size_t at = 0;

	add_timer(task, 3, CLOCK_MONOTONIC, 40000000, 50000000);
	add_timer(task, 5, CLOCK_MONOTONIC, 0, 0);
	add_timer(task, 6, CLOCK_MONOTONIC, 9, 0);
	add_signal(&task->cores[0]->tc->signals_s, SIGUSR1, SI_TIMER, 0, 3);
	add_signal(&task->cores[0]->tc->signals_s, SIGUSR1, SI_TIMER, 0, 5);
	calls = make(&part_pending_signals, task, 0);
	assert_int_equal(calls.count, 1);
	assert_int_equal(((const siginfo_t *)calls_at(&calls, calls.calls[0].arguments[2]))->si_timerid, 5);
	calls_free(&calls);
	calls = make(&part_posix_timers_set, task, 0);
	assert_int_equal(calls.count, 2);
	made = next_call(&calls, &at, SYS_timer_settime, 3);
	assert_int_equal(made->arguments[1], TIMER_ABSTIME);
	made = next_call(&calls, &at, SYS_timer_settime, 6);
	assert_int_equal(made->arguments[1], 0);
	assert_int_equal(((const struct itimerspec *)calls_at(&calls, made->arguments[2]))->it_value.tv_nsec,
			 9);
	calls_free(&calls);
	free_task(task);
}

static void timers_get_their_ids(void **state unused)
{
	struct task *task = new_task();
	bool by_asking = prctl(77 /* PR_TIMER_CREATE_RESTORE_IDS */, 2, 0, 0, 0) >= 0;
	struct call_list calls;

	add_timer(task, 12, CLOCK_REALTIME, 0, 0);
	add_timer(task, 7, -6, 0, 0)->it_sigev_notify = SIGEV_NONE;
	assert_check(&part_posix_timers, task, NULL); /* and sorts them */
	calls = make(&part_posix_timers, task, 0);
	/* Without the kernel's help, timers 0 … 6 and 8 … 11 are created and deleted. */
	assert_int_equal(count_calls(&calls, SYS_timer_create), by_asking ? 2 : 13);
	assert_int_equal(count_calls(&calls, SYS_timer_delete), by_asking ? 0 : 11);
	if (by_asking) {
		assert_int_equal(calls.count, 4);
		assert_int_equal((int)calls.calls[1].arguments[0], -6);
		assert_int_equal(*(int *)calls_at(&calls, calls.calls[1].arguments[2]), 7);
		assert_int_equal(*(int *)calls_at(&calls, calls.calls[2].arguments[2]), 12);
	}
	calls_free(&calls);
	free_task(task);
}

static void timers_refused(void **state unused)
{
	struct task *task = new_task();
	PosixTimerEntry *timer = add_timer(task, 1, CLOCK_REALTIME, 0, 0);

	assert_check(&part_posix_timers, task, NULL);
	assert_check(&part_timers, task, NULL);
	timer->it_id = 1u << 31;
	assert_check(&part_posix_timers, task, "invalid timer");
	timer->it_id = 1;
	timer->vnsec = 1000000000;
	assert_check(&part_posix_timers, task, "invalid timer");
	timer->vnsec = 0;
	timer->isec = UINT64_MAX;
	assert_check(&part_posix_timers, task, "invalid timer");
	timer->isec = 0;
	timer->si_signo = 65;
	assert_check(&part_posix_timers, task, "signal 65");
	timer->si_signo = SIGUSR1;
	add_timer(task, 1, CLOCK_REALTIME, 0, 0);
	assert_check(&part_posix_timers, task, "twice");
	task->cores[0]->tc->timers->virt->vusec = 1000000;
	assert_check(&part_timers, task, "interval timer");
	free_task(task);
}

/* ---- limits ---- */

static void give_limits(TaskCoreEntry *core)
{
	core->rlimits = message_new(TaskRlimitsEntry, task_rlimits_entry);
	message_array(core->rlimits, rlimits, RLIM_NLIMITS);
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		struct rlimit ours;

		getrlimit(i, &ours);
		core->rlimits->rlimits[i] = message_new(RlimitEntry, rlimit_entry);
		core->rlimits->rlimits[i]->max = min((rlim_t)(2 * i), ours.rlim_max);
		core->rlimits->rlimits[i]->cur = min((rlim_t)i, ours.rlim_max);
	}
}

static void limits(void **state unused)
{
	struct task *task = new_task();
	struct call_list calls;
	struct rlimit ours;

	give_limits(task->cores[0]->tc);
	assert_check(&part_limits, task, NULL);
	getrlimit(RLIMIT_SIGPENDING, &ours);
	calls = make(&part_limits, task, 0);
	assert_int_equal(calls.count, RLIM_NLIMITS);
	for (unsigned i = 0; i < RLIM_NLIMITS; i++) {
		const struct rlimit *made = calls_at(&calls, calls.calls[i].arguments[2]);

		assert_int_equal(calls.calls[i].number, SYS_prlimit64);
		assert_int_equal(calls.calls[i].arguments[0], 0);
		assert_int_equal(calls.calls[i].arguments[1], i);
		assert_int_equal(made->rlim_cur, i == RLIMIT_SIGPENDING ?
							 ours.rlim_max :
							 task->cores[0]->tc->rlimits->rlimits[i]->cur);
	}
	calls_free(&calls);
	calls_init(&calls, BASE);
	part_limits.finish(&snapshot, task, 0, &calls);
	assert_int_equal(calls.count, 1);
	assert_int_equal(((const struct rlimit *)calls_at(&calls, calls.calls[0].arguments[2]))->rlim_cur,
			 RLIMIT_SIGPENDING);
	calls_free(&calls);
	calls = make(&part_limits, task, 1);
	assert_int_equal(calls.count, 0);
	calls_free(&calls);
	task->cores[0]->tc->rlimits->rlimits[3]->cur = 7;
	assert_check(&part_limits, task, "above its hard limit");
	free_task(task);
}

/* ---- scheduling ---- */

static void scheduling(void **state unused)
{
	struct task *task = new_task();
	ThreadCoreEntry *core = task->cores[0]->thread_core;
	struct call_list calls = make(&part_scheduling, task, 0);
	uint8_t first = 1, nowhere[1024] = { [1023] = 0x80 };
	size_t at = 0;

	assert_int_equal(calls.count, 0); /* the image has nothing, so nothing is set */
	calls_free(&calls);
	message_set(core, sched_policy, 6);
	assert_check(&part_scheduling, task, "policy 6");
	message_set(core, sched_policy, SCHED_FIFO | SCHED_RESET_ON_FORK);
	message_set(core, sched_prio, 5);
	message_set(core, sched_nice, -5);
	message_set(core, timer_slack, 0);
	core->has_cpu_affinity = true;
	core->cpu_affinity = (ProtobufCBinaryData){ 1, &first };
	assert_check(&part_scheduling, task, NULL);
	calls = make(&part_scheduling, task, 0);
	assert_int_equal(count_calls(&calls, SYS_prctl), 0); /* 0 would mean something else */
	next_call(&calls, &at, SYS_sched_setaffinity, 0);
	assert_int_equal(next_call(&calls, &at, SYS_sched_setscheduler, 0)->arguments[1],
			 SCHED_FIFO | SCHED_RESET_ON_FORK);
	assert_int_equal((int)next_call(&calls, &at, SYS_setpriority, PRIO_PROCESS)->arguments[2], -5);
	calls_free(&calls);
	/* The CPU does not exist here: all CPUs are allowed. */
	core->cpu_affinity = (ProtobufCBinaryData){ sizeof(nowhere), nowhere };
	assert_check(&part_scheduling, task, NULL);
	calls = make(&part_scheduling, task, 0);
	at = 0;
	assert_int_equal(
		*(uint8_t *)calls_at(&calls, next_call(&calls, &at, SYS_sched_setaffinity, 0)->arguments[2]),
		0xff);
	assert_int_equal(next_call(&calls, &at, SYS_sched_setaffinity, 0)->result,
			 -EINVAL); /* this result is allowed */
	calls_free(&calls);
	core->cpu_affinity.len = 1025;
	assert_check(&part_scheduling, task, "more CPUs");
	core->has_cpu_affinity = false;
	core->cpu_affinity = (ProtobufCBinaryData){ 0 };
	free_task(task);
}

/* Privileges are dropped last, except for calls that need none. */
static void order_of_parts(void **state unused)
{
	size_t credentials = 0, limits_at = 0, scheduling_at = 0, pending = 0, set = 0, made = 0;

	for (size_t i = 0; i < task_part_count; i++) {
		const struct task_part *part = task_parts[i];

		credentials = part == &part_credentials ? i : credentials;
		limits_at = part == &part_limits ? i : limits_at;
		scheduling_at = part == &part_scheduling ? i : scheduling_at;
		pending = part == &part_pending_signals ? i : pending;
		made = part == &part_posix_timers ? i : made;
		set = part == &part_posix_timers_set ? i : set;
		assert_non_null(part->name);
	}
	assert_true(scheduling_at < limits_at && limits_at < credentials && made < credentials);
	assert_true(made < pending && pending < set && credentials < pending);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(credentials_in_order, start_clean),
		cmocka_unit_test_setup(credentials_of_our_own, start_clean),
		cmocka_unit_test_setup(parent_death_signals, start_clean),
		cmocka_unit_test_setup(credentials_refused, start_clean),
		cmocka_unit_test_setup(signal_actions, start_clean),
		cmocka_unit_test_setup(signal_stacks, start_clean),
		cmocka_unit_test_setup(too_few_actions, start_clean),
		cmocka_unit_test_setup(pending_in_order, start_clean),
		cmocka_unit_test_setup(pending_refused, start_clean),
		cmocka_unit_test_setup(pending_of_timers, start_clean),
		cmocka_unit_test_setup(timers_get_their_ids, start_clean),
		cmocka_unit_test_setup(timers_refused, start_clean),
		cmocka_unit_test_setup(limits, start_clean),
		cmocka_unit_test_setup(scheduling, start_clean),
		cmocka_unit_test_setup(order_of_parts, start_clean),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
