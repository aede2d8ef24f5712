/*
 * newborn.c - what a task does for itself while it still runs criu's code: from its birth to the jump into the restorer.
 *
 * A failure is recorded (the record is shared), noted on the board, and ends the newborn; criu then ends the others. A newborn that
 * loses its parent dies by PR_SET_PDEATHSIG.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/rseq.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "arch/arch.h"
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"
#include "files/locks.h"
#include "files/terminal.h"
#include "futex.h"
#include "restore/lives.h"
#include "restore/restore.h"
#include "task/part.h"

static does_not_return void give_up(struct restore *restore)
{
	__atomic_store_n(&restore->board->failed, 1, __ATOMIC_SEQ_CST);
	futex_wake(&restore->board->arrived);
	_exit(1);
}

/* ---- family ---- */

/* Forks the children that have to be born before (or after) our own setsid(). */
static int bear_children(struct restore *restore, struct task *task, bool before_session)
{
	struct task *child;

	list_for_each (child, &task->children, sibling) {
		pid_t wanted = child->newborn->initial_session;
		bool is_early = task->session == task->pid && wanted && wanted != task->pid;
		pid_t born = is_early == before_session ? spawn_task(restore, child) : 0;

		if (born < 0)
			return born;
	}
	return 0;
}

static int become_leader(struct restore *restore, const struct task *task)
{
	if (task->session == task->pid && setsid() < 0)
		return fail(errno, "cannot begin a session");
	if (task->group == task->pid && task->session != task->pid && setpgid(0, 0) < 0)
		return fail(errno, "cannot begin a process group");
	return terminal_take_control(&restore->snapshot, task);
}

/* Brings forth the leader of a group that has lost it, who goes again when all members have joined. */
static int bear_stand_in(struct restore *restore, struct task *task)
{
	pid_t pid = task->newborn->stand_in;
	long born;

	if (!pid)
		return 0;
	born = clone_with_pid(pid, 0, SIGCHLD, -1, NULL);
	if (born < 0 && errno == EEXIST)
		return fail_for_taken_id("the former leader of a process group,", pid);
	if (born < 0)
		return fail(errno, "cannot make process %d, which once led a group", pid);
	if (born) {
		life_note_birth(task->newborn->stand_in_life);
		return 0;
	}
	life_begin(task->newborn->stand_in_life);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != task->pid)
		_exit(1);
	if (setpgid(0, 0) < 0) {
		fail(errno, "cannot begin process group %d again", pid);
		give_up(restore);
	}
	board_arrive(restore->board);
	board_wait_for_stage(restore->board, STAGE_BURY);
	life_end(task->newborn->stand_in_life);
	_exit(0);
}

static int join_group(struct restore *restore, const struct task *task)
{
	const struct task *root = restore->snapshot.root;

	if (task->group == task->pid)
		return 0;
	/* The group of the shell that started the tree: it now is in the group of the one that restores it. */
	if (task->group == root->group && root->group != root->pid &&
	    !snapshot_find_task(&restore->snapshot, task->group) && root->session != root->pid)
		return 0;
	if (setpgid(0, task->group) < 0)
		return fail(errno, "cannot join process group %d", task->group);
	return 0;
}

/* ---- the dead ---- */

static int collect_stand_in(const struct task *task)
{
	if (task->newborn->stand_in && waitpid(task->newborn->stand_in, NULL, __WALL) < 0)
		return fail(errno, "cannot collect process %d", task->newborn->stand_in);
	return 0;
}

static does_not_return void die_again(struct restore *restore, const struct task *task)
{
	int status = task->cores[0]->tc->exit_code;
	struct rlimit no_core = { 0 };

	prctl(PR_SET_NAME, task->name);
	if (join_group(restore, task))
		give_up(restore);
	board_arrive(restore->board);
	board_wait_for_stage(restore->board, STAGE_BURY);
	if (collect_stand_in(task))
		give_up(restore);
	life_end(task->newborn->life);
	if (WIFSIGNALED(status)) {
		sigset_t all;

		setrlimit(RLIMIT_CORE, &no_core);
		signal(WTERMSIG(status), SIG_DFL);
		sigemptyset(&all);
		sigprocmask(SIG_SETMASK, &all, NULL);
		kill(getpid(), WTERMSIG(status));
	}
	_exit(WEXITSTATUS(status));
}

/* ---- the rest of a process that is not memory ---- */

static int write_number(const char *path, long long number)
{
	char text[32];
	int result;

	snprintf(text, sizeof(text), "%lld", number);
	result = write_text_at(AT_FDCWD, path, text);
	return result ? fail(-result, "cannot write %lld to %s", number, path) : 0;
}

static int set_proc_files(const TaskCoreEntry *core)
{
	autoclose int self = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
	long long now;

	if (core->has_oom_score_adj && proc_read_number(self, "oom_score_adj", 10, &now) == 0 &&
	    now != core->oom_score_adj && write_number("/proc/self/oom_score_adj", core->oom_score_adj))
		return -EPERM;
	if (core->has_loginuid && proc_read_number(self, "loginuid", 10, &now) == 0 &&
	    now != core->loginuid && write_number("/proc/self/loginuid", core->loginuid))
		return -EPERM;
	if (core->has_core_filter && proc_read_number(self, "coredump_filter", 16, &now) == 0 &&
	    now != core->core_filter && write_number("/proc/self/coredump_filter", core->core_filter))
		return -EPERM;
	return 0;
}

