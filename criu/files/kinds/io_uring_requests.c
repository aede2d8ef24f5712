/*
 * io_uring_requests.c - requests in flight that wait until a file is ready, or for a time (kernel/uring_requests.c).
 *
 * A request belongs to the thread that has submitted it. So on restore that thread submits it again, as one of the last
 * calls that restore its state: it has its memory, its descriptors and its credentials by then. For that, the new ring
 * is some requests behind its position, and the calls put the requests into its memory, and afterwards what was there.
 * From then on a request may complete, as it might have before.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "calls.h"
#include "files/kind.h"
#include "files/kinds/io_uring.h"
#include "image/message.h"
#include "kernel/uring.h"

#define MOST_REQUESTS 65536u

static const uint8_t known_opcodes[] = { IORING_OP_POLL_ADD, IORING_OP_TIMEOUT, IORING_OP_READ,
					 IORING_OP_WRITE,    IORING_OP_RECV,	IORING_OP_ACCEPT };

/* ---- dump ---- */

int io_uring_count_requests(const struct uring_reader *reader, const struct uring_facts *facts, bool *are_all,
			    const char **problem)
{
	struct uring_requests requests;
	int result = uring_read_requests(reader, facts, &requests, problem);

	/* The thread of the kernel is not stopped, so it could go on with them. */
	*are_all = requests.count == facts->in_flight && !*problem && !(facts->flags & IORING_SETUP_SQPOLL);
	if (facts->in_flight && facts->flags & IORING_SETUP_SQPOLL && requests.count && !*problem)
		*problem = "one that waits in a ring with a thread of the kernel (IORING_SETUP_SQPOLL)";
	uring_requests_free(&requests);
	return result;
}

