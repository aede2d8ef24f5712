/*
 * ahead.c - reads the mappings of large processes while they still run, which shortens the time they are frozen.
 *
 * For VmFlags the kernel walks all page tables: 44 ms for 2 GiB of 4 KiB pages, Linux 6.18; 1.7 ms more for guard
 * regions. And it writes 25 lines for each mapping: 20 ms for 5,000 mappings. What was read ahead is still true for the
 * frozen process, if
 *
 *	1. it has made no system call meanwhile that changes mappings (kernel/mapping_watch.h), and
 *	2. /proc/PID/maps, which costs 0.05 ms for 100 mappings, has the same for each mapping. That shows stacks that
 *	   have grown, and exec: the file was opened first of all, and shows the memory that the process had then; and
 *	3. only its own threads run in its memory: no child shared it (vfork) when the watch began, and calls that
 *	   create processes are counted.
 *
 * Otherwise smaps is read again, as for small processes. Some members that page faults change (resident,
 * has_huge_pages, and has_relatives after the end of a relative) may be some milliseconds old. Only speed depends on
 * them.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/thread.h"
#include "compel.h"
#include "dump/dump.h"
#include "files/blockers.h"
#include "files/seen.h"
#include "ipc/ipc.h"
#include "kernel/mapping_watch.h"
#include "kernel/proc.h"

/*
 * What is less is not worth a watch. Beginning and ending it takes 0.1 ms for each thread, and 1,000 threads have 2,000
 * mappings for their stacks, which are read in 8 ms. So for each thread, there must be 20 us to be saved in addition.
 */
#define LARGE		 (64ULL << 20) /* resident bytes: 1.4 ms */
#define LARGE_FOR_THREAD (1ULL << 20)
#define MANY		 (32UL << 10) /* bytes of maps: 300 to 600 mappings, 2 ms */
#define MANY_FOR_THREAD	 400UL
#define ATTEMPTS	 3

struct process_ahead {
	pid_t here;
	int maps; /* /proc/PID/maps, opened first of all */
	struct mapping_watch *watch;
	uint64_t calls; /* calls that had ended before the following was read */
	struct vmas vmas;
	struct page_runs guards;
};

struct ahead {
	int tracepoint; /* 0: not looked up yet; -errno */
	struct process_ahead *processes;
	size_t count;
	struct index by_pid; /* of those */
};

static void free_areas(struct process_ahead *process)
{
	vmas_free(&process->vmas);
	page_runs_free(&process->guards);
	process->guards = (struct page_runs){ 0 };
}

static void free_process(struct process_ahead *process)
{
	mapping_watch_close(process->watch);
	if (process->maps >= 0)
		close(process->maps);
	free_areas(process);
}

/* From the number of links of its directory, so that no thread is read. */
static size_t count_threads(int proc)
{
	struct stat tasks;

	return fstatat(proc, "task", &tasks, 0) == 0 && tasks.st_nlink > 2 ? tasks.st_nlink - 2 : 1;
}

static bool has_much_memory(int proc, size_t threads)
{
	autofree char *text = NULL;
	unsigned long pages;

	return read_text_at(proc, "statm", &text) > 0 && sscanf(text, "%*u %lu", &pages) == 1 &&
	       pages >= (LARGE + threads * LARGE_FOR_THREAD) / PAGE_SIZE;
}

/* Nothing but maps tells how many: is there a byte so far behind its beginning? */
static bool has_many_mappings(int proc, size_t threads)
{
	autoclose int maps = openat(proc, "maps", O_RDONLY | O_CLOEXEC);
	char byte;

	return maps >= 0 && pread(maps, &byte, 1, MANY + threads * MANY_FOR_THREAD) == 1;
}

static bool is_large(int proc)
{
	size_t threads = count_threads(proc);

	return has_much_memory(proc, threads) || has_many_mappings(proc, threads);
}

static bool shares_memory(pid_t pid, const pid_t *children, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!syscall(SYS_kcmp, pid, children[i], KCMP_VM, 0, 0))
			return true;
	return false;
}

/* Reads the mappings. A process that has just changed something may be quiet on the next try. */
static int read_areas(struct process_ahead *process, int proc)
{
	int result = -EAGAIN;

	for (int attempt = 0; result == -EAGAIN && attempt < ATTEMPTS; attempt++) {
		uint64_t calls;

		free_areas(process);
		result = mapping_watch_count(process->watch, &process->calls)		 ?:
				 dump_read_areas(proc, &process->vmas, &process->guards) ?:
				 mapping_watch_count(process->watch, &calls);
		if (!result && calls != process->calls)
			result = -EAGAIN;
	}
	return result;
}