static int enter_directories(struct restore *restore, const struct task *task)
{
	const struct file *root = snapshot_find_file(&restore->snapshot, task->fs->root_id);
	const struct file *cwd = snapshot_find_file(&restore->snapshot, task->fs->cwd_id);

	if (!root || !cwd || root->fd < 0 || cwd->fd < 0)
		return fail(EINVAL, "the images do not hold its directories");
	if (strcmp(root->entry->reg->name, "/") && (fchdir(root->fd) < 0 || chroot(".") < 0))
		return fail(errno, "cannot change the root to %s", root->entry->reg->name);
	if (fchdir(cwd->fd) < 0)
		return fail(errno, "cannot change the directory to %s", cwd->entry->reg->name);
	if (task->fs->has_umask)
		umask(task->fs->umask);
	return 0;
}

static int arrange_files(struct restore *restore, struct task *task)
{
	const struct file *exe = snapshot_find_file(&restore->snapshot, task->mm->exe_file_id);
	int log = log_descriptor(), result;
	int *kept[2] = { &task->exe_fd, &log };

	if (!exe || exe->fd < 0)
		return fail(EINVAL, "the images do not hold its executable");
	/* The executable may be somebody's open file, too: a number of its own. */
	task->exe_fd = fcntl(exe->fd, F_DUPFD_CLOEXEC, 0);
	if (task->exe_fd < 0)
		return fail(errno, "no free descriptor");
	result = files_settle(&restore->snapshot, task) ?:
			 files_arrange(&restore->snapshot, task, kept, array_size(kept));
	log_move(log);
	return result ?: locks_take(&restore->snapshot, task);
}

/* ---- the way out ---- */

/* glibc registered these for us; the memory they point to is about to go. */
static void forget_registrations(void)
{
	char *rseq = (char *)__builtin_thread_pointer() + __rseq_offset;

	if (__rseq_size)
		syscall(SYS_rseq, rseq, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
	syscall(SYS_set_robust_list, NULL, 24);
	syscall(SYS_set_tid_address, NULL);
}

static void block_all_signals(void)
{
	uint64_t all = ~0ULL;

	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof(all));
}

/* A list that is laid out from *cursor on (an offset in the region): its bytes now, while it is filled; its calls later. */
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
	newborn->region_size = size;
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
		return fail(ENOMEM, "the calls that restore the process do not fit their place");
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

static does_not_return void enter_restorer(const struct newborn *newborn, size_t stack_end)
{
	const struct restorer_header *header = (const struct restorer_header *)(uintptr_t)newborn->region;

	forget_registrations();
	arch_jump(newborn->region + header->start, newborn->region + stack_end);
}

static int become_alone(struct restore *restore, struct task *task)
{
	return space_build(restore, task)		   ?:
		       bear_children(restore, task, true)  ?:
		       become_leader(restore, task)	   ?:
		       bear_children(restore, task, false) ?:
							     bear_stand_in(restore, task);
}

static int settle(struct restore *restore, struct task *task)
{
	int result = join_group(restore, task) ?: files_set_owners(&restore->snapshot, task);

	die_with_parent(restore, task);
	return result;
}

static int prepare_to_leave(struct restore *restore, struct task *task)
{
	block_all_signals();
	return set_proc_files(task->cores[0]->tc)	?:
		       enter_directories(restore, task) ?:
		       arrange_files(restore, task)	?:
							  build_region(restore, task);
}

void newborn_main(struct restore *restore, struct task *task)
{
	const struct restorer_thread *threads;
	const struct restorer_arguments *arguments;

	if (restore->request->logs_per_process && log_per_process())
		give_up(restore);
	log_debug("process %d (%s) is born", task->pid, task->name);
	if (cgroups_join(restore, task)) /* first of all: what it uses counts where it is */
		goto failed;
	space_renew(task);
	if (task->state == TASK_DEAD) {
		if (bear_children(restore, task, true) || become_leader(restore, task) ||
		    bear_children(restore, task, false) || bear_stand_in(restore, task))
			give_up(restore);
		board_arrive(restore->board);
		board_wait_for_stage(restore->board, STAGE_SETTLE);
		die_again(restore, task);
	}
	if (become_alone(restore, task))
		goto failed;
	board_arrive(restore->board);
	board_wait_for_stage(restore->board, STAGE_SETTLE);
	if (settle(restore, task))
		goto failed;
	board_arrive(restore->board);
	board_wait_for_stage(restore->board, STAGE_BURY);
	if (collect_stand_in(task))
		goto failed;
	board_arrive(restore->board);
	board_wait_for_stage(restore->board, STAGE_LEAVE);
	if (prepare_to_leave(restore, task))
		goto failed;
	arguments = (const void *)(uintptr_t)(task->newborn->region + RESTORER_ARGUMENTS);
	threads = (const void *)(uintptr_t)(task->newborn->region + arguments->threads);
	enter_restorer(task->newborn, threads[0].stack);
failed:
	fail_in(-1, "process %d (%s)", task->pid, task->name);
	give_up(restore);
}
