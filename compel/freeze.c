/*
 * freeze.c - stops all threads of a process together, and lets them go together.
 *
 * A running process may create threads meanwhile, so the list is read again until it has no new ones; a parked thread
 * creates none. Threads of the kernel that work for an io_uring are in the list, too (Linux 5.12). They can be traced,
 * but have no registers or stack of their own, so they are left alone.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include "base/error.h"
#include "base/index.h"
#include "base/log.h"
#include "base/memory.h"
#include "internal.h"

#define IO_WORKER     0x10 /* PF_IO_WORKER in the flags of /proc/TID/stat */
#define THAW_PATIENCE 0.1  /* seconds for a thread that did not stop in time, and has to be let go */

static int seize_thread(struct victim *victim, struct index *known, pid_t tid)
{
	struct traced_thread thread;
	int result = trace_seize(&thread, tid, true);

	if (result)
		return result;
	*grow(&victim->threads, &victim->thread_count) = thread;
	index_set(known, tid, victim);
	return 0;
}

static bool has_worker_flag(pid_t tid)
{
	autofree char *stat = NULL;
	const char *behind;
	unsigned flags;

	if (read_proc(tid, "stat", &stat) < 0)
		return false;
	behind = strrchr(stat, ')');
	return behind && sscanf(behind, ") %*c %*d %*d %*d %*d %*d %u", &flags) == 1 && flags & IO_WORKER;
}

/*
 * "iou-wrk-4711". Such a name is rare, so for nearly all threads the flags, which cost more, are not read. But a worker
 * that has just begun has the name of the process: when a worker must wait, the process makes another one, as soon as it
 * is interrupted. So where there is one, all threads behind it in the list may be workers.
 */
static bool is_worker(const struct victim *victim, pid_t tid)
{
	autofree char *name = NULL;

	if (!victim->worker_count && (read_proc(tid, "comm", &name) < 0 || strncmp(name, "iou-", 4) != 0))
		return false;
	return has_worker_flag(tid);
}

/* Seizes all threads that are not traced yet; returns how many. A thread that ends meanwhile does not count. */
static int seize_new(struct victim *victim, struct index *known)
{
	char path[64];
	struct dirent *entry;
	int found = 0, result = 0;
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%d/task", victim->pid);
	tasks = opendir(path);
	if (!tasks)
		return errno == ENOENT ? fail(ESRCH, "there is no process %d", victim->pid) :
					 fail(errno, "cannot list the threads of process %d", victim->pid);
	while (result >= 0 && (entry = readdir(tasks))) {
		pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);

		if (tid <= 0 || index_find(known, tid))
			continue;
		if (is_worker(victim, tid)) {
			*grow(&victim->workers, &victim->worker_count) = tid;
			index_set(known, tid, victim);
			continue;
		}
		result = seize_thread(victim, known, tid);
		if (!result)
			found++;
		else if (result == -ESRCH)
			result = 0;
	}
	closedir(tasks);
	return result < 0 ? result : found;
}

/* All threads are of the ABI that lists of calls have. */
static int check_abi(struct victim *victim, const struct traced_thread *thread)
{
	victim->abi = arch_call_abi(&thread->context.registers);
	if (victim->abi == CALL_ABI_64)
		return 0;
	return fail(EOPNOTSUPP, "thread %d runs %s code, which is not supported", thread->tid,
		    arch_abi_name(victim->abi));
}

static int wait_for_all(struct victim *victim, struct index *known, size_t first, uint64_t deadline)
{
	size_t kept = first;
	int result = 0;

	for (size_t index = first; index < victim->thread_count; index++) {
		struct traced_thread *thread = &victim->threads[index];
		int waited = result < 0 ? 0 : trace_wait(thread, deadline);

		if (waited == -ESRCH && thread->tid != victim->pid) {
			trace_free_context(&thread->context);
			index_remove(known, thread->tid);
			continue;
		}
		if (waited == -ESRCH)
			waited = fail(ESRCH, "process %d has ended, or its first thread has", victim->pid);
		if (!waited && !result)
			waited = check_abi(victim, thread);
		result = first_failure(result, waited);
		victim->threads[kept++] = *thread;
	}
	victim->thread_count = kept;
	return result;
}

