/*
 * compel_groups.c - many processes are infected, asked and cured at the same time, and meanwhile something happens to
 * one of them or to the tracer.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "compel_check.h"

#define MEMBERS	     12
#define VISITS	     20
#define SIGNAL_TIMES 60
#define KILL_TIMES   40
#define LARGE_GROUP  150 /* more than can work at the same time */

/* A group of programs that never sleep would block a small machine. */
static void nap(struct tale *tale)
{
	tale->is_ready = 1;
	for (;;) {
		usleep(500);
		tale->ticks[0]++;
	}
}

/*
 * They are infected in different ways: without a socket, without writable code, with many threads. The last two are
 * not used with a tracer that is killed: blobs.md tells what may stay of borrowed code, and what a filter does then.
 */
static void (*const sorts[])(struct tale *) = { nap,	     have_no_descriptors, forbid_writable_code,
						nap,	     have_many_threads,	  have_little_code,
						filter_calls };
#define SORTS		array_size(sorts)
#define SORTS_TO_ORPHAN (SORTS - 2)

struct member {
	pid_t pid;
	struct tale *tale;
	struct look before;
};

static struct member members[LARGE_GROUP];
static size_t member_count;
static bool is_mixed;

static void start_member(struct member *member, size_t index)
{
	member->tale = mmap(NULL, sizeof(*member->tale), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			    -1, 0);
	member->pid = start_victim(member->tale, is_mixed ? sorts[index % SORTS] : nap);
	member->before = is_mixed ? look_when_settled(member->pid) : look_at(member->pid);
}

static void end_member(struct member *member)
{
	end(member->pid);
	munmap(member->tale, sizeof(*member->tale));
	free_look(&member->before);
}

static void start_group(size_t count, bool mixed)
{
	is_mixed = mixed;
	member_count = count;
	for (size_t i = 0; i < count; i++)
		start_member(&members[i], i);
}

static void end_group(void)
{
	for (size_t i = 0; i < member_count; i++)
		end_member(&members[i]);
}

/* NULL if all members are unchanged and run. The one with index `dead` is not checked. */
static const char *group_is_bad(size_t dead)
{
	for (size_t i = 0; i < member_count; i++) {
		const struct tale *its = members[i].tale;
		const char *wrong = i == dead ? NULL : went_wrong(members[i].pid, &members[i].before);

		if (!wrong && i != dead && !goes_on(&members[i].tale->ticks[0]))
			wrong = "it does not go on";
		if (!wrong && i != dead && (its->wrong_registers || its->wrong_calls || its->wrong_stack))
			wrong = "its registers, calls or stack";
		if (wrong)
			return wrong;
	}
	return NULL;
}

/* ---- a visit to all ---- */

struct visit {
	struct victim victims[LARGE_GROUP], *pointers[LARGE_GROUP];
	size_t count, failed;
	struct process_calls processes[LARGE_GROUP];
	struct remote_call calls[LARGE_GROUP][2];
};

static int freeze(struct visit *visit)
{
	int result = 0;

	visit->count = 0;
	for (size_t i = 0; i < member_count && !result; i++) {
		result = victim_freeze(&visit->victims[i], members[i].pid, trace_deadline(30));
		visit->pointers[i] = &visit->victims[i];
		visit->count += !result;
	}
	visit->failed = visit->count; /* no member: this index is set by a failure of a single one */
	return result;
}

static int ask(struct visit *visit)
{
	int result;

	for (size_t i = 0; i < visit->count; i++) {
		visit->calls[i][0] = (struct remote_call){ SYS_getpid, {}, 0 };
		visit->calls[i][1] = (struct remote_call){ SYS_gettid, {}, 0 };
		visit->processes[i] = (struct process_calls){
			visit->pointers[i], { 0, CALL_ABI_64, visit->calls[i], 2, NULL, 0 }
		};
	}
	result = victims_call(visit->processes, visit->count, &visit->failed);
	for (size_t i = 0; i < visit->count && !result; i++)
		if (visit->calls[i][0].result != members[i].pid ||
		    visit->calls[i][1].result != members[i].pid)
			return fail(EINVAL, "getpid() is %ld in process %d", visit->calls[i][0].result,
				    members[i].pid);
	return result;
}

/* Thaws all, also after a failure. `with_questions`: single questions follow, which resume the parked parasites. */
static int visit_group(struct visit *visit, bool with_questions)
{
	int result = freeze(visit);

	result = result ?: victims_infect(visit->pointers, visit->count, &visit->failed);
	result = result ?: ask(visit);
	for (size_t i = 0; i < visit->count && !result && with_questions; i += 2)
		result = question(visit->pointers[i]);
	result = result ?: victims_cure(visit->pointers, visit->count);
	result = first_error(result, victims_thaw(visit->pointers, visit->count, false));
	for (size_t i = 0; i < visit->count; i++)
		victim_free(visit->pointers[i]);
	return result;
}

static void visits(const char *name, size_t count, bool mixed, int times)
{
	autofree struct visit *visit = allocate(sizeof(*visit));
	const char *wrong = NULL;
	int result = 0;

	start_group(count, mixed);
	for (int time = 0; time < times && !result && !wrong; time++) {
		result = visit_group(visit, time % 2);
		wrong = group_is_bad(count);
	}
	check(!result && !wrong, name, "%s", wrong ? wrong : strerror(-result));
	end_group();
}