/* Children are listed when the watch is open: a child that has ended before then can no longer change anything. */
static int watch_process(struct ahead *ahead, struct process_ahead *process, int proc)
{
	autofree pid_t *children = NULL;
	size_t count = 0;
	int result;

	if (!ahead->tracepoint)
		ahead->tracepoint = mapping_watch_tracepoint();
	if (ahead->tracepoint < 0)
		return ahead->tracepoint;
	process->maps = openat(proc, "maps", O_RDONLY | O_CLOEXEC);
	if (process->maps < 0)
		return -errno;
	result = mapping_watch_open(&process->watch, ahead->tracepoint, proc) ?:
			 proc_read_children(proc, &children, &count);
	if (!result && shares_memory(process->here, children, count))
		return -EBUSY;
	return result ?: read_areas(process, proc);
}

static void read_process_ahead(struct ahead *ahead, pid_t pid, int proc)
{
	struct process_ahead process = { .here = pid, .maps = -1 };
	int result = attempted(watch_process(ahead, &process, proc));

	if (result) {
		log_debug("process %d: its mappings are not read ahead (error %d)", pid, -result);
		free_process(&process);
		return;
	}
	*grow(&ahead->processes, &ahead->count) = process;
}

void dump_list_tree(pid_t root, pid_t **pids, size_t *count)
{
	*grow(pids, count) = root;
	for (size_t i = 0; i < *count; i++) {
		autoclose int proc = proc_open((*pids)[i]);

		if (proc >= 0)
			attempted(proc_read_most_children(proc, pids, count));
	}
}

/* Directly before the freeze: reading ahead may have taken a second, and the tree may have grown. */
static int refuse_blockers(const struct dump *dump)
{
	autofree pid_t *pids = NULL;
	size_t count = 0;

	dump_list_tree(dump->request->root, &pids, &count);
	return files_refuse_blockers(&dump->snapshot, pids, count);
}

/*
 * The tree may still change: the freeze finds out. No error here makes the dump fail, but what must not be frozen is
 * refused.
 */
int dump_read_ahead(void *context)
{
	struct dump *dump = context;
	autofree pid_t *pids = NULL;
	size_t count = 0;

	dump->ahead = allocate(sizeof(*dump->ahead));
	dump_list_tree(dump->request->root, &pids, &count);
	if (!dump->is_pre_dump) {
		files_look_ahead(&dump->snapshot, pids, count);
		ipc_look_ahead(&dump->snapshot, pids, count);
	}
	for (size_t i = 0; i < count; i++) {
		autoclose int proc = proc_open(pids[i]);

		if (proc >= 0 && is_large(proc))
			read_process_ahead(dump->ahead, pids[i], proc);
	}
	for (size_t i = 0; i < dump->ahead->count; i++)
		index_set(&dump->ahead->by_pid, dump->ahead->processes[i].here, &dump->ahead->processes[i]);
	return refuse_blockers(dump);
}

static bool is_still_so(struct process_ahead *process)
{
	struct vmas now = { 0 };
	uint64_t calls;
	bool is_same = !mapping_watch_count(process->watch, &calls) && calls == process->calls &&
		       !attempted(proc_read_open_maps(process->maps, &now)) &&
		       vmas_are_same_in_maps(&process->vmas, &now);

	vmas_free(&now);
	return is_same;
}

bool dump_take_areas_ahead(struct dump *dump, struct task *task, struct page_runs *guards)
{
	struct process_ahead *process = dump->ahead ? index_find(&dump->ahead->by_pid, task->here) : NULL;

	if (!process)
		return false;
	/* A worker of an io_uring calls madvise() without being counted. */
	if (task->victim->worker_count || !is_still_so(process)) {
		log_debug("process %d: its mappings have changed since they were read ahead", task->here);
		return false;
	}
	log_debug("process %d: its mappings have not changed since they were read ahead", task->here);
	task->space->vmas = process->vmas;
	*guards = process->guards;
	process->vmas = (struct vmas){ 0 };
	process->guards = (struct page_runs){ 0 };
	return true;
}

static void *forget_process(void *context)
{
	struct ahead *ahead = context;

	for (size_t i = 0; i < ahead->count; i++)
		free_process(&ahead->processes[i]);
	free(ahead->processes);
	index_free(&ahead->by_pid);
	free(ahead);
	return NULL;
}

/* Ending a watch takes 35 - 50 ms, and nothing waits for it here. */
void dump_forget_ahead(void *context)
{
	struct dump *dump = context;
	struct ahead *ahead = steal_pointer(&dump->ahead);
	pthread_t thread;

	if (!ahead)
		return;
	if (ahead->count && !thread_start(&thread, forget_process, ahead))
		pthread_detach(thread);
	else
		forget_process(ahead);
}