static int freeze_all(struct victim *victim, struct index *known, uint64_t deadline)
{
	int result = seize_thread(victim, known, victim->pid); /* the leader is the first */
	size_t waited_for = 0;

	if (result == -ESRCH)
		return fail(ESRCH, "process %d has ended, or its first thread has", victim->pid);
	while (result >= 0) {
		result = seize_new(victim, known);
		if (result < 0 || waited_for == victim->thread_count)
			break;
		result = wait_for_all(victim, known, waited_for, deadline);
		waited_for = victim->thread_count;
	}
	return result < 0 ? result : 0;
}

/* Best effort: the failure is recorded already, and a thread that does not stop now continues when criu ends. */
static void let_go_all(struct victim *victim)
{
	for (size_t index = victim->thread_count; index-- > 0;) {
		struct traced_thread *thread = &victim->threads[index];

		if (thread->is_seized && !thread->is_parked)
			ignore(trace_park(thread, trace_deadline(THAW_PATIENCE)));
		ignore(trace_release(thread));
	}
}

int victim_freeze(struct victim *victim, pid_t pid, uint64_t deadline)
{
	struct index known = { 0 };
	int result;

	*victim = (struct victim){ .pid = pid };
	result = freeze_all(victim, &known, deadline);
	index_free(&known);
	if (result < 0) {
		let_go_all(victim);
		victim_free(victim);
		return fail_in(result, "process %d", pid);
	}
	return 0;
}

static int release_victim(struct victim *victim)
{
	int result = 0;

	/* The leader comes last: if the process is dead, it can be reaped only when no other thread is left. */
	for (size_t index = victim->thread_count; index-- > 0;)
		result = first_failure(result, trace_release(&victim->threads[index]));
	return result;
}

/* A pending SIGSTOP reaches the first thread that is let go, and stops all of them. */
static int release_stopped_victim(struct victim *victim)
{
	int result = 0;

	if (!victim->threads[0].was_stopped && kill(victim->pid, SIGSTOP) < 0)
		result = fail(errno, "cannot stop process %d", victim->pid);
	return first_failure(result, release_victim(victim));
}

/* A group runs already while the next one is cured. */
int victims_thaw(struct victim *const *victims, size_t count, bool are_stopped)
{
	int result = 0;

	for (size_t first = 0; first < count; first += VICTIM_GROUP) {
		size_t end = min(first + VICTIM_GROUP, count);

		result = first_failure(result, victims_cure(victims + first, end - first));
		for (size_t i = first; i < end; i++)
			result = first_failure(result, are_stopped ? release_stopped_victim(victims[i]) :
								     release_victim(victims[i]));
	}
	return result;
}

/* A thread that cannot be tied is dying already. */
void victims_tie(struct victim *const *victims, size_t count)
{
	for (size_t i = 0; i < count; i++)
		ptrace(PTRACE_SETOPTIONS, victims[i]->pid, 0,
		       victims[i]->threads[0].options | PTRACE_O_EXITKILL);
}

int victim_kill(struct victim *victim)
{
	uint64_t deadline = trace_deadline(CALL_SECONDS);

	if (kill(victim->pid, SIGKILL) < 0 && errno != ESRCH)
		return fail(errno, "cannot kill process %d", victim->pid);
	/* The tracer must reap, the leader last; the parent is told afterwards. */
	for (size_t index = victim->thread_count; index-- > 0;) {
		struct traced_thread *thread = &victim->threads[index];

		if (thread->is_seized && trace_reap(thread, deadline) < 0)
			return fail(ETIMEDOUT, "thread %d was killed, but does not end", thread->tid);
		trace_free_context(&thread->context);
		thread->is_seized = thread->is_parked = false;
	}
	victim_forget(victim);
	return 0;
}

void victim_free(struct victim *victim)
{
	for (size_t index = 0; index < victim->thread_count; index++) {
		trace_free_context(&victim->threads[index].context);
		for_now_free(&victim->threads[index]);
	}
	victim_forget(victim);
	free(victim->threads);
	free(victim->workers);
	victim->threads = NULL;
	victim->workers = NULL;
	victim->thread_count = victim->worker_count = 0;
}
