/*
 * io_uring_settle.c - dump: waits until no request of a ring is in flight, or only those that wait and can be made
 * again (io_uring_requests.c). Then the ring does not change any more: no thread of the tree runs.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/interrupt.h"
#include "base/io.h"
#include "base/memory.h"
#include "base/time.h"
#include "compel.h"
#include "files/kind.h"
#include "files/kinds/io_uring.h"
#include "kernel/uring.h"

#define FIRST_PAUSE 500	  /* microseconds between two looks; doubled each time */
#define LAST_PAUSE  50000 /* … until here */

void io_uring_note_facts(IoUringFileEntry *entry, const struct uring_facts *facts)
{
	entry->setup = facts->flags;
	entry->sq_entries = facts->sq_entries;
	entry->cq_entries = facts->cq_entries;
	entry->sq_head = facts->sq_head;
	entry->cq_tail = facts->cq_tail;
}

/*
 * What may still be taken is looked at before the requests in flight are counted: what was taken meanwhile is in
 * flight. Requests that wait, and can be made again, keep nobody busy.
 */
static int look(const struct uring_reader *reader, int fd, struct uring_facts *facts, bool *is_busy)
{
	int result = uring_read(reader, fd, facts);
	bool may_take = !result && io_uring_thread_takes(facts), are_all = true;
	const char *problem;

	if (!result && facts->flags & IORING_SETUP_SQPOLL)
		result = uring_read(reader, fd, facts);
	if (!result && facts->in_flight)
		result = io_uring_count_requests(reader, facts, &are_all, &problem);
	*is_busy = may_take || !are_all;
	return result;
}

/*
 * What a device or another process has done may have to be completed by the thread that has submitted the request. It
 * is stopped, so it is made to enter the kernel, or the ring (IORING_SETUP_DEFER_TASKRUN), and stops again.
 */
static int complete(const struct task *task, size_t thread, int fd, const struct uring_facts *facts)
{
	struct remote_call entering = { SYS_getppid, { 0 }, 0 };
	bool was_infected = task->victim->infection;
	int result = was_infected ? 0 : victim_infect(task->victim);

	if (fd >= 0 && facts->flags & IORING_SETUP_DEFER_TASKRUN)
		entering = (struct remote_call){ SYS_io_uring_enter,
						 { (uint64_t)fd, 0, 0, IORING_ENTER_GETEVENTS },
						 0 };
	if (!result)
		result = victim_call_thread(task->victim, thread, &entering, 1);
	if (was_infected)
		return result ?: victims_park(&task->victim, 1);
	return task->victim->infection ? victim_cure(task->victim) ?: result : result;
}

int io_uring_complete_all(const struct snapshot *snapshot, const struct uring_facts *facts,
			  const struct task *holder, int fd)
{
	int result = 0;

	for (size_t i = 0; !result && i < facts->user_count; i++) {
		const struct task *task = snapshot_find_task_here(snapshot, facts->users[i].process);

		for (size_t thread = 0; task && task->victim && !result && thread < task->thread_count;
		     thread++)
			if (task->threads[thread].here == facts->users[i].thread)
				result = complete(task, thread, task == holder ? fd : -1, facts);
	}
	return result;
}

/* ---- before memory is saved ---- */

static int complete_for(const struct snapshot *snapshot, const struct uring_facts *facts,
			const struct file *ring)
{
	pid_t id = facts->flags & IORING_SETUP_DEFER_TASKRUN ? facts->submitter_process :
							       ring->seen->holder.here;
	const struct task *holder = snapshot_find_task_here(snapshot, id);

	return io_uring_complete_all(snapshot, facts, holder, holder ? task_number_of(holder, ring) : -1);
}

int io_uring_wait_in_vain(const struct uring_facts *facts)
{
	fail_advice("a longer --timeout");
	return fail(0, "%u requests are still in flight, %u are published", facts->in_flight,
		    facts->flags & IORING_SETUP_SQPOLL ? facts->sq_tail - facts->sq_head : 0);
}

