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
#include "restore/baton.h"
#include "restore/gates.h"
#include "restore/restore.h"
#include "task/part.h"

/* Rounds of gates. */
#define ROUND_SETTLE  1 /* of descriptors */
#define ROUND_ARRANGE 2
#define ROUND_PREPARE 1 /* of directories */
#define ROUND_LEAVE   1 /* of memory */

/* ---- descriptors and directories, which several tasks may share ---- */

/*
 * An epoll temporarily gives its targets numbers of the table (files/kinds/epoll.c), so meanwhile no other user of the
 * table may open anything. This comes before prepare(), which may change the root: terminals are opened by their paths.
 */
static int settle_files(struct restore *restore, struct task *task)
{
	int result;

	if (!task_leads(task, OBJECT_DESCRIPTORS)) {
		result = files_settle(&restore->snapshot, task);
		gate_arrive(task, OBJECT_DESCRIPTORS);
		gate_await_leader(task, OBJECT_DESCRIPTORS, ROUND_SETTLE);
		return result;
	}
	gate_await_users(task, OBJECT_DESCRIPTORS, ROUND_SETTLE);
	result = files_settle(&restore->snapshot, task);
	gate_open(task, OBJECT_DESCRIPTORS, ROUND_SETTLE);
	return result;
}

/* The leader of the directories enters them last, when no other user looks up paths any more. */
static int prepare(struct restore *restore, struct task *task)
{
	int result;

	gate_await_users(task, OBJECT_DIRECTORIES, ROUND_PREPARE);
	result = task_parts_prepare(&restore->snapshot, task);
	gate_arrive(task, OBJECT_DIRECTORIES);
	return result;
}

/* The executable may also be an open file of a task, so it gets a descriptor of its own. */
static int keep_executable(struct restore *restore, struct task *task)
{
	const struct file *file = snapshot_find_file(&restore->snapshot, task->space->mm->exe_file_id);

	task->exe_fd = -1;
	if (!task_leads(task, OBJECT_MEMORY))
		return 0;
	if (!file || file->fd < 0)
		return fail(EINVAL, "its executable is missing in the images");
	task->exe_fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 0);
	return task->exe_fd < 0 ? fail(errno, "no free descriptor") : 0;
}

/*
 * If the memory is shared, another user may have a descriptor table of its own and arrange that later: it needs the old
 * numbers in struct file.
 */
static int arrange(struct task *task, int **kept, size_t count)
{
	const struct descriptor_table *table = task->table;
	autofree int *numbers = allocate_array(table->count + 1, sizeof(*numbers));
	int result;

	for (size_t i = 0; i < table->count; i++)
		numbers[i] = table->items[i].file->fd;
	result = files_arrange(task, kept, count);
	for (size_t i = 0; i < table->count; i++)
		table->items[i].file->fd = numbers[i];
	return result;
}

/* Arranges the table. The log and the executables, which stay open, may get other numbers. */
static int arrange_table(struct restore *restore, struct task *task)
{
	size_t users = task->table->object.user_count;
	autofree int **kept = allocate_array(users + 1, sizeof(*kept));
	int *executables = gate_executable(task) ?: &task->exe_fd, log = log_descriptor(), result;

	*executables = task->exe_fd;
	for (size_t i = 0; i < users; i++)
		kept[i] = &executables[i]; /* the leader is the first */
	kept[users] = &log;
	result = arrange(task, kept, users + 1);
	task->exe_fd = *executables;
	log_move(log);
	if (gate_log(task))
		*gate_log(task) = log;
	return result ?: locks_take(&restore->snapshot, task);
}

static int arrange_files(struct restore *restore, struct task *task)
{
	int result = keep_executable(restore, task);

	if (result)
		return result;
	if (task_leads(task, OBJECT_DESCRIPTORS)) {
		gate_await_users(task, OBJECT_DESCRIPTORS, ROUND_ARRANGE);
		result = arrange_table(restore, task);
		gate_open(task, OBJECT_DESCRIPTORS, ROUND_ARRANGE);
		return result;
	}
	*gate_executable(task) = task->exe_fd;
	gate_arrive(task, OBJECT_DESCRIPTORS);
	gate_await_leader(task, OBJECT_DESCRIPTORS, ROUND_ARRANGE);
	task->exe_fd = *gate_executable(task);
	log_move(*gate_log(task));
	return locks_take(&restore->snapshot, task);
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
	if (task_leads(task, OBJECT_MEMORY))
		space_plan(restore, task, &newborn->space);
	*cursor += newborn->space.size;
	newborn->self = allocate_array(task->thread_count, sizeof(*newborn->self));
	for (size_t thread = 0; thread < task->thread_count; thread++) {
		struct call_list *list = &newborn->self[thread];

		begin_list(newborn, list, cursor);
		for (size_t part = 0; part < task_part_count; part++)
			if (task_parts[part]->make && part_concerns(task_parts[part], task, thread))
				task_parts[part]->make(&restore->snapshot, task, thread, list);
		if (!thread) {
			if (task_leads(task, OBJECT_MEMORY))
				add_call(list, "close the executable", SYS_close, task->exe_fd);
			if (task_leads(task, OBJECT_DESCRIPTORS))
				add_call(list, "close the log", SYS_close, log_descriptor());
		}
		*cursor += list->size;
	}
}

