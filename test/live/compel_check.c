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

/* A leader can be reaped when its tracer, us, has reaped its threads: whatever compel forgot shows here, and is no reason to hang. */
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

/* ---- a visit ---- */

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
		return fail(EINVAL, "getcwd() gave something else");
	for (size_t index = 0; index < victim->thread_count; index++) {
		calls[0].number = SYS_gettid;
		result = victim_call_thread(victim, index, calls, 2);
		if (result < 0)
			return result;
		if (calls[0].result != victim->threads[index].tid)
			return fail(EINVAL, "gettid() is %ld in thread %d", calls[0].result,
				    victim->threads[index].tid);
	}
	return 0;
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
		victim_thaw(&victim);
	else
		result = victim_thaw(&victim);
	victim_free(&victim);
	return result;
}
