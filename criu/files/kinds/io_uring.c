/*
 * io_uring.c - io_uring(7): a ring with its two queues, which several processes may have open and mapped.
 *
 * The memory of a ring belongs to the open file, not to a process: mappings are those of a file (memory/saving.c), and
 * criu maps the ring itself to read it and to write it again. Unread completions, and requests that are not submitted
 * yet, are nothing but content of that memory. Beside it, the kernel has its own positions (io_uring_make.c).
 *
 * A request in flight is part of no image. So there must be none: kernel/uring.h can prove that. Some kinds of requests
 * may never complete (a poll); they are refused at once. For others the dump waits.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/interrupt.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/time.h"
#include "files/kind.h"
#include "files/kinds/io_uring.h"
#include "image/message.h"
#include "kernel/uring.h"

/* Of the ring that a task of this process submits requests to. */
#define NEEDS_SUBMITTER(setup) \
	(((setup) & (IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_R_DISABLED)) == IORING_SETUP_SINGLE_ISSUER)

static bool io_uring_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	return !strcmp(seen->link, "anon_inode:[io_uring]");
}

bool io_uring_knows_thread(const struct snapshot *snapshot, pid_t thread)
{
	const struct io_uring_state *state = file_kind_state(snapshot, &file_kind_io_uring);

	return index_find(&state->threads, (uint64_t)thread);
}

struct file *io_uring_find(const struct snapshot *snapshot, dev_t device, uint64_t inode)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_io_uring);

	for (size_t i = 0; i < files->count; i++) {
		const struct stat *found = &files->items[i]->seen->stat;

		if (found->st_dev == device && found->st_ino == inode)
			return files->items[i];
	}
	return NULL;
}

bool io_uring_has_part(const struct file *file, uint64_t offset, uint64_t length)
{
	struct uring uring = { 0 };

	if (file->entry->uring->n_layout != URING_LAYOUT)
		return false; /* it was refused */
	uring = io_uring_like(file->entry->uring);
	if (offset == IORING_OFF_SQ_RING || offset == IORING_OFF_CQ_RING)
		return length <= uring.rings_size;
	return offset == IORING_OFF_SQES && length <= uring.sqes_size;
}

/* ---- dump: describe ---- */

