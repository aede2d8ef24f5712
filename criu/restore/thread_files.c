/*
 * thread_files.c - descriptors that need a thread: of a file of /proc about a thread, of its pidfd (PIDFD_THREAD).
 *
 * All threads exist and are stopped, and every process has its final descriptors. Each such file is open in criu by
 * now, and lies in an envelope whose other end is in its place (files/late.c). The leader of each table that has one
 * takes it out there, by system calls that criu makes in it. If a table is full, its limit is raised meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include "arch.h"
#include "base/error.h"
#include "base/index.h"
#include "compel.h"
#include "files/kind.h"
#include "restore/restore.h"

/* In the region of the restorer, which is no longer read there. */
struct received {
	struct msghdr message;
	struct iovec byte;
	char room[8];
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr header;
	} control;
};

static int call(const struct restore *restore, struct task *task, long number, uint64_t first,
		uint64_t second, uint64_t third, long *answer)
{
	const struct restorer_header *header = (const struct restorer_header *)restorer_blob_start;
	struct traced_thread *thread = &task->victim->threads[0];
	const uint64_t arguments[6] = { first, second, third };

	return trace_syscall(thread, region_of(restore, task) + header->syscall,
			     arch_stack_pointer(&thread->context.registers), number, arguments, answer);
}

/* Returns its new number in the task. */
static int take_out(const struct restore *restore, struct task *task, int from)
{
	uint64_t at = region_of(restore, task) + RESTORER_ARGUMENTS;
	struct received received = {
		.message = {
			.msg_iov = (void *)(uintptr_t)(at + offsetof(struct received, byte)),
			.msg_iovlen = 1,
			.msg_control = (void *)(uintptr_t)(at + offsetof(struct received, control)),
			.msg_controllen = sizeof(received.control.bytes),
		},
		.byte = { (void *)(uintptr_t)(at + offsetof(struct received, room)), 1 },
	};
	long answer;
	int fd, result = victim_write(task->victim, at, &received, sizeof(received)) ?:
				 call(restore, task, SYS_recvmsg, from, at,
				      MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC, &answer);

	if (!result && answer < 0)
		result = fail(-answer, "cannot receive the file of descriptor %d", from);
	if (!result)
		result = victim_read(task->victim, at, &received, sizeof(received));
	if (result)
		return result;
	if (received.message.msg_controllen < CMSG_LEN(sizeof(int)) ||
	    received.control.header.cmsg_type != SCM_RIGHTS)
		return fail(EMFILE, "there is no free descriptor for the file of descriptor %d", from);
	memcpy(&fd, CMSG_DATA(&received.control.header), sizeof(fd));
	return fd;
}

/* getrlimit() or setrlimit() of the task. */
static int use_limit(const struct restore *restore, struct task *task, long number, struct rlimit *limit)
{
	uint64_t at = region_of(restore, task) + RESTORER_ARGUMENTS;
	long answer;
	int result = victim_write(task->victim, at, limit, sizeof(*limit)) ?:
			     call(restore, task, number, RLIMIT_NOFILE, at, 0, &answer);

	if (!result && answer < 0)
		result = fail(-answer, "cannot read or change the limit of descriptors");
	return result ?: victim_read(task->victim, at, limit, sizeof(*limit));
}

static bool needs_thread(const struct restore *restore, const struct descriptor *descriptor)
{
	return file_lateness(&restore->snapshot, descriptor->file) == FILE_NEEDS_THREAD;
}

/*
 * The limit with which they can be placed: all of their numbers are below it, and so is one that is free. Descriptors
 * are sorted.
 */
static rlim_t needed_limit(const struct restore *restore, const struct descriptor_table *table)
{
	rlim_t most = 0, free = 0;

	for (size_t i = 0; i < table->count; i++) {
		const struct descriptor *descriptor = &table->items[i];

		free += (rlim_t)descriptor->fd == free;
		if (needs_thread(restore, descriptor))
			most = descriptor->fd;
	}
	return max(most, free) + 1;
}

/*
 * Returns whether *before has to be restored. A process may have more descriptors than its limit allows: it was lowered
 * later.
 */
static int make_room(const struct restore *restore, struct task *task, struct rlimit *before)
{
	rlim_t needed = needed_limit(restore, task->table);
	struct rlimit more;
	int result = use_limit(restore, task, SYS_getrlimit, before);

	if (result || before->rlim_cur >= needed)
		return result;
	more.rlim_cur = needed;
	more.rlim_max = max(before->rlim_max, more.rlim_cur);
	return use_limit(restore, task, SYS_setrlimit, &more) ?: 1;
}

static int copy(const struct restore *restore, struct task *task, int from, const struct descriptor *to)
{
	long answer;
	int result = call(restore, task, SYS_dup3, from, to->fd, to->closes_on_exec ? O_CLOEXEC : 0, &answer);

	return !result && answer < 0 ?
		       fail(-answer, "cannot move file %u to descriptor %d", to->file->id, to->fd) :
		       result;
}

static int place_first(const struct restore *restore, struct task *task, const struct descriptor *descriptor)
{
	long answer;
	int fd = take_out(restore, task, descriptor->fd), result;

	if (fd < 0)
		return fd;
	result = copy(restore, task, fd, descriptor);
	return result ?: call(restore, task, SYS_close, fd, 0, 0, &answer);
}

/* `placed`: the first descriptor of each file, from which its others are copied. */
static int place(const struct restore *restore, struct task *task, const struct descriptor *descriptor,
		 struct index *placed)
{
	const struct descriptor *first = index_find(placed, descriptor->file->id);

	if (first)
		return copy(restore, task, first->fd, descriptor);
	index_set(placed, descriptor->file->id, (void *)descriptor);
	return place_first(restore, task, descriptor);
}

int thread_files_place(const struct restore *restore, struct task *task)
{
	const struct descriptor_table *table = task->table;
	struct index placed = { 0 };
	struct rlimit limit = { 0 };
	bool has_more_room = false;
	int result = 0;

	if (!task_leads(task, OBJECT_DESCRIPTORS))
		return 0;
	for (size_t i = 0; !result && i < table->count; i++) {
		const struct descriptor *descriptor = &table->items[i];

		if (!needs_thread(restore, descriptor))
			continue;
		if (!placed.count)
			result = make_room(restore, task, &limit);
		has_more_room |= result > 0;
		result = min(result, 0) ?: place(restore, task, descriptor, &placed);
	}
	if (!result && has_more_room)
		result = use_limit(restore, task, SYS_setrlimit, &limit);
	index_free(&placed);
	return result;
}
