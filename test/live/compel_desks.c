/*
 * compel_desks.c - many threads work at desks, and meanwhile something happens to them or to the tracer.
 *
 * In each batch one thread makes a long call (select(), which leaves no restart block), so that there is time for that.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "compel_check.h"

#define LASTS	 200000 /* microseconds */
#define AFTER	 50000	/* microseconds until something happens */
#define FOR_EVER 1000	/* seconds */

struct batch {
	struct thread_calls lists[PARASITE_LISTS];
	struct remote_call calls[PARASITE_LISTS][2];
	int64_t time[2]; /* struct timeval of the thread that is slow */
};

/* Every thread except the first returns its id; the last one first makes the long call. */
static int work(struct victim *victim, long seconds, long microseconds)
{
	struct batch batch = { .time = { seconds, microseconds } };
	size_t count = min(victim->thread_count - 1, (size_t)PARASITE_LISTS), last = count - 1;
	int result;

	for (size_t i = 0; i < count; i++) {
		batch.calls[i][0] = (struct remote_call){ SYS_getppid, {}, 0 };
		batch.calls[i][1] = (struct remote_call){ SYS_gettid, {}, 0 };
		batch.lists[i] = (struct thread_calls){ i + 1, CALL_ABI_64, batch.calls[i], 2, NULL, 0 };
	}
	batch.calls[last][0] =
		(struct remote_call){ SYS_select, { 0, 0, 0, 0, victim_desk(victim, last) }, 0 };
	batch.lists[last].bytes = (char *)batch.time;
	batch.lists[last].size = sizeof(batch.time);
	result = victim_call_threads(victim, batch.lists, count);
	for (size_t i = 0; i < count && !result; i++)
		if (batch.calls[i][1].result != victim->threads[i + 1].tid)
			return fail(EINVAL, "gettid() is %ld in thread %d", batch.calls[i][1].result,
				    victim->threads[i + 1].tid);
	return result;
}

static int go_in(struct victim *victim, pid_t pid)
{
	int result = victim_freeze(victim, pid, trace_deadline(5));

	return result ?: victim_infect(victim);
}

/* Another process sends these signals while the threads work. */
static pid_t send_later(pid_t pid, int signal, int then)
{
	pid_t other = fork();

	if (other)
		return other;
	usleep(AFTER);
	kill(pid, signal);
	usleep(AFTER);
	if (then)
		kill(pid, then);
	_exit(0);
}

/* ---- a signal arrives ---- */

static void stopped(void)
{
	pid_t pid = start_victim(tale, do_everything), other;
	struct victim victim;
	int result = go_in(&victim, pid);

	other = send_later(pid, SIGSTOP, 0);
	result = result ?: work(&victim, 0, LASTS);
	waitpid(other, NULL, 0);
	result = first_error(result, thaw(&victim));
	wait_for_state(pid, 'T');
	check(!result && state_of(pid) == 'T', "SIGSTOP meets threads at desks", "result %d, state %c",
	      result, state_of(pid));
	kill(pid, SIGCONT);
	check(!tale_is_bad(), "… and they go on", "%s", tale_is_bad());
	victim_free(&victim);
	kill(child_of(pid), SIGKILL);
	end(pid);
}

static void stopped_and_continued(void)
{
	pid_t pid = start_victim(tale, do_everything), other;
	uint64_t began = microseconds();
	struct victim victim;
	int result = go_in(&victim, pid);

	other = send_later(pid, SIGSTOP, SIGCONT);
	result = result ?: work(&victim, 0, LASTS);
	waitpid(other, NULL, 0);
	result = first_error(result, thaw(&victim));
	check(!result && !tale_is_bad(), "SIGSTOP and SIGCONT meet threads at desks",
	      "result %d after %lu us, %s", result, (unsigned long)(microseconds() - began), tale_is_bad());
	victim_free(&victim);
	kill(child_of(pid), SIGKILL);
	end(pid);
}

