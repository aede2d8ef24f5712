/*
 * compel_test.c - a process must not notice that it was traced: the test stops, infects, cures and releases victims of
 * many kinds, and kills the tracer at random moments.
 *
 *	make BUILD=build && gcc -std=gnu11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Icriu -Iinclude -Icompel \
 *		-o /tmp/compel_test test/live/compel_*.c build/objects/criu.a -lprotobuf-c
 *	/tmp/compel_test [KILLS [PART]]	(as root; 300 kills and all parts by default)
 *
 * Prints one line for each check: `ok NAME` or `FAIL NAME: why`. The exit code is 1 if any failed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "compel_check.h"

#define STORMED_TIMES 3000
#define LONGEST	      5000 /* milliseconds, of a call that the test itself ends */

/* ---- what a process looks like from outside ---- */

static void append(char **text, const char *more)
{
	char *both = format_text("%s%s", *text, more);

	free(*text);
	*text = both;
}

static void list(char **text, pid_t pid, const char *name,
		 void (*add)(char **text, pid_t pid, const char *entry))
{
	autofree char *path = format_text("/proc/%d/%s", pid, name);
	struct dirent **entries;
	int count = scandir(path, &entries, NULL, alphasort);

	for (int index = 0; index < count; index++) {
		if (entries[index]->d_name[0] != '.')
			add(text, pid, entries[index]->d_name);
		free(entries[index]);
	}
	if (count >= 0)
		free(entries);
}

static void add_file(char **text, pid_t pid, const char *entry)
{
	autofree char *path = format_text("/proc/%d/fd/%s", pid, entry), *target = NULL, *line = NULL;

	if (read_link_at(AT_FDCWD, path, &target) < 0)
		return;
	line = format_text("%s %s\n", entry, target);
	append(text, line);
}

/* The signals that a thread blocks. */
static void add_mask(char **text, pid_t pid, const char *entry)
{
	autofree char *path = format_text("/proc/%d/task/%s/status", pid, entry), *status = NULL,
		      *line = NULL;
	char *blocked;

	if (read_text_at(AT_FDCWD, path, &status) < 0 || !(blocked = strstr(status, "SigBlk:")))
		return;
	blocked[strcspn(blocked, "\n")] = '\0';
	line = format_text("%s %s\n", entry, blocked);
	append(text, line);
}

struct look look_at(pid_t pid)
{
	autofree char *path = format_text("/proc/%d/maps", pid);
	struct look look = { .files = copy_text(""), .masks = copy_text("") };

	if (read_text_at(AT_FDCWD, path, &look.maps) < 0)
		look.maps = copy_text("");
	list(&look.files, pid, "fd", add_file);
	list(&look.masks, pid, "task", add_mask);
	return look;
}

void free_look(struct look *look)
{
	free(look->maps);
	free(look->files);
	free(look->masks);
}

static const char *difference(const struct look *now, const struct look *before)
{
	if (strcmp(now->maps, before->maps))
		return "its mappings";
	if (strcmp(now->files, before->files))
		return "its descriptors";
	return strcmp(now->masks, before->masks) ? "its signal masks" : NULL;
}

/* What has changed, or NULL. */
static const char *differs(pid_t pid, const struct look *before)
{
	struct look now = look_at(pid);
	const char *what = difference(&now, before);

	if (what && getenv("VERBOSE"))
		printf("before:\n%s%s%snow:\n%s%s%s", before->maps, before->files, before->masks, now.maps,
		       now.files, now.masks);
	free_look(&now);
	return what;
}

/* Looks until nothing changes: a thread that is being created has all signals blocked for a moment. */
struct look look_when_settled(pid_t pid)
{
	struct look look = look_at(pid);

	for (;;) {
		usleep(50000);
		if (!differs(pid, &look))
			return look;
		free_look(&look);
		look = look_at(pid);
	}
}

/* ---- the whole journey ---- */

void visit_and_check(const char *name, void (*run)(struct tale *), int times)
{
	pid_t pid = start_victim(tale, run);
	struct look before = look_at(pid);
	const char *different = NULL;
	int result = 0;

	for (int time = 0; time < times && !result && !different; time++) {
		result = visit(pid);
		if (!goes_on(&tale->ticks[0]))
			different = "it does not go on";
		else if (!(different = differs(pid, &before)) && (tale->wrong_registers || tale->wrong_stack))
			different = "its registers or stack";
		else if (!different && tale->wrong_calls)
			different = "calls that failed";
	}
	check(!result && !different, name, "%s", different ? different : strerror(-result));
	free_look(&before);
	end(pid);
}

