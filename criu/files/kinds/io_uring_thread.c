/*
 * io_uring_thread.c - rings whose requests a thread of the kernel takes (IORING_SETUP_SQPOLL).
 *
 * That thread belongs to the process that has made the ring, has its memory and its descriptors, and works with the
 * credentials that its maker had. So on restore the process itself makes the ring (restore/uring_threads.c), in a
 * thread that has these credentials for a moment. Other processes cannot get such a ring.
 *
 * It is not frozen with the process. When everything that was published is taken and complete, nothing is left for it
 * to do, and nobody can publish more. If it sleeps, it takes nothing before it is woken.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/interrupt.h"
#include "base/io.h"
#include "base/memory.h"
#include "base/time.h"
#include "files/kind.h"
#include "files/kinds/io_uring.h"
#include "image/message.h"
#include "kernel/proc.h"
#include "kernel/uring.h"

#define KNOWN_IDLE (1u << 20) /* milliseconds */
#define MOST_SLEEP 10000      /* milliseconds until a thread sleeps for which a restore waits */

/* ---- dump ---- */

#define REFUSE(seen, format, ...)                                                            \
	refuse("process %d (%s): descriptor %d is an io_uring " format, (seen)->holder.here, \
	       (seen)->holder.name, (seen)->fd, ##__VA_ARGS__)

/* The kernel counts in jiffies, and does not tell how long one is: a ring of criu's own shows it. */
static int find_milliseconds(const struct uring_reader *reader, uint32_t jiffies, uint32_t *milliseconds)
{
	const IoUringFileEntry wanted = { .setup = IORING_SETUP_SQPOLL | IORING_SETUP_R_DISABLED,
					  .sq_entries = 1,
					  .cq_entries = 2,
					  .thread_idle = KNOWN_IDLE };
	struct uring_facts facts;
	struct uring known;
	int result = uring_make(&known, &wanted) ?: uring_read(reader, known.fd, &facts);

	uring_close(&known);
	if (!result && !facts.idle)
		result = fail(EINVAL, "this kernel does not tell when the thread of an io_uring sleeps");
	if (!result)
		*milliseconds = (uint32_t)((uint64_t)jiffies * KNOWN_IDLE / facts.idle);
	return result;
}

static int look_at_scheduling(const struct seen_file *seen, pid_t thread, IoUringFileEntry *entry)
{
	int nice;

	errno = 0;
	nice = getpriority(PRIO_PROCESS, (id_t)thread);
	if (errno)
		return fail(errno, "cannot read the priority of thread %d of the kernel", thread);
	if (sched_getscheduler(thread) != SCHED_OTHER)
		return REFUSE(seen, "whose thread of the kernel has a scheduling policy: not supported yet");
	if (nice)
		message_set(entry, thread_nice, nice);
	return 0;
}

int io_uring_look_at_thread(const struct snapshot *snapshot, const struct seen_file *seen,
			    const struct uring_reader *reader, const struct uring_facts *facts,
			    IoUringFileEntry *entry)
{
	const struct task *owner = snapshot_find_task_here(snapshot, facts->owner);

	if (!(facts->flags & IORING_SETUP_SQPOLL))
		return 0;
	if (!facts->thread || !owner || owner->state == TASK_DEAD)
		return REFUSE(
			seen,
			"with a thread of the kernel (IORING_SETUP_SQPOLL) that belongs to no process of the tree: not "
			"supported yet");
	message_set(entry, owner, (uint32_t)owner->pid);
	entry->has_thread_idle = true;
	if (facts->flags & IORING_SETUP_SQ_AFF)
		message_set(entry, thread_cpu, facts->cpu);
	return io_uring_check_rights(seen, reader, facts, owner)      ?:
		       look_at_scheduling(seen, facts->thread, entry) ?:
		       find_milliseconds(reader, facts->idle, &entry->thread_idle);
}

/* A thread that waits to be woken sleeps in this function; one that is about to sleep, or to wake, does not. */
static bool is_asleep(pid_t thread)
{
	autoclose int proc = proc_open(thread);
	autofree char *text = NULL;

	return proc >= 0 && read_text_at(proc, "wchan", &text) >= 0 && !strcmp(text, "io_sq_thread");
}

bool io_uring_thread_takes(const struct uring_facts *facts)
{
	return facts->flags & IORING_SETUP_SQPOLL && facts->sq_tail != facts->sq_head &&
	       !is_asleep(facts->thread);
}

/* ---- both ---- */

bool io_uring_has_thread(const struct file *file)
{
	return file->kind == &file_kind_io_uring && file->entry &&
	       file->entry->uring->setup & IORING_SETUP_SQPOLL;
}

/* A process that is not the owner and has the ring; NULL: none. */
static const struct task *find_stranger(const struct snapshot *snapshot, const struct file **ring)
{
	const struct task *task;

	for_each_leader (task, snapshot, OBJECT_DESCRIPTORS) {
		for (size_t i = 0; i < task->table->count; i++) {
			const struct task *owner;

			*ring = task->table->items[i].file;
			if (!*ring || !io_uring_has_thread(*ring))
				continue;
			owner = snapshot_find_task(snapshot, (pid_t)(*ring)->entry->uring->owner);
			if (!owner || owner->table != task->table)
				return task;
		}
	}
	return NULL;
}

static bool has_threads(const struct snapshot *snapshot)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_io_uring);
	bool has_one = false;

	for (size_t i = 0; i < files->count; i++)
		has_one |= io_uring_has_thread(files->items[i]);
	return has_one;
}

