/*
 * compel_ends.c - victims that are stopped, traced, killed while somebody traces them, or whose tracer dies with something left to do.
 */
#include <errno.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "compel_check.h"

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
	result = victim_thaw(&victim);
	wait_for_state(pid, 'T');
	usleep(20000);
	check(!result && state_of(pid) == 'T', "… stays stopped", "result %d, state %c", result,
	      state_of(pid));
	kill(pid, SIGCONT);
	check(goes_on(&tale->ticks[0]), "… and goes on when told", "it does not");
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
	result = result ?: victim_thaw_stopped(&victim);
	wait_for_state(pid, 'T');
	before = tale->ticks[3];
	usleep(20000);
	check(!result && state_of(pid) == 'T' && before == tale->ticks[3], "left stopped", "result %d",
	      result);
	kill(pid, SIGCONT);
	check(goes_on(&tale->ticks[3]) && !tale->wrong_registers, "… and goes on when told", "it does not");
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
	check(!result && !tale->signals, "signals wait", "result %d, %d handled", result, tale->signals);
	result = victim_thaw(&victim);
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
	result = first_error(result, victim_thaw(&victim));
	check(!result && goes_on(&tale->ticks[0]), "SIGSTOP and SIGCONT while frozen", "result %d", result);
	victim_free(&victim);
	end(pid);
}

static void killed_while_infected(void)
{
	pid_t pid = start_victim(tale, count_with_vectors);
	struct remote_call call = { SYS_getpid, {}, 0 };
	struct victim victim;
	int result = victim_freeze(&victim, pid, trace_deadline(5));

	result = result ?: victim_infect(&victim);
	kill(pid, SIGKILL);
	check(!result && victim_call(&victim, &call, 1) < 0, "a killed process is an error", "result %d",
	      result);
	failure_clear();
	victim_thaw(&victim);
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

void check_ends(void)
{
	stopped_process();
	thaw_stopped();
	signals_while_frozen();
	killed_while_infected();
	traced_already();
}