/* ---- calls that block ---- */

static void check_blocking(const struct blocking_call *call, const char *how, long longest)
{
	autofree char *name = format_text("%s, %s", call->name, how);
	uint64_t limit = microseconds() + 5000000;

	while (!tale->is_done && microseconds() < limit)
		usleep(1000);
	check(tale->is_done && tale->result == call->result &&
		      (call->result >= 0 || tale->error == call->error) &&
		      tale->milliseconds >= call->milliseconds - 3 && tale->milliseconds <= longest,
	      name, "result %ld (%s) after %ld ms", tale->result,
	      tale->result < 0 ? strerror((int)tale->error) : "", tale->milliseconds);
}

void end_blocking(pid_t pid, const struct blocking_call *call, const char *how, long away, bool is_orphaned)
{
	bool begins_again = call->begins_again == ALWAYS ||
			    (is_orphaned && call->begins_again == WHEN_ORPHANED);

	usleep(250000);
	if (call->signal)
		kill(pid, call->signal);
	check_blocking(call, how,
		       call->signal ? LONGEST : call->milliseconds + away + (begins_again ? 300 : 100));
	end(pid);
}

static void visit_blocking(const struct blocking_call *call)
{
	pid_t pid = start_blocking(tale, call);

	usleep(150000);
	if (visit(pid) < 0)
		check(false, call->name, "the visit");
	end_blocking(pid, call, "visited", 0, false);
}

static int freeze_once(struct victim *victim, pid_t pid)
{
	return victim_freeze(victim, pid, trace_deadline(5));
}

/*
 * Freezes the victim twice, on the same CPU as the test, so that it does not run in between. The second freeze finds it
 * in a state that otherwise occurs only on a busy machine: the kernel has prepared restart_syscall() on the way to user
 * mode, and the thread has not made that call yet.
 */
static int freeze_before_restart(struct victim *victim, pid_t pid, bool was_in_user_mode)
{
	const struct sched_param none = { 0 };
	struct user_regs_struct registers;
	cpu_set_t one;
	int result;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	sched_setaffinity(0, sizeof(one), &one);
	sched_setaffinity(pid, sizeof(one), &one);
	sched_setscheduler(pid, SCHED_IDLE, &none);
	result = victim_freeze(victim, pid, trace_deadline(5));
	registers = victim->threads[0].context.registers.user;
	if (!result && (long)registers.rax == -516) { /* ERESTART_RESTARTBLOCK */
		registers.rax = SYS_restart_syscall;
		registers.rip -= 2;
		if (was_in_user_mode)
			registers.orig_rax = ~0UL;
		result = ptrace(PTRACE_SETREGS, pid, 0, &registers) < 0 ? -errno : 0;
	}
	result = result ?: thaw(victim);
	victim_free(victim);
	result = result ?: victim_freeze(victim, pid, trace_deadline(5));
	sched_setscheduler(pid, SCHED_OTHER, &none);
	return result;
}

static int freeze_on_its_way(struct victim *victim, pid_t pid)
{
	return freeze_before_restart(victim, pid, false);
}

static int freeze_in_user_mode(struct victim *victim, pid_t pid)
{
	return freeze_before_restart(victim, pid, true);
}

/* Another process infects the victim and is killed. */
static void orphan_blocking(const struct blocking_call *call, const char *how,
			    int (*freeze)(struct victim *, pid_t), long away)
{
	pid_t pid = start_blocking(tale, call), tracer = 0;
	const char *different;
	struct victim victim;
	struct look before;
	int ready[2];
	char byte;

	usleep(150000);
	before = look_at(pid);
	if (pipe(ready) || !(tracer = fork())) {
		if (!freeze(&victim, pid) && !victim_infect(&victim) && !question(&victim))
			byte = 'x';
		if (write(ready[1], &byte, 1))
			pause();
	}
	if (read(ready[0], &byte, 1) != 1 || byte != 'x')
		check(false, call->name, "the infection");
	end(tracer);
	close(ready[0]);
	close(ready[1]);
	for (int attempt = 0; (different = differs(pid, &before)) && attempt < 100; attempt++)
		usleep(10000); /* the victim needs a moment to leave the parasite */
	if (different)
		check(false, call->name, "orphaned: %s", different);
	free_look(&before);
	end_blocking(pid, call, how, away, true);
}

/* The kernel grows the stack for the tracer as it would for a signal, so its mapping may differ afterwards. */
static void little_stack(void)
{
	pid_t pid = start_victim(tale, have_little_stack);
	int result = visit(pid);

	result = result ?: visit(pid);
	check(!result && goes_on(&tale->ticks[0]), "a stack without room", "%s", strerror(-result));
	end(pid);
}