static void killed(void)
{
	pid_t pid = start_victim(tale, have_many_threads), other;
	uint64_t began = microseconds();
	struct victim victim;
	int result = go_in(&victim, pid), worked;

	other = send_later(pid, SIGKILL, 0);
	worked = result ?: work(&victim, FOR_EVER, 0);
	waitpid(other, NULL, 0);
	failure_clear();
	ignore(thaw(&victim)); /* it is dead */
	failure_clear();
	victim_free(&victim);
	check(!result && worked < 0 && microseconds() - began < 5000000, "threads are killed at desks",
	      "result %d, %d, after %lu us", result, worked, (unsigned long)(microseconds() - began));
	end(pid);
}

/* ---- the tracer dies ---- */

static void *begin_to_trace(pid_t pid, pid_t *tracer)
{
	int ready[2];
	char byte = 0;

	if (pipe(ready) || !(*tracer = fork())) {
		struct victim victim;

		if (go_in(&victim, pid) || write(ready[1], "x", 1) != 1)
			_exit(1);
		_exit(work(&victim, 0, LASTS) < 0);
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		byte = 0;
	close(ready[0]);
	return byte ? tale : NULL;
}

/*
 * The tracer dies while threads are at desks: nothing may be left in the process, and each call lasts as long as it
 * should.
 */
static void orphan(const struct blocking_call *call)
{
	autofree char *name = format_text("%s, orphaned at a desk", call->name);
	pid_t pid = start_blocking_thread(tale, call), tracer;
	struct look before = look_when_settled(pid);
	const char *wrong;

	usleep(150000);
	wrong = begin_to_trace(pid, &tracer) ? NULL : "the tracer failed";
	usleep(AFTER);
	end(tracer);
	usleep(LASTS - AFTER);
	wrong = wrong ?: went_wrong(pid, &before);
	check(!wrong, name, "%s", wrong);
	free_look(&before);
	end_blocking(pid, call, "in a thread, orphaned at a desk", LASTS / 1000, true);
}

static void visit_thread(const struct blocking_call *call)
{
	pid_t pid = start_blocking_thread(tale, call);
	struct victim victim;
	int result;

	usleep(150000);
	result = go_in(&victim, pid);
	result = result ?: work(&victim, 0, 1000);
	result = first_error(result, thaw(&victim));
	victim_free(&victim);
	if (result)
		check(false, call->name, "the visit: %s", strerror(-result));
	end_blocking(pid, call, "in a thread, visited at a desk", 0, false);
}

static void trace_batches(pid_t pid)
{
	for (;;) {
		struct victim victim;
		int result = go_in(&victim, pid);

		result = result ?: question(&victim);
		result = result ?: thaw(&victim);
		if (result < 0)
			_exit(1);
		victim_free(&victim);
	}
}

/* Kills the tracer at random moments of several batches. */
static void kill_in_batches(const char *name, void (*run)(struct tale *), int times)
{
	pid_t pid = start_victim(tale, run);
	struct look before = look_when_settled(pid);
	const char *wrong = NULL;
	int done = 0, status = 0;

	for (; done < times && !wrong; done++) {
		pid_t tracer = fork();

		if (!tracer)
			trace_batches(pid);
		usleep(2000 + (unsigned)random() % 40000);
		kill(tracer, SIGKILL);
		waitpid(tracer, &status, 0);
		wrong = !WIFSIGNALED(status) ? "the tracer failed" : went_wrong(pid, &before);
		if (!wrong && !goes_on(&tale->ticks[0]))
			wrong = "it does not go on";
		if (!wrong && (tale->wrong_calls || tale->wrong_stack))
			wrong = "a call failed, or a stack changed";
	}
	check(!wrong, name, "after %d times: %s (call %ld: %s)", done, wrong, tale->wrong_call,
	      strerror((int)tale->wrong_error));
	free_look(&before);
	end(pid);
}

void check_desks(int kills)
{
	visit_and_check("stacks side by side", have_stacks_side_by_side, 5);
	visit_and_check("threads with a seccomp filter", filter_threads, 5);
	stopped();
	stopped_and_continued();
	killed();
	for (int index = 0; index < blocking_call_count; index++) {
		visit_thread(&blocking_calls[index]);
		orphan(&blocking_calls[index]);
	}
	kill_in_batches("the tracer of many threads is killed", have_many_threads, kills);
	kill_in_batches("the tracer of threads with stacks side by side is killed", have_stacks_side_by_side,
			kills);
}