#define REFUSE(seen, format, ...)                                                            \
	refuse("process %d (%s): descriptor %d is an io_uring " format, (seen)->holder.here, \
	       (seen)->holder.name, (seen)->fd, ##__VA_ARGS__)

/* Setups that are refused, for the message. */
static const struct {
	uint32_t flag;
	const char *words;
} refused_setups[] = {
	{ IORING_SETUP_IOPOLL, "that polls devices (IORING_SETUP_IOPOLL)" },
	{ IORING_SETUP_ATTACH_WQ, "with the worker threads of another one (IORING_SETUP_ATTACH_WQ)" },
	{ 1u << 14, "in memory of the process (IORING_SETUP_NO_MMAP)" },
	{ 1u << 15, "without a descriptor (IORING_SETUP_REGISTERED_FD_ONLY)" },
	{ ~URING_SETUP, "that is set up in a way that criu does not know" },
};

static int check_setup(const struct seen_file *seen, const struct uring_facts *facts)
{
	for (size_t i = 0; i < array_size(refused_setups); i++)
		if (facts->flags & refused_setups[i].flag)
			return REFUSE(seen, "%s, which is not supported yet (flags %#x)",
				      refused_setups[i].words, facts->flags);
	if (facts->extra)
		return REFUSE(seen, "with %s, which is not supported yet", facts->extra);
	if (max(facts->sq_head, facts->cq_tail) > URING_MOST_POSITION)
		return REFUSE(
			seen,
			"that has taken %u requests and posted %u completions: a restore has to repeat them, and does so "
			"with at most %u",
			facts->sq_head, facts->cq_tail, URING_MOST_POSITION);
	return 0;
}

bool io_uring_waits_for_files(int fd, unsigned *opcode)
{
	autofree char *text = NULL;
	const char *list;
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	list = read_text_at(AT_FDCWD, path, &text) > 0 ? strstr(text, "\nPollList:\n") : NULL;
	return list && sscanf(list, "\nPollList:\n op=%u", opcode) == 1;
}

/* Refuses what may wait for ever and cannot be made again. */
static int check_requests(const struct seen_file *seen, const struct io_uring_state *state, int fd,
			  const struct uring_facts *facts)
{
	const struct uring_reader *reader = state->reader;
	const char *problem;
	unsigned opcode;
	bool are_all;
	int result;

	if (!facts->in_flight)
		return 0;
	if (!io_uring_was_early(state, facts))
		return REFUSE(
			seen,
			"with %u requests in flight, and no process has it both open and mapped: not supported yet",
			facts->in_flight);
	result = io_uring_count_requests(reader, facts, &are_all, &problem);
	if (result || are_all)
		return result;
	if (problem || facts->waiting)
		return REFUSE(seen, "with %u requests in flight, one of which %s %s: not supported yet",
			      facts->in_flight, problem ? "is" : "waits for", problem ?: facts->waiting);
	if (!uring_lists_requests(reader) && io_uring_waits_for_files(fd, &opcode))
		return REFUSE(
			seen,
			"with %u requests in flight, one of which (opcode %u) waits for a file to be ready: not supported yet",
			facts->in_flight, opcode);
	return 0;
}

/* The thread that may submit is the first thread of a process: it exists when the files are opened. */
static int find_submitter(const struct snapshot *snapshot, const struct seen_file *seen,
			  const struct uring_facts *facts, IoUringFileEntry *entry)
{
	const struct task *task = snapshot_find_task_here(snapshot, facts->submitter);

	if (!NEEDS_SUBMITTER(facts->flags))
		return 0;
	if (!task || facts->submitter != facts->submitter_process)
		return REFUSE(
			seen,
			"for thread %d only (IORING_SETUP_SINGLE_ISSUER), which is not the first thread of a process of the "
			"tree: not supported yet",
			facts->submitter);
	message_set(entry, submitter, (uint32_t)task->pid);
	return 0;
}

/* A ring that is made like this one tells the layout: no call does that for a ring that exists. */
static int find_layout(IoUringFileEntry *entry)
{
	struct uring like;
	int result = uring_make_like(&like, entry);

	uring_close(&like);
	if (result)
		return result;
	message_array(entry, layout, URING_LAYOUT);
	memcpy(entry->layout, like.layout, sizeof(like.layout));
	return 0;
}

static int io_uring_describe(struct snapshot *snapshot, struct file *file)
{
	struct io_uring_state *state = file_kind_state(snapshot, &file_kind_io_uring);
	const struct seen_file *seen = file->seen;
	autoclose int fd = files_borrow(seen);
	struct uring_facts facts;
	int result = fd < 0 ? fd : state->reader ? 0 : uring_reader_open(&state->reader);

	result = result ?: uring_read(state->reader, fd, &facts);
	if (result)
		return result;
	log_debug("io_uring: setup %#x, %u and %u entries, at %u and %u, %u in flight", facts.flags,
		  facts.sq_entries, facts.cq_entries, facts.sq_head, facts.cq_tail, facts.in_flight);
	io_uring_note_facts(file->entry->uring, &facts);
	if (facts.thread)
		index_set(&state->threads, (uint64_t)facts.thread, file);
	return check_setup(seen, &facts)								  ?:
		       check_requests(seen, state, fd, &facts)						  ?:
		       find_submitter(snapshot, seen, &facts, file->entry->uring)			  ?:
		       io_uring_look_at_thread(snapshot, seen, state->reader, &facts, file->entry->uring) ?:
		       find_layout(file->entry->uring);
}

static int judge_ring(struct snapshot *snapshot, struct io_uring_state *state, struct file *ring)
{
	autoclose int fd = files_borrow(ring->seen);
	struct uring_facts facts;
	int result = fd < 0 ? fd : uring_read(state->reader, fd, &facts);

	result = result ?: io_uring_find_buffers(snapshot, state, &facts, ring);
	if (result || !(facts.file_count || facts.eventfd || facts.in_flight || facts.has_slots))
		return result;
	return io_uring_index_files(snapshot, state)			       ?:
		       io_uring_find_registered(snapshot, state, &facts, ring) ?:
		       io_uring_note_slots(snapshot, state, &facts, ring)      ?:
		       io_uring_note_requests(snapshot, state, &facts, ring, false);
}

static int judge_rings(struct snapshot *snapshot, struct io_uring_state *state)
{
	const struct file_list *rings = files_of_kind(snapshot, &file_kind_io_uring);
	int result = 0;

	for (size_t i = 0; !result && i < rings->count; i++)
		result = unless_refused(judge_ring(snapshot, state, rings->items[i]));
	return result;
}

static int io_uring_judge(struct snapshot *snapshot)
{
	struct io_uring_state *state = file_kind_state(snapshot, &file_kind_io_uring);

	return state->reader ?
		       judge_rings(snapshot, state) ?: unless_refused(io_uring_judge_threads(snapshot)) :
		       0;
}

static void io_uring_let_go(struct snapshot *snapshot, enum dump_end end unused)
{
	struct io_uring_state *state = file_kind_state(snapshot, &file_kind_io_uring);

	io_uring_forget_early(state);
	uring_reader_close(steal_pointer(&state->reader));
	index_free(&state->threads);
	index_free(&state->files);
}

/* ---- restore ---- */

static bool is_power_of_two(uint32_t number)
{
	return number && !(number & (number - 1));
}

static int check_numbers(const struct snapshot *snapshot, const struct file *file)
{
	const IoUringFileEntry *entry = file->entry->uring;

	if (entry->setup & ~URING_SETUP || !is_power_of_two(entry->sq_entries) ||
	    !is_power_of_two(entry->cq_entries) || entry->sq_entries > URING_MOST_SQ ||
	    entry->cq_entries > URING_MOST_CQ || entry->cq_entries < entry->sq_entries ||
	    entry->n_layout != URING_LAYOUT || max(entry->sq_head, entry->cq_tail) > URING_MOST_POSITION ||
	    (entry->setup & IORING_SETUP_R_DISABLED && (entry->sq_head || entry->cq_tail)) ||
	    !io_uring_is_thread_possible(snapshot, entry))
		return fail(EINVAL, "files.img: file %u is an io_uring that is impossible", file->id);
	if (NEEDS_SUBMITTER(entry->setup) &&
	    (!entry->has_submitter || !snapshot_find_task(snapshot, (pid_t)entry->submitter)))
		return fail(EINVAL, "files.img: file %u is an io_uring for an unknown process", file->id);
	return 0;
}

static int io_uring_check(struct snapshot *snapshot, struct file *file)
{
	const IoUringFileEntry *entry = file->entry->uring;
	struct uring like = { .fd = -1 };
	int result = check_numbers(snapshot, file) ?: uring_make_like(&like, entry);

	if (!result && memcmp(like.layout, entry->layout, sizeof(like.layout)) != 0)
		result = fail(
			EINVAL,
			"files.img: file %u is an io_uring whose memory this kernel arranges in another way",
			file->id);
	if (!result && (entry->rings.len > like.rings_size || entry->sqes.len > like.sqes_size))
		result = fail(EINVAL, "files.img: file %u is an io_uring with too much content", file->id);
	uring_close(&like);
	result = result						   ?:
			 io_uring_check_registered(snapshot, file) ?:
								     io_uring_check_buffers(snapshot, file);
	return result ?: io_uring_check_requests(snapshot, file) ?: io_uring_check_slots(snapshot, file);
}

/* The owner makes a ring that has a thread of the kernel: until then, its number is taken. */
static int reserve_number(const struct file *file)
{
	int fd = eventfd(0, EFD_CLOEXEC);

	return fd < 0 ? fail(errno, "cannot reserve a descriptor for file %u", file->id) : fd;
}

/* The thread that enables a ring is its submitter, so such a ring is disabled until then. */
static int open_io_uring(struct snapshot *snapshot unused, struct file *file)
{
	struct uring uring;
	int result;

	if (io_uring_has_thread(file))
		return reserve_number(file);
	uring_prepare(&uring, file->entry->uring);
	if (NEEDS_SUBMITTER(uring.setup))
		uring.wanted.flags |= IORING_SETUP_R_DISABLED;
	result = uring_create(&uring) ?: uring_note_made(&uring, file->entry->uring);
	if (result)
		uring_close(&uring);
	return result ?: uring.fd;
}

static int io_uring_join(struct snapshot *snapshot)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_io_uring);
	int result = 0;

	for (size_t i = 0; !result && i < files->count; i++) {
		const struct file *file = files->items[i];

		if (file->fd < 0 || io_uring_has_thread(file) || NEEDS_SUBMITTER(file->entry->uring->setup))
			continue;
		result = io_uring_advance(file)	     ?:
				 io_uring_fill(file) ?:
						       io_uring_register_all(snapshot, file);
		if (result)
			fail_in(result, "file %u (io_uring)", file->id);
	}
	return result;
}