static void stormed(void)
{
	pid_t pid = start_victim(tale, be_stormed);
	struct victim victim;
	int result = 0, time;

	for (time = 0; time < STORMED_TIMES && !result; time++) {
		result = victim_freeze(&victim, pid, trace_deadline(5)) ?: thaw(&victim);
		victim_free(&victim);
	}
	check(!result && goes_on(&tale->ticks[0]), "signals of timers meet the freeze", "after %d times: %s",
	      time, strerror(-result));
	end(pid);
}

/* A tracer that waits for a stop sleeps until it comes, or until the deadline. */
static void late_stop(void)
{
	pid_t pid = start_victim(tale, wait_in_vfork);
	struct rusage before, after;
	uint64_t began = microseconds(), waited;
	struct victim victim;
	long switches;
	int result = victim_freeze(&victim, pid, trace_deadline(0.1));

	waited = microseconds() - began;
	check(result == -ETIMEDOUT && waited > 90000 && waited < 900000,
	      "a thread that does not stop in time", "%s after %lu us", strerror(-result),
	      (unsigned long)waited);
	check(strstr(failure_text(), "waits in vfork()"), "a thread that waits in vfork() is named", "%s",
	      failure_text());
	failure_clear();
	end(pid);
	pid = start_victim(tale, wait_in_vfork);
	getrusage(RUSAGE_SELF, &before);
	began = microseconds();
	result = victim_freeze(&victim, pid, trace_deadline(5));
	waited = microseconds() - began;
	getrusage(RUSAGE_SELF, &after);
	switches = after.ru_nvcsw - before.ru_nvcsw;
	check(!result && waited > VFORK_MILLISECONDS * 1000 / 2 && switches < 40,
	      "a tracer that waits for a stop sleeps", "%s after %lu us and %ld times", strerror(-result),
	      (unsigned long)waited, switches);
	ignore(thaw(&victim)); /* it ends here */
	victim_free(&victim);
	end(pid);
}

static void growing_threads(void)
{
	pid_t pid = start_victim(tale, grow_threads);
	int result = 0;

	for (int time = 0; time < 10 && !result; time++) {
		result = visit(pid);
		if (!goes_on(&tale->ticks[0]))
			result = -EIO;
	}
	check(!result, "threads that make threads", "%s", strerror(-result));
	end(pid);
}

static void calls_of_threads(void)
{
	pid_t pid = start_victim(tale, count_with_vectors);
	struct remote_call call = { SYS_getppid, {}, 0 };
	struct victim victim;
	int result = victim_freeze(&victim, pid, trace_deadline(5));

	result = result ?: victim_infect(&victim);
	result = result ?: victim_call_thread(&victim, 3, &call, 1);
	check(!result && call.result == getpid(), "getppid() in the fourth thread", "%ld", call.result);
	ignore(thaw(&victim)); /* it ends here */
	victim_free(&victim);
	end(pid);
}

/* ---- the tracer dies ---- */

/* Freezes both processes, as a dump does, again and again. */
static void trace_for_ever(pid_t pid, pid_t child)
{
	for (;;) {
		struct victim one, other;
		int result = victim_freeze(&one, pid, trace_deadline(5));

		if (!result)
			result = victim_freeze(&other, child, trace_deadline(5));
		result = result ?: victim_infect(&one);
		result = result ?: question(&one);
		result = result ?: victim_infect(&other);
		result = result ?: question(&other);
		result = result ?: victim_cure(&one);
		result = result ?: thaw(&other);
		result = result ?: thaw(&one);
		if (result < 0)
			_exit(1);
		victim_free(&one);
		victim_free(&other);
	}
}

const char *went_wrong(pid_t pid, const struct look *before)
{
	/* The way home takes longer on a busy machine. */
	uint64_t limit = microseconds() + 3000000;
	const char *different = NULL;

	do {
		different = state_of(pid) == 'T' || state_of(pid) == 't' ? "it is stopped" :
			    status_number(pid, "TracerPid:")		 ? "it is traced" :
									   differs(pid, before);
		if (!different)
			return NULL;
		usleep(1000);
	} while (microseconds() < limit);
	return different;
}

const char *tale_is_bad(void)
{
	for (int index = 0; index < 7; index++) {
		if (!goes_on(&tale->ticks[index]))
			return "a thread does not go on";
	}
	if (tale->wrong_registers)
		return "vector registers";
	if (tale->wrong_calls)
		return "a call failed";
	return tale->wrong_stack ? "a stack, a mask or an alternate stack" : NULL;
}