int io_uring_judge_threads(const struct snapshot *snapshot)
{
	const struct file *ring;
	const struct task *stranger = has_threads(snapshot) ? find_stranger(snapshot, &ring) : NULL;

	return stranger ?
		       REFUSE(ring->seen,
			      "with a thread of the kernel (IORING_SETUP_SQPOLL), which process %d has, too: not "
			      "supported yet",
			      stranger->here) :
		       0;
}

int io_uring_load_threads(struct snapshot *snapshot)
{
	const struct file *ring;

	if (!has_threads(snapshot) || !find_stranger(snapshot, &ring))
		return 0;
	return fail(EINVAL, "files.img: file %u is an io_uring of another process", ring->id);
}

/* ---- restore ---- */

/* How far requests are published, in the saved memory. */
static uint32_t saved_tail(const IoUringFileEntry *entry)
{
	uint32_t at = entry->layout[SQ_TAIL_AT], tail = 0;

	if (at < entry->rings.len)
		memcpy(&tail, entry->rings.data + at, min(sizeof(tail), entry->rings.len - at));
	return tail;
}

bool io_uring_is_thread_possible(const struct snapshot *snapshot, const IoUringFileEntry *entry)
{
	const uint32_t never = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
			       IORING_SETUP_DEFER_TASKRUN;
	const struct task *owner;

	if (!(entry->setup & IORING_SETUP_SQPOLL))
		return !(entry->setup & IORING_SETUP_SQ_AFF);
	owner = snapshot_find_task(snapshot, (pid_t)entry->owner);
	if (!entry->has_owner || !owner || owner->state == TASK_DEAD || entry->setup & never)
		return false;
	if (entry->has_submitter && entry->submitter != entry->owner)
		return false;
	return saved_tail(entry) == entry->sq_head || entry->thread_idle <= MOST_SLEEP;
}

int io_uring_make_for(const struct file *file, const struct task *owner)
{
	const IoUringFileEntry *entry = file->entry->uring;
	struct uring uring;
	int result;

	uring_prepare(&uring, entry);
	if (entry->has_submitter)
		uring.wanted.flags |= IORING_SETUP_R_DISABLED;
	result = io_uring_create_as(&uring, owner) ?: uring_note_made(&uring, entry);
	if (result)
		uring_close(&uring);
	return result ?: uring.fd;
}

/* Nothing wakes it, but what a restore does itself. */
static int await_sleep(pid_t thread, uint32_t idle)
{
	uint64_t deadline = monotonic_time() + (uint64_t)(idle + MOST_SLEEP) * 1000000;
	int result = 0;

	while (!result && !is_asleep(thread)) {
		if (monotonic_time() > deadline)
			return fail(ETIME, "a thread of the kernel that has no work does not sleep");
		usleep(1000);
		result = interrupt_check();
	}
	return result;
}

int io_uring_settle_thread(const struct snapshot *snapshot, const struct file *file, pid_t thread)
{
	const IoUringFileEntry *entry = file->entry->uring;
	int result;

	if (entry->has_thread_nice && setpriority(PRIO_PROCESS, (id_t)thread, entry->thread_nice) < 0)
		return fail(errno, "cannot set the priority of a thread of the kernel");
	result = (entry->has_submitter ? io_uring_enable(file) : 0) ?:
			 io_uring_advance(file)			    ?:
								      io_uring_register_all(snapshot, file);
	if (!result && saved_tail(entry) != entry->sq_head)
		result = await_sleep(thread, entry->thread_idle);
	return result ?: io_uring_fill(file);
}