static int settle_ring(const struct snapshot *snapshot, const struct file *file)
{
	return io_uring_enable(file)	      ?:
		       io_uring_advance(file) ?:
		       io_uring_fill(file)    ?:
						io_uring_register_all(snapshot, file);
}

static int io_uring_settle_own(struct snapshot *snapshot, struct task *task)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_io_uring);
	int result = 0;

	for (size_t i = 0; !result && i < files->count; i++) {
		const IoUringFileEntry *entry = files->items[i]->entry->uring;

		if (NEEDS_SUBMITTER(entry->setup) && (pid_t)entry->submitter == task->pid &&
		    !io_uring_has_thread(files->items[i]))
			result = settle_ring(snapshot, files->items[i]);
		if (result)
			fail_in(result, "file %u (io_uring)", files->items[i]->id);
	}
	return result;
}

const struct file_kind file_kind_io_uring = {
	.name = "io_uring",
	.type = FD_TYPES__IO_URING,
	.message = offsetof(FileEntry, uring),
	.state_size = sizeof(struct io_uring_state),
	.recognizes = io_uring_recognizes,
	.describe = io_uring_describe,
	.judge = io_uring_judge,
	.save = io_uring_save,
	.let_go = io_uring_let_go,
	.load = io_uring_load_threads,
	.check = io_uring_check,
	.open = open_io_uring,
	.join = io_uring_join,
	.settle = io_uring_settle_own,
};