/* ---- something happens to one ---- */

static pid_t start_other(void (*act)(pid_t pid), pid_t pid)
{
	pid_t other = fork();

	if (other)
		return other;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	srand((unsigned)getpid());
	act(pid);
	_exit(0);
}

static void stop_and_continue(pid_t pid)
{
	for (;;) {
		kill(pid, SIGSTOP);
		usleep(rand() % 3000);
		kill(pid, SIGCONT);
		usleep(rand() % 3000);
	}
}

static void stopped_and_continued(void)
{
	autofree struct visit *visit = allocate(sizeof(*visit));
	const char *wrong = NULL;
	int result = 0, time = 0;

	start_group(MEMBERS, false);
	for (; time < SIGNAL_TIMES && !result && !wrong; time++) {
		pid_t pid = members[time % MEMBERS].pid, other = start_other(stop_and_continue, pid);

		result = visit_group(visit, time % 2);
		end(other);
		kill(pid, SIGCONT);
		wrong = group_is_bad(MEMBERS);
	}
	check(!result && !wrong, "one of a group is stopped and continued", "after %d times: %s", time,
	      wrong ? wrong : strerror(-result));
	end_group();
}

static void stop_soon(pid_t pid)
{
	usleep(rand() % 4000);
	kill(pid, SIGSTOP);
}

/* Afterwards that process is stopped, and the others run. */
static void stopped(void)
{
	autofree struct visit *visit = allocate(sizeof(*visit));
	const char *wrong = NULL;
	int result = 0, time = 0;

	start_group(MEMBERS, false);
	for (; time < SIGNAL_TIMES && !result && !wrong; time++) {
		pid_t pid = members[time % MEMBERS].pid, other = start_other(stop_soon, pid);

		result = visit_group(visit, false);
		waitpid(other, NULL, 0);
		wait_for_state(pid, 'T');
		if (state_of(pid) != 'T')
			wrong = "it is not stopped";
		kill(pid, SIGCONT);
		wrong = wrong ?: group_is_bad(MEMBERS);
	}
	check(!result && !wrong, "one of a group is stopped", "after %d times: %s", time,
	      wrong ? wrong : strerror(-result));
	end_group();
}

static void kill_soon(pid_t pid)
{
	usleep(rand() % (rand() % 2 ? 6000 : 40000));
	kill(pid, SIGKILL);
}

/* A failed visit tells which process was killed: by its index, or else in the message. */
static const char *blames_another(const struct visit *visit, size_t index)
{
	autofree char *name = format_text(" %d", members[index].pid);
	autofree char *process = format_text("process %d", members[index].pid);
	bool is_told = visit->failed < visit->count;

	if (is_told && visit->failed != index)
		return "another one has failed";
	if (is_told && strstr(failure_text(), process))
		return "the failure names it: the caller would name it again";
	return is_told || strstr(failure_text(), name) ? NULL : "the failure does not name it";
}

/* The others are unharmed, and the killed one can be reaped. */
static void killed(void)
{
	autofree struct visit *visit = allocate(sizeof(*visit));
	const char *wrong = NULL;
	int failed = 0, time = 0;

	start_group(MEMBERS, false);
	for (; time < KILL_TIMES && !wrong; time++) {
		size_t index = time % MEMBERS;
		pid_t other = start_other(kill_soon, members[index].pid);

		if (visit_group(visit, false)) {
			failed++;
			wrong = blames_another(visit, index);
		}
		failure_clear();
		waitpid(other, NULL, 0);
		end_member(&members[index]);
		wrong = wrong ?: group_is_bad(index);
		start_member(&members[index], index);
	}
	check(!wrong, "one of a group is killed", "after %d times: %s", time, wrong);
	printf("   … %d of %d visits failed\n", failed, time);
	end_group();
}

/* ---- the tracer dies ---- */

static void trace_for_ever(void)
{
	struct visit *visit = allocate(sizeof(*visit));

	for (;;)
		if (visit_group(visit, true))
			_exit(1);
}

static void kill_the_tracer_of(const char *name, bool mixed, int times)
{
	const char *wrong = NULL;
	int done = 0, status = 0;

	start_group(mixed ? SORTS_TO_ORPHAN : MEMBERS, mixed);
	for (; done < times && !wrong; done++) {
		pid_t tracer = fork();

		if (!tracer)
			trace_for_ever();
		usleep(200 + (unsigned)random() % (mixed ? 60000 : 12000));
		kill(tracer, SIGKILL);
		waitpid(tracer, &status, 0);
		wrong = WIFSIGNALED(status) ? group_is_bad(member_count) : "the tracer failed";
	}
	check(!wrong, name, "after %d times: %s", done, wrong);
	end_group();
}

void check_groups(int kills)
{
	visits("a group", MEMBERS, false, VISITS);
	visits("a group of different sorts", SORTS, true, 4);
	visits("a group of many", LARGE_GROUP, false, 3);
	stopped();
	stopped_and_continued();
	killed();
	kill_the_tracer_of("the tracer of a group is killed", false, kills);
	kill_the_tracer_of("the tracer of a group of different sorts is killed", true, kills / 4);
}