static void kill_the_tracer(int times)
{
	pid_t pid = start_victim(tale, do_everything), child = child_of(pid);
	struct look before = look_when_settled(pid), child_before = look_at(child);
	const char *wrong = NULL;
	int done = 0, status = 0;

	for (; done < times && !wrong; done++) {
		pid_t tracer = fork();

		if (!tracer)
			trace_for_ever(pid, child);
		usleep(200 + (unsigned)random() % 6000);
		kill(tracer, SIGKILL);
		waitpid(tracer, &status, 0);
		if (!WIFSIGNALED(status))
			wrong = "the tracer failed";
		wrong = wrong ?: went_wrong(pid, &before);
		wrong = wrong ?: went_wrong(child, &child_before);
		wrong = wrong ?: tale_is_bad();
	}
	check(!wrong, "the tracer is killed",
	      "after %d times: %s (call %ld: %s; registers %ld, calls %ld, stack %ld)", done, wrong,
	      tale->wrong_call, strerror((int)tale->wrong_error), tale->wrong_registers, tale->wrong_calls,
	      tale->wrong_stack);
	free_look(&before);
	free_look(&child_before);
	printf("   … epoll_wait saw %ld of the kernel's own EINTR\n", tale->interrupted);
	kill(child, SIGKILL);
	end(pid);
}

/* ---- speed ---- */

static void frozen_time(void)
{
	pid_t pid = start_victim(tale, count);
	struct remote_call calls[100];
	struct victim victim;
	uint64_t best = UINT64_MAX;

	for (int round = 0; round < 100; round++) {
		uint64_t start = microseconds();

		for (size_t index = 0; index < array_size(calls); index++)
			calls[index] = (struct remote_call){ SYS_getppid, {}, 0 };
		if (victim_freeze(&victim, pid, trace_deadline(5)) || victim_infect(&victim) ||
		    victim_call(&victim, calls, array_size(calls)) || victim_cure(&victim) || thaw(&victim))
			break;
		best = min(best, microseconds() - start);
		victim_free(&victim);
	}
	check(best < 2000, "freeze, infect, 100 calls, cure, thaw", "%lu us", (unsigned long)best);
	printf("   … in %lu us\n", (unsigned long)best);
	end(pid);
}

static void check_visits(unused int kills)
{
	visit_and_check("one thread", count, 20);
	visit_and_check("eight threads with vector registers", count_with_vectors, 20);
	visit_and_check("many threads", have_many_threads, 5);
	visit_and_check("no descriptors left", have_no_descriptors, 5);
	visit_and_check("no writable code (MDWE)", forbid_writable_code, 5);
	visit_and_check("a seccomp filter", filter_calls, 5);
	visit_and_check("no code to use", have_little_code, 5);
	little_stack();
	visit_and_check("threads, memory, a child", do_everything, 20);
	growing_threads();
	stormed();
	late_stop();
	calls_of_threads();
	frozen_time();
}

static void check_blocking_calls(unused int kills)
{
	for (int index = 0; index < blocking_call_count; index++)
		visit_blocking(&blocking_calls[index]);
	for (int index = 0; index < blocking_call_count; index++)
		orphan_blocking(&blocking_calls[index], "orphaned", freeze_once, 0);
	for (int index = 0; index < blocking_call_count; index++) {
		orphan_blocking(&blocking_calls[index], "orphaned before its restart", freeze_on_its_way,
				200);
		if (blocking_calls[index].is_told_by_code)
			orphan_blocking(&blocking_calls[index], "orphaned at its restart",
					freeze_in_user_mode, 200);
	}
}

static const struct {
	const char *name;
	void (*check)(int kills);
} parts[] = {
	{ "visits", check_visits }, { "ends", check_ends },	{ "calls", check_blocking_calls },
	{ "desks", check_desks },   { "groups", check_groups }, { "kills", kill_the_tracer },
};

int main(int count_of_arguments, char **arguments)
{
	const char *only = count_of_arguments > 2 ? arguments[2] : NULL;
	int kills = count_of_arguments > 1 ? atoi(arguments[1]) : 300;

	error_init();
	setvbuf(stdout, NULL, _IOLBF, 0);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	tale = mmap(NULL, sizeof(*tale), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	srandom((unsigned)getpid());

	for (size_t index = 0; index < array_size(parts); index++)
		if (!only || !strcmp(only, parts[index].name))
			parts[index].check(kills);
	printf("%d failed\n", failures);
	return failures ? 1 : 0;
}
