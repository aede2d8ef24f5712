/*
 * rings.c - AIO rings (io_setup) of the tasks: finds them, and waits until no request is in flight, before memory is
 * saved. Mappings of an io_uring, and of packet sockets: finds their files.
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
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "compel.h"
#include "dump/dump.h"
#include "files/kinds/io_uring.h"
#include "image/message.h"
#include "kernel/proc.h"
#include "memory/aio.h"
#include "sockets/packet.h"

#define FIRST_PAUSE 500	  /* microseconds between two counts; doubled each time */
#define LAST_PAUSE  50000 /* … until here */
#define MOST_ROUNDS 16
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

/*
 * A worker thread of the kernel that works for no request sleeps in io_wq_worker(). This also finds one that still
 * works for a ring that was closed. A worker that has ended meanwhile is not found. A thread that takes the requests of
 * a ring was looked at with the ring.
 */
static bool is_worker_idle(const struct snapshot *snapshot, pid_t worker)
{
	autoclose int proc = proc_open(worker);
	autofree char *text = NULL;

	return io_uring_knows_thread(snapshot, worker) || proc < 0 ||
	       read_text_at(proc, "wchan", &text) < 0 || !strcmp(text, "io_wq_worker") ||
	       !strcmp(text, "io_wqe_worker"); /* its name before Linux 6.4 */
}

static int settle_and_park(struct dump *dump, struct task *task, uint64_t deadline)
{
	int result = settle_task(dump, task, deadline);

	return result || !task->victim ? result : victims_park(&task->victim, 1);
}

static int settle_workers(struct dump *dump, struct task *task, uint64_t deadline)
{
	const struct victim *victim = task->victim;
	unsigned pause = FIRST_PAUSE;
	int result = 0;

	for (size_t i = 0; victim && !result && i < victim->worker_count; i++)
		while (!result && !is_worker_idle(&dump->snapshot, victim->workers[i])) {
			if (monotonic_time() > deadline)
				return fail(0, "thread %d of the kernel still works for an io_uring",
					    victim->workers[i]);
			usleep(pause);
			pause = min(2 * pause, (unsigned)LAST_PAUSE);
			result = interrupt_check();
		}
	return result;
}

static int settle_tasks(struct dump *dump, uint64_t deadline,
			int (*settle)(struct dump *dump, struct task *task, uint64_t deadline))
{
	struct task *task;

	for_each_leader (task, &dump->snapshot, OBJECT_MEMORY) {
		int result = settle(dump, task, deadline);

		if (result)
			return fail_in(result, "process %d (%s)", task->here, task->name);
	}
	return 0;
}

/* An io_uring comes behind AIO rings, because nobody may make a task run after it. */
int dump_settle_rings(void *context)
{
	struct dump *dump = context;
	uint64_t deadline = trace_deadline(dump->request->timeout);

	return settle_tasks(dump, deadline, settle_and_park)	  ?:
		       io_uring_settle(&dump->snapshot, deadline) ?:
		       settle_tasks(dump, deadline, settle_workers);
}

/* ---- io_uring, packet sockets ---- */

bool dump_is_of_io_uring(const struct vma *vma)
{
	return vma->path && !strncmp(vma->path, "anon_inode:[io_uring]", 21);
}

static int find_ring_of(struct dump *dump, const struct task *task, struct vma *vma)
{
	const struct file *file = io_uring_find(&dump->snapshot, vma->device, vma->inode);

	if (!file)
		return refuse("process %d (%s): memory at %#" PRIx64
			      " is part of an io_uring without a descriptor: not supported yet",
			      task->here, task->name, vma->start);
	if (refusals())
		return 0; /* perhaps of this ring */
	if (!(vma->flags & MAP_SHARED) || !io_uring_has_part(file, vma->offset, vma_length(vma)))
		return refuse("process %d (%s): memory at %#" PRIx64
			      " is a private or incomplete mapping of an io_uring: not supported yet",
			      task->here, task->name, vma->start);
	vma->object = file->id;
	vma->file_flags = O_RDWR;
	return 0;
}

static int find_socket_of(struct dump *dump, const struct task *task, struct vma *vma)
{
	const struct file *file = packet_find(&dump->snapshot, vma->device, vma->inode);
	const char *why = file ? NULL :
				 "a mapping of a socket without a descriptor, or of another kind than packet";

	if (!file && refusals())
		return 0; /* perhaps the socket is refused */
	why = why ?: packet_ring_why_not_mapped(file, vma);
	if (why)
		return refuse("process %d (%s): memory at %#" PRIx64 " (%s) is %s: not supported yet",
			      task->here, task->name, vma->start, vma->path, why);
	vma->object = file->id;
	vma->file_flags = O_RDWR;
	return 0;
}

static int find_file_of(struct dump *dump, const struct task *task, struct vma *vma)
{
	if (dump_is_of_io_uring(vma))
		return find_ring_of(dump, task, vma);
	return vma->status & VMA_SOCKET ? find_socket_of(dump, task, vma) : 0;
}

int dump_describe_ring_areas(struct dump *dump)
{
	struct task *task;
	int result = 0;

	for_each_leader (task, &dump->snapshot, OBJECT_MEMORY)
		for (size_t i = 0; !result && i < task->space->vmas.count; i++)
			result = unless_refused(find_file_of(dump, task, &task->space->vmas.items[i]));
	return result;
}

static bool has_uring(const struct task *task)
{
	for (size_t i = 0; i < task->space->vmas.count; i++)
		if (dump_is_of_io_uring(&task->space->vmas.items[i]))
			return true;
	return false;
}

static int complete_round(struct dump *dump, struct uring_round *round)
{
	struct task *task;

	round->was_ready = round->is_busy = false;
	for_each_leader (task, &dump->snapshot, OBJECT_DESCRIPTORS) {
		int result = task->state == TASK_DEAD || !has_uring(task) ?
				     0 :
				     io_uring_complete(&dump->snapshot, task, round);

		if (result)
			return fail_in(result, "process %d (%s)", task->here, task->name);
	}
	return 0;
}

/* What one request does may make another one ready, but not for ever, because nothing is submitted. */
int dump_complete_requests(struct dump *dump)
{
	struct uring_round round = { .deadline = trace_deadline(dump->request->timeout) };
	unsigned pause = FIRST_PAUSE;
	int result = complete_round(dump, &round), ready_rounds = 0;

	while (!result && (round.is_busy || (round.was_ready && ++ready_rounds < MOST_ROUNDS))) {
		if (round.is_busy) {
			usleep(pause);
			pause = min(2 * pause, (unsigned)LAST_PAUSE);
		}
		result = interrupt_check() ?: complete_round(dump, &round);
	}
	return result;
}

/* ---- for a pre-dump ---- */

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
	if (has_uring(task))
		return false;
	if (!has_rings(task))
		return true;
	return !attempted(task_has_filter(task)) && !attempted(wait_for_rings(dump, task));
}