static uint64_t place_list(const struct newborn *newborn, const struct call_list *list, uint64_t *cursor)
{
	uint64_t at = *cursor = round_up(*cursor, 16UL);

	if (list->size)
		memcpy((void *)(uintptr_t)list->base, list->bytes, list->size);
	if (list->count)
		memcpy((char *)(uintptr_t)newborn->region + at, list->calls,
		       list->count * sizeof(*list->calls));
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
		return fail(errno, "no memory for criu's code (the restorer)");
	memcpy(region, restorer_blob_start, restorer_blob_end - restorer_blob_start);
	/* Size 0 makes a second mapping of the same page. Other tasks with this memory still use the first one. */
	if (mremap(board, 0, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, region + RESTORER_BOARD) == MAP_FAILED)
		return fail(errno, "cannot map criu's shared memory beside criu's code (the restorer)");
	return 0;
}

/* All threads of a process are in equally many pid namespaces. */
static void place_ids(const struct task *task, pid_t *ids)
{
	pid_t wanted[PID_LEVELS_MOST];

	for (size_t i = 0; i < task->thread_count; i++) {
		size_t levels = thread_wanted_ids(&task->threads[i], wanted);

		memcpy(ids + i * levels, wanted, levels * sizeof(*wanted));
	}
}

/* Lays out the region as restorer.h draws it. */
static int build_region(struct restore *restore, struct task *task)
{
	struct newborn *newborn = task->newborn;
	uint64_t threads = RESTORER_ARGUMENTS + round_up(sizeof(struct restorer_arguments), 16UL);
	uint64_t ids = threads + task->thread_count * sizeof(struct restorer_thread), stacks, size;
	size_t levels = task->threads[0].nested_count + 1;
	uint64_t cursor = ids + task->thread_count * levels * sizeof(pid_t);
	struct restorer_arguments *arguments;
	struct restorer_thread *thread;
	int result;

	newborn->region = region_of(restore, task);
	make_lists(restore, task, &cursor);
	stacks = round_up(cursor + size_of_calls(task), PAGE_SIZE);
	size = stacks + task->thread_count * RESTORER_STACK_SIZE;
	if (size > REGION_ROOM)
		return fail(ENOMEM,
			    "the system calls that restore the process do not fit into the memory for them");
	result = map_region(newborn, size, restore->board);
	if (result)
		return result;
	arguments = (struct restorer_arguments *)(uintptr_t)(newborn->region + RESTORER_ARGUMENTS);
	arguments->leader = region_of(restore, task->space->object.leader);
	arguments->others = task->space->object.user_count - 1;
	arguments->threads = threads;
	arguments->thread_count = task->thread_count;
	arguments->ids = ids;
	arguments->id_levels = levels;
	arguments->space_call_count = newborn->space.count;
	arguments->space_calls = place_list(newborn, &newborn->space, &cursor);
	thread = (struct restorer_thread *)(uintptr_t)(newborn->region + threads);
	place_ids(task, (pid_t *)(uintptr_t)(newborn->region + ids));
	for (size_t i = 0; i < task->thread_count; i++)
		thread[i] = (struct restorer_thread){
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

static does_not_return void enter_restorer(const struct task *task, uint64_t region)
{
	const struct restorer_header *header = (const void *)(uintptr_t)region;
	const struct restorer_arguments *arguments = (const void *)(uintptr_t)(region + RESTORER_ARGUMENTS);
	const struct restorer_thread *leader = (const void *)(uintptr_t)(region + arguments->threads);

	uint64_t start = region + header->start, stack = region + leader->stack;

	forget_registrations();
	baton_give(task);
	arch_jump(start, stack);
}

void newborn_leave(struct restore *restore, struct task *task)
{
	int log = log_descriptor();
	int result = settle_files(restore, task) ?: prepare(restore, task);

	if (result || arrange_files(restore, task) || build_region(restore, task))
		return;
	/*
	 * Tasks that share the memory share this number, too. While this one waits, another arranges its table, where
	 * the log has not moved yet.
	 */
	log_move(log);
	/* They meet in the leader's region, so that must exist first. */
	gate_open(task, OBJECT_MEMORY, ROUND_LEAVE);
	gate_await_leader(task, OBJECT_MEMORY, ROUND_LEAVE);
	enter_restorer(task, task->newborn->region);
}