/* *has_run: threads of the tree have run for that, and perhaps gone on with requests of other rings. */
static int await_ring(struct snapshot *snapshot, struct file *file, uint64_t deadline, bool *has_run)
{
	struct io_uring_state *state = file_kind_state(snapshot, &file_kind_io_uring);
	autoclose int fd = files_borrow(file->seen);
	unsigned pause = FIRST_PAUSE;
	struct uring_facts facts;
	bool is_busy = false;
	int result = fd < 0 ? fd : look(state->reader, fd, &facts, &is_busy);

	while (!result && is_busy) {
		if (monotonic_time() > deadline)
			return io_uring_wait_in_vain(&facts);
		*has_run = true;
		result = complete_for(snapshot, &facts, file) ?: interrupt_check();
		if (!result)
			result = look(state->reader, fd, &facts, &is_busy);
		if (result || !is_busy)
			break;
		usleep(pause);
		pause = min(2 * pause, (unsigned)LAST_PAUSE);
	}
	return result;
}

/* *is_busy: a timeout has ended, and the ring has to be awaited again. */
static int note_ring(struct snapshot *snapshot, struct file *file, bool *is_busy)
{
	struct io_uring_state *state = file_kind_state(snapshot, &file_kind_io_uring);
	autoclose int fd = files_borrow(file->seen);
	struct uring_facts facts;
	int result = fd < 0 ? fd : look(state->reader, fd, &facts, is_busy);

	if (!result && *is_busy)
		return 0;
	if (!result && facts.extra)
		return fail(EOPNOTSUPP, "it has %s now, which is not supported yet", facts.extra);
	if (!result && max(facts.sq_head, facts.cq_tail) > URING_MOST_POSITION)
		return fail(EOPNOTSUPP, "its requests and completions are too many now");
	if (!result)
		result = io_uring_check_files(snapshot, &facts, file);
	if (result)
		return result;
	io_uring_note_facts(file->entry->uring, &facts);
	if (facts.in_flight)
		result = io_uring_index_files(snapshot, state) ?:
				 io_uring_note_requests(snapshot, state, &facts, file, true);
	else
		io_uring_forget_requests(file->entry->uring);
	return result ?: io_uring_read_content(file->entry->uring, fd);
}

static int fail_in_ring(int result, const struct file *file)
{
	const struct seen_file *seen = file->seen;

	return result ? fail_in(result, "process %d (%s): descriptor %d (io_uring)", seen->holder.here,
				seen->holder.name, seen->fd) :
			0;
}

int io_uring_settle(struct snapshot *snapshot, uint64_t deadline)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_io_uring);
	bool has_run = true;
	int result = 0;

	while (!result && has_run) {
		has_run = false;
		for (size_t i = 0; !result && i < files->count; i++)
			result = fail_in_ring(await_ring(snapshot, files->items[i], deadline, &has_run),
					      files->items[i]);
		for (size_t i = 0; !result && !has_run && i < files->count; i++)
			result = fail_in_ring(note_ring(snapshot, files->items[i], &has_run),
					      files->items[i]);
	}
	return result;
}

/*
 * Memory has been saved meanwhile. A thread of the kernel that takes requests was not stopped, so it must be seen that
 * it has done nothing.
 */
static int check_again(const struct uring_reader *reader, const struct file *file)
{
	const IoUringFileEntry *entry = file->entry->uring;
	autoclose int fd = files_borrow(file->seen);
	struct uring_facts facts;
	int result = fd < 0 ? fd : uring_read(reader, fd, &facts);

	if (result || (facts.sq_head == entry->sq_head && facts.cq_tail == entry->cq_tail &&
		       facts.in_flight == entry->n_requests))
		return result;
	fail_advice("the same again");
	return fail(EAGAIN, "the kernel has worked on its requests during the dump");
}

int io_uring_save(struct snapshot *snapshot)
{
	const struct io_uring_state *state = file_kind_state(snapshot, &file_kind_io_uring);
	const struct file_list *files = files_of_kind(snapshot, &file_kind_io_uring);
	int result = 0;

	for (size_t i = 0; !result && i < files->count; i++)
		result = fail_in_ring(check_again(state->reader, files->items[i]), files->items[i]);
	return result;
}
