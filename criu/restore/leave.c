/*
 * leave.c - a newborn leaves criu's code: its parts prepare, it takes its descriptors and locks, lays out the region of
 * the restorer (restorer.h has a picture), and jumps there. The remaining work for its address space and its threads is
 * in lists of calls by then.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/rseq.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "arch/arch.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"
#include "files/locks.h"
#include "restore/restore.h"
#include "task/part.h"

static int arrange_files(struct restore *restore, struct task *task)
{
	const struct file *exe = snapshot_find_file(&restore->snapshot, task->mm->exe_file_id);
	int log = log_descriptor(), result;
	int *kept[2] = { &task->exe_fd, &log };

	if (!exe || exe->fd < 0)
		return fail(EINVAL, "its executable is missing in the images");
	/* The executable may also be an open file of the task, so it gets its own number. */
	task->exe_fd = fcntl(exe->fd, F_DUPFD_CLOEXEC, 0);
	if (task->exe_fd < 0)
		return fail(errno, "no free descriptor");
	result = files_settle(&restore->snapshot, task) ?:
			 files_arrange(&restore->snapshot, task, kept, array_size(kept));
	log_move(log);
	return result ?: locks_take(&restore->snapshot, task);
}

/* ---- the region ---- */

/*
 * A list that is laid out from *cursor on (an offset in the region): its bytes now, while it is filled; its calls
 * later.
 */
static void begin_list(struct newborn *newborn, struct call_list *list, uint64_t *cursor)
{
	*cursor = round_up(*cursor, 16UL);
	calls_init(list, newborn->region + *cursor);
}

static void make_lists(struct restore *restore, struct task *task, uint64_t *cursor)
{
	struct newborn *newborn = task->newborn;

	begin_list(newborn, &newborn->space, cursor);
	space_plan(restore, task, &newborn->space);
	*cursor += newborn->space.size;
	newborn->self = allocate_array(task->thread_count, sizeof(*newborn->self));
	for (size_t thread = 0; thread < task->thread_count; thread++) {
		struct call_list *list = &newborn->self[thread];

		begin_list(newborn, list, cursor);
		for (size_t part = 0; part < task_part_count; part++)
			if (task_parts[part]->make)
				task_parts[part]->make(&restore->snapshot, task, thread, list);
		if (!thread) {
			call(list, "close the executable", SYS_close, task->exe_fd);
			call(list, "close the log", SYS_close, log_descriptor());
		}
		*cursor += list->size;
	}
}

static uint64_t place_list(const struct newborn *newborn, const struct call_list *list, uint64_t *cursor)
{
	uint64_t at = *cursor = round_up(*cursor, 16UL);

	if (list->size)
		memcpy((void *)(uintptr_t)list->base, list->bytes, list->size);
	memcpy((char *)(uintptr_t)newborn->region + at, list->calls, list->count * sizeof(*list->calls));
	*cursor += list->count * sizeof(*list->calls);
	return at;
}

static uint64_t size_of_calls(const struct task *task)
{
	const struct newborn *newborn = task->newborn;
	uint64_t size = newborn->space.count * sizeof(struct remote_call) + 16;

	for (size_t i = 0; i < task->thread_count; i++)
		size += newborn->self[i].count * sizeof(struct remote_call) + 16;
	return size;
}

static int map_region(struct newborn *newborn, size_t size, struct restorer_board *board)
{
	char *region = mmap((void *)(uintptr_t)newborn->region, size, PROT_READ | PROT_WRITE | PROT_EXEC,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (region == MAP_FAILED)
		return fail(errno, "no memory for the restorer");
	memcpy(region, restorer_blob_start, restorer_blob_end - restorer_blob_start);
	if (mremap(board, PAGE_SIZE, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, region + RESTORER_BOARD) ==
	    MAP_FAILED)
		return fail(errno, "cannot move the board into the region of the restorer");
	return 0;
}

/* Lays out the region as restorer.h draws it. */
static int build_region(struct restore *restore, struct task *task)
{
	struct newborn *newborn = task->newborn;
	uint64_t threads = RESTORER_ARGUMENTS + round_up(sizeof(struct restorer_arguments), 16UL);
	uint64_t cursor = threads + task->thread_count * sizeof(struct restorer_thread), stacks, size;
	struct restorer_arguments *arguments;
	struct restorer_thread *thread;
	int result;

	newborn->region = restore->refuge_start;
	make_lists(restore, task, &cursor);
	stacks = round_up(cursor + size_of_calls(task), PAGE_SIZE);
	size = stacks + task->thread_count * RESTORER_STACK_SIZE;
	if (size > REGION_ROOM)
		return fail(ENOMEM,
			    "the calls that restore the process do not fit into the region of the restorer");
	result = map_region(newborn, size, restore->board);
	if (result)
		return result;
	restore->board = (struct restorer_board *)(uintptr_t)(newborn->region + RESTORER_BOARD);
	arguments = (struct restorer_arguments *)(uintptr_t)(newborn->region + RESTORER_ARGUMENTS);
	arguments->threads = threads;
	arguments->thread_count = task->thread_count;
	arguments->space_call_count = newborn->space.count;
	arguments->space_calls = place_list(newborn, &newborn->space, &cursor);
	thread = (struct restorer_thread *)(uintptr_t)(newborn->region + threads);
	for (size_t i = 0; i < task->thread_count; i++)
		thread[i] = (struct restorer_thread){
			.tid = task->threads[i],
			.call_count = newborn->self[i].count,
			.calls = place_list(newborn, &newborn->self[i], &cursor),
			.stack = stacks + (i + 1) * RESTORER_STACK_SIZE,
		};
	return 0;
}

/* ---- the jump ---- */

/* glibc registered these; the memory that they point to is about to be unmapped. */
static void forget_registrations(void)
{
	char *rseq = (char *)__builtin_thread_pointer() + __rseq_offset;

	if (__rseq_size)
		syscall(SYS_rseq, rseq, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
	syscall(SYS_set_robust_list, NULL, 24);
	syscall(SYS_set_tid_address, NULL);
}

static does_not_return void enter_restorer(uint64_t region)
{
	const struct restorer_header *header = (const void *)(uintptr_t)region;
	const struct restorer_arguments *arguments = (const void *)(uintptr_t)(region + RESTORER_ARGUMENTS);
	const struct restorer_thread *leader = (const void *)(uintptr_t)(region + arguments->threads);

	forget_registrations();
	arch_jump(region + header->start, region + leader->stack);
}

void newborn_leave(struct restore *restore, struct task *task)
{
	int result = task_parts_prepare(&restore->snapshot, task) ?:
			     arrange_files(restore, task)	  ?:
								    build_region(restore, task);

	if (!result)
		enter_restorer(task->newborn->region);
}