/* It is refused while that is possible, and else it fails. */
#define CANNOT(is_last, seen, format, ...)                                                \
	((is_last) ? fail(EOPNOTSUPP, "it has now " format, ##__VA_ARGS__) :              \
		     refuse("process %d (%s): descriptor %d is an io_uring with " format, \
			    (seen)->holder.here, (seen)->holder.name, (seen)->fd, ##__VA_ARGS__))

struct noting {
	const struct snapshot *snapshot;
	const struct uring_reader *reader;
	const struct uring_facts *facts;
	const struct index *index;
	struct file *ring;
	bool is_last;
};

void io_uring_forget_requests(IoUringFileEntry *entry)
{
	for (size_t i = 0; i < entry->n_requests; i++)
		io_uring_request_entry__free_unpacked(entry->requests[i], NULL);
	free(entry->requests);
	entry->requests = NULL;
	entry->n_requests = 0;
	entry->has_requester = false;
}

static int find_requester(const struct noting *noting, const struct uring_request *request)
{
	const struct task *task = snapshot_find_task_here(noting->snapshot, request->process);
	const struct thread *thread = task ? task_find_thread_here(task, request->thread) : NULL;
	IoUringFileEntry *entry = noting->ring->entry->uring;

	if (!thread)
		return CANNOT(noting->is_last, noting->ring->seen,
			      "a request in flight of thread %d, which criu does not find: not supported yet",
			      request->thread);
	if (entry->has_requester && entry->requester != (uint32_t)thread->tid)
		return CANNOT(noting->is_last, noting->ring->seen,
			      "requests in flight of several threads: not supported yet");
	message_set(entry, requester, (uint32_t)thread->tid);
	return 0;
}

static int find_file(const struct noting *noting, const struct uring_request *request,
		     IoUringRequestEntry *entry)
{
	const struct file *file = request->file ? index_find(noting->index, request->file) : NULL;
	uint64_t registered = 0;
	int result = 0;

	if (!request->file)
		return 0;
	if (request->flags & IOSQE_FIXED_FILE) {
		if (request->fd >= 0 && (uint32_t)request->fd < noting->facts->file_count)
			result = uring_read_slot(noting->reader, noting->facts, (uint32_t)request->fd,
						 &registered);
		if (!result && registered == request->file)
			message_set(entry, file, (uint32_t)request->fd);
		else if (!result)
			return CANNOT(
				noting->is_last, noting->ring->seen,
				"a request in flight for a file that is no longer registered: not supported yet");
		return result;
	}
	if (!file)
		return CANNOT(noting->is_last, noting->ring->seen,
			      "a request in flight for a file that no process has open: not supported yet");
	message_set(entry, file, file->id);
	return 0;
}

static int note_request(const struct noting *noting, const struct uring_request *request,
			IoUringRequestEntry *entry)
{
	entry->opcode = request->opcode;
	entry->flags = request->flags;
	entry->user_data = request->user_data;
	message_set(entry, offset, request->offset);
	message_set(entry, address, request->address);
	message_set(entry, length, request->length);
	message_set(entry, operation_flags, request->operation_flags);
	message_set(entry, how, request->how);
	message_set(entry, slot, request->slot);
	if (request->opcode == IORING_OP_TIMEOUT)
		message_set(entry, time, request->time);
	return find_requester(noting, request) ?: find_file(noting, request, entry);
}

int io_uring_note_requests(const struct snapshot *snapshot, struct io_uring_state *state,
			   const struct uring_facts *facts, struct file *ring, bool is_last)
{
	const struct noting noting = { snapshot, state->reader, facts, &state->files, ring, is_last };
	IoUringFileEntry *entry = ring->entry->uring;
	struct uring_requests requests;
	const char *problem;
	int result;

	io_uring_forget_requests(entry);
	if (!facts->in_flight)
		return 0;
	result = uring_read_requests(state->reader, facts, &requests, &problem);
	if (!result && is_last && requests.count != facts->in_flight)
		result = fail(EAGAIN, "its requests in flight have changed");
	if (!result && !problem && requests.count == facts->in_flight) {
		message_array(entry, requests, requests.count);
		for (size_t i = 0; i < requests.count; i++)
			entry->requests[i] = message_new(IoUringRequestEntry, io_uring_request_entry);
		for (size_t i = 0; !result && i < requests.count; i++)
			result = note_request(&noting, &requests.items[i], entry->requests[i]);
	}
	uring_requests_free(&requests);
	return result;
}

/* ---- restore: check ---- */

static bool is_possible(const IoUringFileEntry *ring, const IoUringRequestEntry *request)
{
	return memchr(known_opcodes, (int)request->opcode, sizeof(known_opcodes)) &&
	       request->opcode <= UINT8_MAX &&
	       !(request->flags & ~(uint32_t)(IOSQE_FIXED_FILE | IOSQE_ASYNC | IOSQE_CQE_SKIP_SUCCESS)) &&
	       request->how <= UINT16_MAX && request->time >= 0 &&
	       (request->has_file || request->opcode == IORING_OP_TIMEOUT) &&
	       (!(request->flags & IOSQE_FIXED_FILE) || request->file < ring->n_files);
}

int io_uring_check_requests(const struct snapshot *snapshot, const struct file *ring)
{
	const IoUringFileEntry *entry = ring->entry->uring;
	bool is_right = entry->n_requests <= MOST_REQUESTS && entry->n_requests <= entry->sq_head &&
			!(entry->setup & (IORING_SETUP_SQPOLL | IORING_SETUP_R_DISABLED));

	if (!entry->n_requests)
		return 0;
	if (entry->setup & IORING_SETUP_SINGLE_ISSUER)
		is_right &= entry->requester == entry->submitter;
	for (size_t i = 0; is_right && i < entry->n_requests; i++)
		is_right = is_possible(entry, entry->requests[i]);
	if (is_right && entry->has_requester && snapshot_find_thread(snapshot, (pid_t)entry->requester))
		return 0;
	return fail(EINVAL, "files.img: file %u is an io_uring with impossible requests", ring->id);
}

/* ---- what a thread has of its ring ---- */

/* Of the files of a table: a descriptor, + 1. */
static void index_table(const struct task *task, struct index *index)
{
	for (size_t i = 0; i < task->table->count; i++)
		index_set(index, task->table->items[i].file->id,
			  (void *)(uintptr_t)(task->table->items[i].fd + 1));
}

static int descriptor_in(const struct index *index, uint32_t file)
{
	return (int)(uintptr_t)index_find(index, file) - 1;
}

/* Where the task has mapped such a part of the ring, from its beginning, and can write it; NULL: nowhere. */
static const struct vma *find_part(const struct task *task, const struct file *ring, uint64_t offset,
				   uint64_t length)
{
	for (size_t i = 0; i < task->space->vmas.count; i++) {
		const struct vma *vma = &task->space->vmas.items[i];

		if (vma->status & VMA_FILE_SHARED && vma->object == ring->id && vma->offset == offset &&
		    vma_length(vma) >= length && vma->protection & PROT_WRITE)
			return vma;
	}
	return NULL;
}

static bool is_of(const struct file *ring, const struct task *task, size_t thread)
{
	const IoUringFileEntry *entry = ring->entry ? ring->entry->uring : NULL;

	return entry && entry->n_requests && (pid_t)entry->requester == task->threads[thread].tid;
}

static int check_ring(const struct task *task, const struct index *table, const struct file *ring)
{
	const IoUringFileEntry *entry = ring->entry->uring;
	struct uring like = io_uring_like(entry);

	if (descriptor_in(table, ring->id) < 0)
		return fail(EINVAL, "it has requests in flight in an io_uring that it has no descriptor of");
	if (!find_part(task, ring, IORING_OFF_SQES, like.sqes_size) ||
	    !find_part(task, ring, IORING_OFF_SQ_RING, like.rings_size))
		return fail(EINVAL, "it has requests in flight in an io_uring that it has not mapped");
	for (size_t i = 0; i < entry->n_requests; i++) {
		const IoUringRequestEntry *request = entry->requests[i];

		if (request->has_file && !(request->flags & IOSQE_FIXED_FILE) &&
		    descriptor_in(table, request->file) < 0)
			return fail(EINVAL, "it has a request in flight for a file that it has closed");
	}
	return 0;
}

int io_uring_check_requester(const struct snapshot *snapshot, const struct task *task, size_t thread)
{
	const struct file_list *rings = files_of_kind(snapshot, &file_kind_io_uring);
	struct index table = { 0 };
	int result = 0;

	for (size_t i = 0; !result && i < rings->count; i++) {
		if (!is_of(rings->items[i], task, thread))
			continue;
		if (!table.count)
			index_table(task, &table);
		result = check_ring(task, &table, rings->items[i]);
	}
	index_free(&table);
	return result;
}

/* ---- restore: submit ---- */

struct submitting {
	struct call_list *calls;
	const IoUringFileEntry *entry;
	struct uring like;
	pid_t self;
	int fd;
	uint64_t rings, sqes; /* their addresses in the task */
	size_t sqe_size;
	const struct index *table;
};

/* Copies bytes of the list into memory of the task. */
static void copy_to(const struct submitting *to, uint64_t address, const void *bytes, size_t size)
{
	const struct iovec there = { (void *)(uintptr_t)address, size };
	struct iovec here = { .iov_len = size };
	uint64_t at;

	if (!size)
		return;
	here.iov_base = (void *)(uintptr_t)calls_bytes(to->calls, bytes, size);
	at = calls_bytes(to->calls, &there, sizeof(there));
	add_call(to->calls, "write into an io_uring", SYS_process_vm_readv, (uint64_t)to->self, at, 1,
		 calls_bytes(to->calls, &here, sizeof(here)), 1, 0);
}

/* Writes slots from a position on; the queue is a ring, so these may be two pieces. */
static void write_slots(const struct submitting *to, uint32_t position, uint32_t count, const char *sqes,
			const uint32_t *array)
{
	uint32_t first = position & (to->entry->sq_entries - 1);
	uint32_t upper = min(count, to->entry->sq_entries - first);
	uint64_t array_at = to->rings + to->like.layout[SQ_ARRAY_AT];

	copy_to(to, to->sqes + first * to->sqe_size, sqes, upper * to->sqe_size);
	copy_to(to, to->sqes, sqes + upper * to->sqe_size, (count - upper) * to->sqe_size);
	if (to->entry->setup & IORING_SETUP_NO_SQARRAY)
		return;
	copy_to(to, array_at + first * sizeof(*array), array, upper * sizeof(*array));
	copy_to(to, array_at, array + upper, (count - upper) * sizeof(*array));
}

static void build(const struct submitting *to, const IoUringRequestEntry *request, struct io_uring_sqe *sqe)
{
	struct __kernel_timespec time = { .tv_sec = request->time / 1000000000,
					  .tv_nsec = request->time % 1000000000 };

	*sqe = (struct io_uring_sqe){
		.opcode = (uint8_t)request->opcode,
		.flags = (uint8_t)request->flags,
		.ioprio = (uint16_t)request->how,
		.fd = request->flags & IOSQE_FIXED_FILE ? (int)request->file :
		      request->has_file			? descriptor_in(to->table, request->file) :
							  -1,
		.off = request->offset,
		.addr = request->address,
		.len = request->length,
		.rw_flags = (int)request->operation_flags,
		.user_data = request->user_data,
		.file_index = request->slot,
	};
	if (request->opcode == IORING_OP_TIMEOUT)
		sqe->addr = calls_bytes(to->calls, &time, sizeof(time));
}

/* The saved bytes at an offset; what the image lacks are zeros. */
static void take_saved(const ProtobufCBinaryData *saved, size_t offset, void *bytes, size_t size)
{
	memset(bytes, 0, size);
	if (offset < saved->len)
		memcpy(bytes, saved->data + offset, min(size, saved->len - offset));
}

static void write_requests(const struct submitting *to, uint32_t first, uint32_t count)
{
	const IoUringFileEntry *entry = to->entry;
	uint32_t position = entry->sq_head - (uint32_t)entry->n_requests + first;
	autofree char *sqes = allocate_array(count, to->sqe_size);
	autofree uint32_t *array = allocate_array(count, sizeof(*array));

	for (uint32_t i = 0; i < count; i++) {
		array[i] = (position + i) & (entry->sq_entries - 1);
		build(to, entry->requests[first + i],
		      (struct io_uring_sqe *)(void *)(sqes + i * to->sqe_size));
	}
	write_slots(to, position, count, sqes, array);
}

static void write_saved(const struct submitting *to, uint32_t count)
{
	const IoUringFileEntry *entry = to->entry;
	uint32_t position = entry->sq_head - (uint32_t)entry->n_requests;
	autofree char *sqes = allocate_array(count, to->sqe_size);
	autofree uint32_t *array = allocate_array(count, sizeof(*array));

	for (uint32_t i = 0; i < count; i++) {
		uint32_t slot = (position + i) & (entry->sq_entries - 1);

		take_saved(&entry->sqes, slot * to->sqe_size, sqes + i * to->sqe_size, to->sqe_size);
		take_saved(&entry->rings, to->like.layout[SQ_ARRAY_AT] + slot * sizeof(*array), &array[i],
			   sizeof(*array));
	}
	write_slots(to, position, count, sqes, array);
}

static void submit(const struct submitting *to)
{
	uint32_t all = (uint32_t)to->entry->n_requests, most = to->entry->sq_entries, count;

	for (uint32_t first = 0; first < all; first += count) {
		count = min(all - first, most);
		write_requests(to, first, count);
		add_call(to->calls, "submit requests to an io_uring again", SYS_io_uring_enter,
			 (uint64_t)to->fd, count);
	}
	write_saved(to, min(all, most));
}

static void plan_ring(const struct task *task, const struct file *ring, const struct index *table,
		      struct call_list *calls)
{
	struct submitting to = {
		.calls = calls,
		.entry = ring->entry->uring,
		.like = io_uring_like(ring->entry->uring),
		.self = thread_own_id(&task->threads[0]),
		.fd = descriptor_in(table, ring->id),
		.sqe_size = sizeof(struct io_uring_sqe)
			    << !!(ring->entry->uring->setup & IORING_SETUP_SQE128),
		.table = table,
	};

	to.rings = find_part(task, ring, IORING_OFF_SQ_RING, to.like.rings_size)->start;
	to.sqes = find_part(task, ring, IORING_OFF_SQES, to.like.sqes_size)->start;
	submit(&to);
}

void io_uring_plan_requests(const struct snapshot *snapshot, const struct task *task, size_t thread,
			    struct call_list *calls)
{
	const struct file_list *rings = files_of_kind(snapshot, &file_kind_io_uring);
	struct index table = { 0 };

	for (size_t i = 0; i < rings->count; i++) {
		if (!is_of(rings->items[i], task, thread))
			continue;
		if (!table.count)
			index_table(task, &table);
		plan_ring(task, rings->items[i], &table, calls);
	}
	index_free(&table);
}

/* The kernel takes no more after a request that it does not accept. Its own count is in fdinfo. */
static int check_position(const struct file *ring)
{
	autofree char *text = NULL;
	const char *line;
	char path[64];
	unsigned head;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", ring->fd);
	line = read_text_at(AT_FDCWD, path, &text) > 0 ? strstr(text, "\nCachedSqHead:") : NULL;
	if (!line || sscanf(line, "\nCachedSqHead: %u", &head) != 1)
		return fail(EINVAL, "file %u (io_uring): the kernel does not tell its position", ring->id);
	if (head == ring->entry->uring->sq_head)
		return 0;
	return fail(EINVAL, "file %u (io_uring): the kernel has not accepted its requests again", ring->id);
}

int io_uring_check_submitted(const struct snapshot *snapshot)
{
	const struct file_list *rings = files_of_kind(snapshot, &file_kind_io_uring);
	int result = 0;

	for (size_t i = 0; !result && i < rings->count; i++)
		if (rings->items[i]->fd >= 0 && rings->items[i]->entry->uring->n_requests)
			result = check_position(rings->items[i]);
	return result;
}
