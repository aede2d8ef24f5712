/*
 * rings.c - AIO rings (io_setup) of the tasks: finds them, and waits until no request is in flight, before memory is
 * saved.
 *
 * The parasite counts the requests in flight (blobs/parasite/ring.c). For that it needs to know how many slots of a
 * ring can be in use at once. That depends on the length of the ring and on the CPUs of this machine, so criu creates
 * its own ring of each length to find out. A request that never completes (a poll of a pipe that is never written)
 * makes the dump fail at --timeout.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"
#include "compel.h"
#include "dump/dump.h"
#include "image/message.h"
#include "kernel/proc.h"
#include "memory/aio.h"

#define FIRST_PAUSE 500	     /* microseconds between two counts; doubled each time */
#define LAST_PAUSE  50000    /* … until here */
#define SHORT_WAIT  50000000 /* nanoseconds, for a pre-dump, which can do without */

/* ---- look ---- */

static bool has_mapping_of(const struct task *task, const struct vma *vma)
{
	for (size_t i = 0; i < task->space->vmas.count; i++) {
		const struct vma *other = &task->space->vmas.items[i];

		if (other != vma && other->device == vma->device && other->inode == vma->inode)
			return true;
	}
	return false;
}

/* After a fork the child has the mapping, too, but the ring belongs to the parent. */
int dump_describe_ring(const struct dump *dump, const struct task *task, struct vma *vma)
{
	for (const struct task *other = dump->is_pre_dump ? NULL : task; other; other = other->parent)
		if (has_mapping_of(other, vma))
			return refuse(
				"process %d (%s): memory at %#" PRIx64
				" is part of an AIO ring of process %d that is mapped more than once: not supported yet",
				task->here, task->name, vma->start, other->here);
	vma->status |= VMA_AIO_RING;
	vma->file_flags = O_RDWR; /* as criu 4.2 writes it */
	return 0;
}

void dump_ring_entries(struct task *task)
{
	for (size_t i = 0; i < task->space->vmas.count; i++) {
		const struct vma *vma = &task->space->vmas.items[i];
		AioRingEntry *entry;

		if (!(vma->status & VMA_AIO_RING))
			continue;
		entry = message_new(AioRingEntry, aio_ring_entry);
		entry->id = vma->start;
		entry->nr_req = aio_most_requests(vma_length(vma));
		entry->ring_len = (uint32_t)vma_length(vma);
		*grow(&task->space->mm->aios, &task->space->mm->n_aios) = entry;
	}
}

/* ---- settle ---- */

/*
 * The mapping may belong to the ring of another process (a parent that has ended), or to a ring that was destroyed:
 * then the kernel knows no such ring.
 */
static int check_ring(struct task *task, const struct vma *vma)
{
	struct remote_call reading = { SYS_io_getevents, { vma->start, 0, 0, 0, 0 }, 0 };
	struct aio_header header;
	int result = victim_call(task->victim, &reading, 1);

	if (result)
		return result;
	if (reading.result < 0)
		return fail((int)-reading.result,
			    "it was not created by this process, which is not supported yet");
	result = victim_read(task->victim, vma->start, &header, sizeof(header));
	if (!result && (vma->offset || aio_check_header(&header, vma_length(vma))))
		return fail(EINVAL, "it is damaged, or only a part of it is mapped");
	return result;
}

static int count_in_flight(struct task *task, const struct vma *vma, uint32_t most, long *count)
{
	struct remote_call counting = {
		CALL_COUNT_REQUESTS,
		{ vma->start, aio_slots(vma_length(vma)), most },
		0,
	};
	int result = victim_call(task->victim, &counting, 1);

	*count = counting.result;
	if (!result && counting.result == -ENOSYS)
		return fail(0,
			    "its requests in flight cannot be counted: the process has no free descriptor");
	if (!result && counting.result < 0)
		return fail((int)-counting.result, "cannot count the requests in flight");
	return result;
}

static int settle_ring(struct dump *dump, struct task *task, const struct vma *vma, uint64_t deadline)
{
	unsigned pause = FIRST_PAUSE;
	uint32_t most;
	long count;
	int result = check_ring(task, vma) ?:
					     aio_find_most(&dump->memory.ring_lengths, vma_length(vma), &most);

	while (!result) {
		result = count_in_flight(task, vma, most, &count);
		if (result || !count)
			break;
		if (monotonic_time() > deadline) {
			fail_advice("a longer --timeout");
			return fail(0, "%ld requests are still in flight", count);
		}
		log_debug("process %d: %ld requests are in flight in the AIO ring at %#" PRIx64, task->here,
			  count, vma->start);
		result = interrupt_check();
		usleep(pause);
		pause = min(2 * pause, (unsigned)LAST_PAUSE);
	}
	return result;
}

static int settle_task(struct dump *dump, struct task *task, uint64_t deadline)
{
	for (size_t i = 0; i < task->space->vmas.count; i++) {
		const struct vma *vma = &task->space->vmas.items[i];
		int result = 0;

		if (vma->status & VMA_AIO_RING)
			result = settle_ring(dump, task, vma, deadline);
		if (result)
			return fail_in(result, "AIO ring at %#" PRIx64, vma->start);
	}
	return 0;
}

int dump_settle_rings(void *context)
{
	struct dump *dump = context;
	uint64_t deadline = trace_deadline(dump->request->timeout);
	struct task *task;

	for_each_leader (task, &dump->snapshot, OBJECT_MEMORY) {
		int result = settle_task(dump, task, deadline);

		if (result)
			return fail_in(result, "process %d (%s)", task->here, task->name);
	}
	return 0;
}

/* ---- for a pre-dump ---- */

static bool is_of_io_uring(const struct vma *vma)
{
	return vma->path && !strncmp(vma->path, "anon_inode:[io_uring]", 21);
}

static bool has_rings(const struct task *task)
{
	for (size_t i = 0; i < task->space->vmas.count; i++)
		if (task->space->vmas.items[i].status & VMA_AIO_RING)
			return true;
	return false;
}

/*
 * Counting needs a process that shares the memory for a moment (blobs/parasite/ring.c). A seccomp filter may kill it,
 * and the task with it.
 */
static bool task_has_filter(const struct task *task)
{
	bool has_one = false;

	for (size_t i = 0; !has_one && i < task->thread_count; i++) {
		autoclose int proc = proc_open(task->threads[i].here);
		struct proc_status status = { 0 };

		has_one = proc < 0 || proc_read_status(proc, &status) || status.seccomp;
		proc_status_free(&status);
	}
	return has_one;
}

static int wait_for_rings(struct dump *dump, struct task *task)
{
	uint64_t deadline = monotonic_time() + SHORT_WAIT;
	int result = victim_infect(task->victim) ?: settle_task(dump, task, deadline);

	return task->victim->infection ? victim_cure(task->victim) ?: result : result;
}

/*
 * No tracker notices what a device writes for a request in flight. So a page could be read, and protected, before the
 * device writes it. True: no request is in flight, and none can be until the task runs again; or no such tracker is
 * used.
 */
bool dump_is_quiet(struct dump *dump, struct task *task)
{
	if (!dump->memory.increment.tracker || dump->memory.increment.tracker == &tracker_content)
		return true;
	for (size_t i = 0; i < task->space->vmas.count; i++)
		if (is_of_io_uring(&task->space->vmas.items[i]))
			return false;
	if (!has_rings(task))
		return true;
	return !attempted(task_has_filter(task)) && !attempted(wait_for_rings(dump, task));
}
