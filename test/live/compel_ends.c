/*
 * compel_ends.c - victims that are stopped, that are traced already, that are killed while the test traces them, or
 * whose tracer dies while they still have calls to make.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "compel_check.h"

#define STOPPED_TIMES 2000
#define VISITED_TIMES 300

static void stopped_process(void)
{
	pid_t pid = start_victim(tale, count);
	struct victim victim;
	int result;

	kill(pid, SIGSTOP);
	wait_for_state(pid, 'T');
	result = victim_freeze(&victim, pid, trace_deadline(5));
	check(!result && victim.threads[0].was_stopped && victim.threads[0].stop_signal == SIGSTOP,
	      "a stopped process is seen as stopped", "result %d", result);
	result = victim_infect(&victim);
	result = result ?: question(&victim);
	check(!result, "a stopped process can be asked", "result %d", result);
	result = thaw(&victim);
	wait_for_state(pid, 'T');
	usleep(20000);
	check(!result && state_of(pid) == 'T', "… stays stopped", "result %d, state %c", result,
	      state_of(pid));
	kill(pid, SIGCONT);
	check(goes_on(&tale->ticks[0]), "… and goes on after SIGCONT", "it does not");
	victim_free(&victim);
	end(pid);
}

static void thaw_stopped(void)
{
	pid_t pid = start_victim(tale, count_with_vectors);
	struct victim victim;
	int result = victim_freeze(&victim, pid, trace_deadline(5));
	long before;

	result = result ?: victim_infect(&victim);
	result = result ?: victims_thaw(&(struct victim *){ &victim }, 1, true);
	wait_for_state(pid, 'T');
	before = tale->ticks[3];
	usleep(20000);
	check(!result && state_of(pid) == 'T' && before == tale->ticks[3], "left stopped", "result %d",
	      result);
	kill(pid, SIGCONT);
	check(goes_on(&tale->ticks[3]) && !tale->wrong_registers, "… and goes on after SIGCONT",
	      "it does not");
	victim_free(&victim);
	end(pid);
}

static void signals_while_frozen(void)
{
	pid_t pid = start_victim(tale, handle_signals);
	struct victim victim;
	int result = victim_freeze(&victim, pid, trace_deadline(5));

	result = result ?: victim_infect(&victim);
	kill(pid, SIGUSR1);
	result = result ?: question(&victim);
	kill(pid, SIGSTOP);
	result = result ?: question(&victim);
	check(!result && !tale->signals, "signals stay pending", "result %d, %d handled", result,
	      tale->signals);
	result = thaw(&victim);
	wait_for_state(pid, 'T');
	check(!result && state_of(pid) == 'T', "SIGSTOP is obeyed afterwards", "state %c", state_of(pid));
	kill(pid, SIGCONT);
	check(goes_on(&tale->ticks[0]) && tale->signals == 1, "a handler runs afterwards, once", "%d times",
	      tale->signals);
	victim_free(&victim);

	result = victim_freeze(&victim, pid, trace_deadline(5));
	result = result ?: victim_infect(&victim);
	kill(pid, SIGSTOP);
	kill(pid, SIGCONT);
	result = result ?: question(&victim);
	result = first_error(result, thaw(&victim));
	check(!result && goes_on(&tale->ticks[0]), "SIGSTOP and SIGCONT while frozen", "result %d", result);
	victim_free(&victim);
	end(pid);
}

/* How often the failure that is recorded names this process. */
static int times_named(pid_t pid)
{
	autofree char *name = format_text("process %d", pid);
	int count = 0;

	for (const char *at = failure_text(); (at = strstr(at, name)); at++)
		count++;
	return count;
}

/* Functions on one process leave the name to the caller; victims_cure(), which tells nobody who failed, names it. */
static void killed_while_infected(void)
{
	pid_t pid = start_victim(tale, count_with_vectors);
	struct remote_call call = { SYS_getpid, {}, 0 };
	struct victim victim, *victims[] = { &victim };
	int result = victim_freeze(&victim, pid, trace_deadline(5));

	result = result ?: victim_infect(&victim);
	kill(pid, SIGKILL);
	check(!result && victim_call(&victim, &call, 1) < 0, "a killed process is an error", "result %d",
	      result);
	check(!times_named(pid), "… which does not name the process", "%s", failure_text());
	failure_clear();
	result = victims_cure(victims, 1);
	check(result < 0 && times_named(pid) == 1, "… unless nobody else can", "result %d, %s", result,
	      failure_text());
	failure_clear();
	ignore(victims_thaw(victims, 1, false)); /* the process may have ended */
	failure_clear();
	victim_free(&victim);
	check(waitpid(pid, NULL, 0) == pid, "… and can be reaped", "it cannot");

	pid = start_victim(tale, count_with_vectors);
	result = victim_freeze(&victim, pid, trace_deadline(5));
	result = result ?: victim_infect(&victim);
	result = result ?: victim_kill(&victim);
	victim_free(&victim);
	check(!result && waitpid(pid, NULL, 0) == pid, "victim_kill", "result %d", result);
}

