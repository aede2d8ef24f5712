/*
 * compel_check.c - see compel_check.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "compel_check.h"

int failures;
struct tale *tale;

void check(bool is_right, const char *name, const char *format, ...)
{
	char report[2048];
	va_list arguments;

	if (is_right) {
		printf("ok %s\n", name);
		return;
	}
	failures++;
	printf("FAIL %s: ", name);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	failure_report(report, sizeof(report), "", NULL);
	printf(" %s\n", report);
	failure_clear();
}

uint64_t microseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000ULL + now.tv_nsec / 1000;
}

/*
 * A leader can only be reaped when its tracer (this test) has reaped its threads. If compel has forgotten one, the
 * check fails here, and the test does not hang.
 */
void end(pid_t pid)
{
	uint64_t deadline = microseconds() + 10000000;

	kill(pid, SIGKILL);
	while (!waitpid(pid, NULL, WNOHANG)) {
		if (microseconds() > deadline) {
			check(false, "a victim that was killed can be reaped", "%d cannot", pid);
			return;
		}
		usleep(100);
	}
}

bool goes_on(volatile long *ticks)
{
	long before = *ticks;

	for (int wait = 0; wait < 2000 && *ticks == before; wait++)
		usleep(1000);
	return *ticks != before;
}

uint64_t status_number(pid_t pid, const char *key)
{
	autofree char *path = format_text("/proc/%d/status", pid), *status = NULL;
	char *found;

	if (read_text_at(AT_FDCWD, path, &status) < 0 || !(found = strstr(status, key)))
		return (uint64_t)-1;
	return strtoull(found + strlen(key), NULL, 10);
}

char state_of(pid_t pid)
{
	autofree char *path = format_text("/proc/%d/status", pid), *status = NULL;

	return read_text_at(AT_FDCWD, path, &status) < 0 ? '-' : strstr(status, "State:\t")[7];
}

int first_error(int one, int other)
{
	return one < 0 ? one : other;
}

void wait_for_state(pid_t pid, char state)
{
	for (int wait = 0; wait < 1000 && state_of(pid) != state; wait++)
		usleep(1000);
}

pid_t child_of(pid_t pid)
{
	autofree char *path = format_text("/proc/%d/task/%d/children", pid, pid), *text = NULL;

	return read_text_at(AT_FDCWD, path, &text) > 0 ? (pid_t)strtol(text, NULL, 10) : 0;
}

/* ---- a visit ---- */

/* Asks many threads at the same time for their ids and directories. */
static int question_threads(struct victim *victim, size_t first, size_t count)
{
	struct remote_call calls[PARASITE_LISTS][2];
	struct thread_calls lists[PARASITE_LISTS];
	char names[PARASITE_LISTS][32], directory[4096];
	int result;

	for (size_t i = 0; i < count; i++) {
		calls[i][0] = (struct remote_call){ SYS_gettid, {}, 0 };
		calls[i][1] =
			(struct remote_call){ SYS_getcwd, { victim_desk(victim, i), sizeof(names[i]) }, 0 };
		lists[i] = (struct thread_calls){ first + i, CALL_ABI_64, calls[i],
						  2,	     names[i],	  sizeof(names[i]) };
		memset(names[i], 'x', sizeof(names[i]));
	}
	result = victim_call_threads(victim, lists, count);
	for (size_t i = 0; i < count && !result; i++)
		if (calls[i][0].result != victim->threads[first + i].tid ||
		    (calls[i][1].result > 0 ? strcmp(names[i], getcwd(directory, sizeof(directory))) :
					      calls[i][1].result != -ERANGE))
			return fail(EINVAL, "gettid() is %ld in thread %d, where %.32s", calls[i][0].result,
				    victim->threads[first + i].tid, names[i]);
	return result;
}

int question(struct victim *victim)
{
	uint64_t scratch = victim_scratch(victim, NULL);
	struct remote_call calls[] = { { SYS_getpid, {}, 0 },
				       { SYS_gettid, {}, 0 },
				       { SYS_getcwd, { scratch, 4096 }, 0 } };
	char directory[4096], own[4096];
	int result = victim_call(victim, calls, array_size(calls));

	if (result < 0)
		return result;
	if (calls[0].result != victim->pid || calls[2].result <= 0)
		return fail(EINVAL, "getpid() is %ld, getcwd() is %ld", calls[0].result, calls[2].result);
	result = victim_read(victim, scratch, directory, calls[2].result);
	if (result < 0 || strcmp(directory, getcwd(own, sizeof(own))))
		return fail(EINVAL, "getcwd() returned another directory");
	for (size_t first = 0; first < victim->thread_count && !result; first += PARASITE_LISTS)
		result = question_threads(victim, first,
					  min(victim->thread_count - first, (size_t)PARASITE_LISTS));
	return result;
}

int thaw(struct victim *victim)
{
	return victims_thaw(&victim, 1, false);
}

int visit(pid_t pid)
{
	struct victim victim;
	int result = victim_freeze(&victim, pid, trace_deadline(5));

	if (result < 0)
		return result;
	result = victim_infect(&victim);
	if (!result)
		result = question(&victim);
	if (!result)
		result = victim_cure(&victim);
	if (result < 0)
		ignore(thaw(&victim)); /* the first failure is reported */
	else
		result = thaw(&victim);
	victim_free(&victim);
	return result;
}
