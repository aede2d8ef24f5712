/*
 * mapping_watch.c - counts the system calls of a process that may change its mappings. See mapping_watch.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/io.h"
#include "base/memory.h"
#include "kernel/mapping_watch.h"
#include "kernel/proc.h"
#include "kernel_constants.h"

#define TRACEPOINT "events/raw_syscalls/sys_exit/id"
#define PASSES	   8 /* passes over the threads, while some start and end */

struct watched_thread {
	pid_t tid;
	int event;
};

struct mapping_watch {
	struct watched_thread *threads;
	size_t count;
};

/*
 * Calls that change mappings, or flags in the VmFlags of smaps. Calls that create processes are among them: pages
 * become shared with a relative.
 *
 * What another process can do to this one is not among them: its process_madvise() moves pages, but changes no flag of
 * a mapping. Neither is ioctl(), which can register a mapping with a userfaultfd; criu does not use those flags here.
 * An io_uring can call madvise() in a thread of the kernel: see dump_take_areas_ahead().
 *
 * The architecture has more of them: arch_mapping_calls.
 */
static const int calls[] = { SYS_mmap,
			     SYS_munmap,
			     SYS_mremap,
			     SYS_mprotect,
			     SYS_pkey_mprotect,
			     SYS_brk,
			     SYS_madvise,
			     SYS_process_madvise,
			     SYS_mlock,
			     SYS_mlock2,
			     SYS_munlock,
			     SYS_mlockall,
			     SYS_munlockall,
			     SYS_prctl,
			     SYS_mbind,
			     SYS_set_mempolicy_home_node,
			     SYS_remap_file_pages,
			     SYS_shmat,
			     SYS_shmdt,
			     SYS_io_setup,
			     SYS_io_destroy,
			     SYS_io_uring_setup,
			     SYS_io_uring_enter,
			     SYS_io_uring_register,
			     CALL_MAP_SHADOW_STACK,
			     CALL_MSEAL,
			     SYS_execve,
			     SYS_execveat,
			     SYS_clone,
			     SYS_clone3 };

char *mapping_watch_filter(void)
{
	char *filter = NULL;
	size_t size = 0;
	FILE *text = open_memstream(&filter, &size);

	for (size_t i = 0; i < array_size(calls); i++)
		fprintf(text, "id == %d || ", calls[i]);
	for (size_t i = 0; i < arch_mapping_call_count; i++)
		fprintf(text, "id == %d || ", arch_mapping_calls[i]);
	fputs(arch_mapping_condition, text);
	fclose(text);
	return filter;
}

/* tracefs need not be mounted, and this does not mount it visibly: the mount is detached. */
int mapping_watch_tracepoint(void)
{
	autoclose int context = fsopen("tracefs", FSOPEN_CLOEXEC), tracefs = -1;
	autofree char *number = NULL;
	ssize_t length;

	if (context < 0 || fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -errno;
	tracefs = fsmount(context, FSMOUNT_CLOEXEC, 0);
	if (tracefs < 0)
		return -errno;
	length = read_text_at(tracefs, TRACEPOINT, &number);
	return length < 0 ? length : atoi(number);
}

static bool is_watched(const struct mapping_watch *watch, pid_t tid)
{
	for (size_t i = 0; i < watch->count; i++)
		if (watch->threads[i].tid == tid)
			return true;
	return false;
}

/*
 * A thread that this thread creates before the filter is set inherits the event (`inherit`). Events count from
 * PERF_EVENT_IOC_ENABLE on, which reaches the inherited ones, too.
 */
static int watch_thread(struct mapping_watch *watch, int tracepoint, pid_t tid)
{
	struct perf_event_attr attributes = {
		.type = PERF_TYPE_TRACEPOINT,
		.size = sizeof(attributes),
		.config = tracepoint,
		.disabled = 1,
		.inherit = 1,
	};
	autofree char *filter = mapping_watch_filter();
	int event = syscall(SYS_perf_event_open, &attributes, tid, -1, -1, PERF_FLAG_FD_CLOEXEC);

	if (event < 0)
		return errno == ESRCH ? 0 : -errno; /* it has ended */
	*grow(&watch->threads, &watch->count) = (struct watched_thread){ tid, event };
	if (ioctl(event, PERF_EVENT_IOC_SET_FILTER, filter) < 0 || ioctl(event, PERF_EVENT_IOC_ENABLE, 0) < 0)
		return -errno;
	return 0;
}

/*
 * 1 if all threads are watched now. A list read while threads end can have gaps, so it must be as long as the number of
 * threads before. If all threads in it were watched already, the list was complete, and threads that started since are
 * children of watched threads.
 */
static int watch_pass(struct mapping_watch *watch, int tracepoint, int proc)
{
	autofree pid_t *threads = NULL;
	struct proc_status status;
	bool was_everybody;
	size_t count = 0;
	int result = proc_read_status(proc, &status);

	if (result)
		return result;
	proc_status_free(&status);
	result = proc_read_threads(proc, &threads, &count);
	was_everybody = count == status.threads;
	for (size_t i = 0; !result && i < count; i++) {
		if (is_watched(watch, threads[i]))
			continue;
		was_everybody = false;
		result = watch_thread(watch, tracepoint, threads[i]);
	}
	return result ?: was_everybody;
}

int mapping_watch_open(struct mapping_watch **opened, int tracepoint, int proc)
{
	struct mapping_watch *watch = allocate(sizeof(*watch));
	int result = 0;

	for (int pass = 0; !result && pass < PASSES; pass++) {
		if (pass > 1) /* a thread is ending: still listed, but it can no longer be watched */
			usleep(500);
		result = watch_pass(watch, tracepoint, proc);
	}
	if (result > 0) {
		*opened = watch;
		return 0;
	}
	mapping_watch_close(watch);
	return result ?: -EAGAIN;
}

/* An event also counts for the children of its thread, and keeps the count after the thread has ended. */
int mapping_watch_count(const struct mapping_watch *watch, uint64_t *calls_made)
{
	*calls_made = 0;
	for (size_t i = 0; i < watch->count; i++) {
		uint64_t count;
		int result = read_all(watch->threads[i].event, &count, sizeof(count));

		if (result)
			return result;
		*calls_made += count;
	}
	return 0;
}

void mapping_watch_close(struct mapping_watch *watch)
{
	if (!watch)
		return;
	for (size_t i = 0; i < watch->count; i++)
		close(watch->threads[i].event);
	free(watch->threads);
	free(watch);
}