static void traced_already(void)
{
	pid_t pid = start_victim(tale, count), debugger = 0;
	struct victim victim;
	char report[1024];
	int ready[2];

	if (pipe(ready) || !(debugger = fork())) {
		ptrace(PTRACE_SEIZE, pid, 0, 0);
		if (write(ready[1], "x", 1))
			pause();
	}
	if (read(ready[0], report, 1) != 1)
		abort();
	check(victim_freeze(&victim, pid, trace_deadline(1)) == -EBUSY, "a traced process is refused",
	      "it is not");
	failure_report(report, sizeof(report), "", NULL);
	check(strstr(report, "compel_test") != NULL, "… and the tracer is named", "%s", report);
	failure_clear();
	end(debugger);
	close(ready[0]);
	close(ready[1]);
	end(pid);
}

/*
 * Another process sends SIGCONT all the time. The victim still must not run before its stop is complete, nor afterwards
 * while it is traced.
 */
static void stopped_among_signals(void)
{
	pid_t pid = start_victim(tale, count), other = fork();
	struct victim victim;
	int result = 0;
	bool has_run = false;

	if (!other)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (!other)
		kill(pid, SIGCONT);
	for (int time = 0; time < STOPPED_TIMES && !result && !has_run; time++) {
		long before;

		result = victim_freeze(&victim, pid, trace_deadline(5));
		before = tale->ticks[0];
		if (!result)
			result = victim_stop(&victim, time % 2 ? SIGSTOP : SIGTSTP);
		if (result == STOP_COUNTERMANDED)
			result = 0;
		has_run = tale->ticks[0] != before;
		result = first_error(result, thaw(&victim));
		victim_free(&victim);
	}
	check(!result && !has_run, "stopped while another process sends SIGCONT", "%s",
	      has_run ? "it has run" : strerror(-result));
	end(other);
	end(pid);
}

/* SIGCONT makes every traced thread stop once more, also those that work for the tracer. */
static void visited_among_signals(void)
{
	pid_t pid = start_victim(tale, do_everything), other = fork();
	int result = 0, time = 0;

	if (!other)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (!other) {
		kill(pid, SIGCONT);
		usleep(10000);
	}
	for (; time < VISITED_TIMES && !result; time++)
		result = visit(pid);
	end(other);
	for (int i = 0; i < 7 && !result; i++)
		if (!goes_on(&tale->ticks[i]))
			result = -EIO;
	check(!result && !tale->wrong_registers && !tale->wrong_calls && !tale->wrong_stack,
	      "visited while another process sends SIGCONT",
	      "%s after %d times; registers %ld, calls %ld (%ld: %s), stack %ld", strerror(-result), time,
	      tale->wrong_registers, tale->wrong_calls, tale->wrong_call, strerror((int)tale->wrong_error),
	      tale->wrong_stack);
	kill(child_of(pid), SIGKILL);
	end(pid);
}

static void leave_something_to_do(pid_t pid)
{
	const uint64_t size = 24; /* struct robust_list_head */
	struct remote_call calls[] = { { SYS_set_robust_list, { 0, size }, 0 },
				       { SYS_set_tid_address, { 0 }, 0 } };
	const struct remote_call back[] = { { SYS_set_robust_list, { 0, size }, 0 },
					    { SYS_set_tid_address, { 0 }, 0 } };
	struct victim victim;
	int result = victim_freeze(&victim, pid, trace_deadline(5));

	result = result ?: victim_infect(&victim);
	for (size_t i = 0; !result && i < victim.thread_count; i++)
		result = victim_call_for_now(&victim, i, calls, 2, back, 2);
	_exit(result < 0);
}

/* After the tracer's death the thread makes its calls on a stack that only its own PKRU register lets it use. */
static void keyed_stack(void)
{
	pid_t pid = start_victim(tale, have_keyed_stack), tracer;
	int result = 0, status = 0;

	for (int time = 0; tale->result >= 0 && time < 5 && !result && !status; time++) {
		result = visit(pid);
		tracer = fork();
		if (!tracer)
			leave_something_to_do(pid);
		waitpid(tracer, &status, 0);
		if (!goes_on(&tale->ticks[0]) || !goes_on(&tale->ticks[1]))
			result = -EFAULT;
	}
	if (tale->result < 0)
		printf("   ... no protection keys here\n");
	check(!result && !status, "a stack with a protection key", "%s, the tracer ended with %d",
	      strerror(-result), status);
	end(pid);
}

/* The only kind of process that cannot be visited (Documentation/blobs.md): it must be unharmed. */
static void no_room_at_all(void)
{
	pid_t pid = start_victim(tale, forbid_writable_code_and_data);
	int result = visit(pid);

	failure_clear();
	if (tale->result < 0) { /* before Linux 6.3 */
		printf("   ... no PR_SET_MDWE here\n");
		end(pid);
		return;
	}
	check(result == -ENOMEM && goes_on(&tale->ticks[0]) && state_of(pid) == 'R',
	      "neither writable code nor more data", "%s, state %c", strerror(-result), state_of(pid));
	end(pid);
}

void check_ends(unused int kills)
{
	no_room_at_all();
	stopped_among_signals();
	visited_among_signals();
	keyed_stack();
	stopped_process();
	thaw_stopped();
	signals_while_frozen();
	killed_while_infected();
	traced_already();
}
