/*
 * spawn.c - creates the tree with the old pids, each task by its creator (model/births.h), the root before all else
 * (root.c); drives it through the stages; and if anything goes wrong, leaves no task behind.
 */
#include <errno.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/time.h"
#include "compel.h"
#include "futex.h"
#include "kernel/proc.h"
#include "model/births.h"
#include "namespaces/kind.h"
#include "restore/baton.h"
#include "restore/lives.h"
#include "restore/restore.h"

#define LOOK_EVERY  100000000	/* nanoseconds between checks for deaths, and for the progress line */
#define ID_PATIENCE 200		/* milliseconds, until an id is free that another process uses for a moment */
#define APART_STACK (1UL << 20) /* only pages that are touched cost anything */

void board_arrive(struct restorer_board *board)
{
	__atomic_fetch_add(&board->arrived, 1, __ATOMIC_SEQ_CST);
	futex_wake(&board->arrived);
}

void board_wait_for_stage(struct restorer_board *board, enum stage stage)
{
	for (;;) {
		uint32_t now = __atomic_load_n(&board->stage, __ATOMIC_SEQ_CST);

		if (now >= stage)
			return;
		sys_futex(&board->stage, FUTEX_WAIT, now, NULL, NULL,
			  0); /* errno may be another's: baton.h */
	}
}

static void board_open_stage(struct restorer_board *board, enum stage stage)
{
	__atomic_store_n(&board->arrived, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&board->stage, stage, __ATOMIC_SEQ_CST);
	futex_wake(&board->stage);
}

/* The restorer sets `failed` before it stores the reason; the result is stored last. */
static bool has_restorer_failed(const struct restorer_board *board)
{
	uint64_t deadline = monotonic_time() + LOOK_EVERY;

	while (board->failed && !__atomic_load_n(&board->failed_result, __ATOMIC_SEQ_CST) &&
	       monotonic_time() < deadline)
		usleep(1000);
	return board->failed_result;
}

/* A newborn gave up, or vanished: the first one with a cause has recorded it. */
static int report_failure(struct restore *restore)
{
	const struct restorer_board *board = restore->board;
	const struct task *task;

	if (has_failed())
		return min(-failure_errno(), -1);
	if (!has_restorer_failed(board))
		return fail(0, "a process ended while it was being restored");
	task = snapshot_find_thread(&restore->snapshot, board->failed_tid);
	if (!task)
		return fail(-board->failed_result, "thread %d cannot be restored", board->failed_tid);
	if (board->failed_list == RESTORER_THREADS && board->failed_result == -EEXIST)
		return fail_for_taken_id("thread", task->threads[board->failed_index].tid);
	if (board->failed_list == RESTORER_THREADS)
		return fail(-board->failed_result, "process %d (%s): cannot create thread %d", task->pid,
			    task->name, task->threads[board->failed_index].tid);
	return fail(-board->failed_result, "process %d (%s): cannot %s (call %d of thread %d)", task->pid,
		    task->name,
		    board->failed_list == RESTORER_LIST_SPACE ? "lay out its memory" : "restore its state",
		    board->failed_index, board->failed_tid);
}

static void show_progress(const struct restore *restore)
{
	const struct task *task;
	uint64_t total = 0;

	for_each_task (task, &restore->snapshot)
		total += page_runs_total(&task->newborn->memory.runs);
	progress_amount(__atomic_load_n(&restore->newborns->pages, __ATOMIC_RELAXED) << PAGE_SHIFT,
			total << PAGE_SHIFT);
}

/*
 * A task that is traced stops when it gets a signal from another process, until criu handles that. SIGCHLD reports it.
 */
static volatile sig_atomic_t has_stopped_tasks;

static void note_stopped_task(int signal unused)
{
	has_stopped_tasks = 1;
}

static void pass_signals(void)
{
	if (!has_stopped_tasks)
		return;
	has_stopped_tasks = 0;
	trace_pass_signals();
}

/* Many may arrive meanwhile: checks of all of them are made periodically. */
int board_wait_for(struct restore *restore, size_t count)
{
	struct restorer_board *board = restore->board;
	uint64_t look_at = monotonic_time() + LOOK_EVERY;

	for (;;) {
		uint32_t arrived = __atomic_load_n(&board->arrived, __ATOMIC_SEQ_CST);
		uint64_t now = monotonic_time();
		struct timespec patience;

		if (__atomic_load_n(&board->failed, __ATOMIC_SEQ_CST))
			return report_failure(restore);
		if (arrived >= count)
			return 0;
		if (interrupt_check())
			return -EINTR;
		pass_signals();
		if (now >= look_at) {
			show_progress(restore);
			if (lives_check(restore))
				return -failure_errno();
			has_stopped_tasks =
				1; /* a notification may have been lost while SIGCHLD was pending */
			look_at = now + LOOK_EVERY;
		}
		patience = (struct timespec){ .tv_nsec = look_at - now };
		syscall(SYS_futex, &board->arrived, FUTEX_WAIT, arrived, &patience, NULL, 0);
	}
}

/* ---- birth ---- */

/*
 * In a newborn: it must die with criu and with its parent. Set at its creation, and again whenever it has acted as
 * another user, because the kernel clears it then.
 */
void die_with_parent(const struct restore *restore, const struct task *task)
{
	pid_t parent = task->parent ? thread_id_seen_by(&task->parent->threads[0], task) : restore->criu;

	if (!task->parent && restore->request->is_sibling)
		return; /* the watchdog does that */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
}

static int explain_birth(const struct restore *restore, const struct task *task, int cgroup, int error)
{
	pid_t pid = task->pid;

	if (cgroup >= 0 && error != EEXIST)
		return cgroups_explain_birth(restore, task, error);
	if (error == EEXIST)
		return fail_for_taken_id("process", pid);
	if (error == EPERM)
		fail_advice(!task->creator && namespaces_of_birth(&restore->snapshot) ?
				    "run criu as root: the process has namespaces of its own" :
				    "run criu as root, or with CAP_CHECKPOINT_RESTORE");
	return fail(error, "cannot create process %d", pid);
}

/*
 * The child is created with all signals blocked: signals that it gets meanwhile stay pending for the task. SIGCHLD is
 * the exception, and is ignored while it is not blocked: a second one for zombies that die again must not arrive.
 */
static long clone_once(const struct clone_plan *plan)
{
	sigset_t most, before;
	long born;
	struct clone_args arguments = {
		.flags = plan->flags | (plan->cgroup < 0 ? 0 : CLONE_INTO_CGROUP),
		.pidfd = (uintptr_t)plan->pidfd,
		.exit_signal = plan->exit_signal,
		.set_tid = (uintptr_t)plan->pids,
		.set_tid_size = plan->levels,
		.cgroup = max(plan->cgroup, 0),
		.stack = (uintptr_t)plan->stack,
		.stack_size = plan->stack_size,
	};

	sigfillset(&most);
	sigdelset(&most, SIGCHLD);
	sigprocmask(SIG_SETMASK, &most, &before);
	if (plan->live) {
		born = system_clone3(&arguments, sizeof(arguments), plan->live, plan->argument);
		errno = born < 0 ? -born : errno;
	} else {
		born = syscall(SYS_clone3, &arguments, sizeof(arguments));
	}
	if (born)
		sigprocmask(SIG_SETMASK, &before, NULL);
	return born;
}

long clone_with_pids(const struct clone_plan *plan)
{
	long born = clone_once(plan);

	for (int tries = 0; born < 0 && errno == EEXIST && tries < ID_PATIENCE; tries++) {
		usleep(1000);
		born = clone_once(plan);
	}
	return born;
}

static void collect(pid_t pid);

/* The kernel gives each id only once in a round, so the next attempt gets another one. */
pid_t spawn_own(const struct restore *restore, uint64_t flags)
{
	const struct clone_plan plan = { .flags = flags, .exit_signal = SIGCHLD, .cgroup = -1 };

	for (;;) {
		pid_t born = clone_with_pids(&plan);

		if (!born && restore_needs_id(restore, getpid()))
			_exit(0);
		if (born <= 0 || !restore_needs_id(restore, born))
			return born;
		kill(born, SIGKILL); /* it may still be on its way */
		collect(born);
	}
}

/*
 * A process for which waitpid() needs __WALL must need it again. A zombie has sent its signal long ago; the root has
 * another parent now.
 */
static int exit_signal_of(const struct task *task)
{
	if (!task->parent || !task->cores[0]->tc->has_exit_signal)
		return SIGCHLD;
	return task->state == TASK_DEAD ? 0 : births_exit_signal(task);
}

/* A child that shares its creator's memory, and so needs a stack of its own and never returns from it. */
struct apart_life {
	struct restore *restore;
	struct task *task;
};

static void live_apart(void *argument)
{
	const struct apart_life *life = argument;

	die_with_parent(life->restore, life->task);
	baton_take(life->task);
	life_begin(life->task->newborn->life);
	newborn_main(life->restore, life->task);
}

/* Both stay until criu is unmapped: only then is nobody on that stack. */
static int plan_apart_life(struct restore *restore, struct task *task, struct clone_plan *plan)
{
	struct apart_life *life = allocate(sizeof(*life));
	void *stack = mmap(NULL, APART_STACK, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);

	if (stack == MAP_FAILED)
		return fail(errno, "no memory for the stack of process %d", task->pid);
	*life = (struct apart_life){ restore, task };
	plan->live = live_apart;
	plan->argument = life;
	plan->stack = stack;
	plan->stack_size = APART_STACK;
	return 0;
}

pid_t spawn_task(struct restore *restore, struct task *task)
{
	struct clone_plan plan;
	pid_t ids[PID_LEVELS_MOST];
	uint64_t flags = task->creator ? births_flags(task) : root_birth_flags(restore);
	autoclose int cgroup = -1;
	int result = cgroups_open_birthplace(restore, task, &cgroup);
	long born;

	if (result)
		return result;
	plan = (struct clone_plan){
		.pids = ids,
		.levels = thread_wanted_ids(&task->threads[0], ids),
		.flags = flags,
		.exit_signal = flags & CLONE_PARENT ? 0 : exit_signal_of(task),
		.cgroup = cgroup,
		.pidfd = &restore->root, /* of a sibling: CLONE_PIDFD */
	};
	if (flags & CLONE_VM && plan_apart_life(restore, task, &plan))
		return -ENOMEM;
	born = clone_with_pids(&plan);
	if (born < 0)
		return explain_birth(restore, task, cgroup, errno);
	if (!born) {
		life_begin(task->newborn->life);
		/* Descendants do not need it. If the descriptor table is shared, the creator closes it. */
		if (cgroup >= 0 && !(flags & CLONE_FILES))
			close(cgroup);
		die_with_parent(restore, task);
		newborn_main(restore, task);
	}
	life_note_birth(task->newborn->life);
	return born;
}

static size_t living_tasks(const struct snapshot *snapshot)
{
	const struct task *task;
	size_t count = 0;

	for_each_task (task, snapshot)
		count += task->state != TASK_DEAD;
	return count;
}

int restore_spawn(void *context)
{
	struct restore *restore = context;
	const struct task *task;
	size_t stand_ins = 0;
	int result;

	for_each_task (task, &restore->snapshot)
		stand_ins += task->newborn->stand_in > 0;
	board_open_stage(restore->board, STAGE_BIRTH);
	result = watchdog_begin(restore) ?: root_wake(restore);
	if (result)
		return result;
	restore->forked = monotonic_time();
	result = board_wait_for(restore, restore->snapshot.task_count + stand_ins);
	root_forget_wait(restore);
	restore->all_are_born = !result;
	return result;
}

/* ---- stages ---- */

/* A zombie must have died the same way as the first time, and not of something else meanwhile. */
static int check_death(const struct task *task, uint32_t status)
{
	uint32_t wanted = task->cores[0]->tc->exit_code & ~0x80; /* no second core dump */

	if (status == wanted)
		return 0;
	return fail_for_death(task);
}

/* Dead tasks are restored when they are zombies. */
static int wait_for_the_dead(struct restore *restore)
{
	const struct task *task;

	for_each_task (task, &restore->snapshot) {
		autoclose int proc = -1;
		struct proc_stat stat = { 0 };

		if (task->state != TASK_DEAD)
			continue;
		proc = proc_open(task->here);
		if (proc < 0 && proc != -ENOENT)
			return fail(-proc, "cannot read zombie %d", task->pid);
		while (stat.state != 'Z') {
			if (proc < 0 || proc_read_stat(proc, &stat))
				return fail(0, "zombie %d was collected while it was being restored",
					    task->pid);
			if (__atomic_load_n(&restore->board->failed, __ATOMIC_SEQ_CST))
				return report_failure(restore);
			if (stat.state != 'Z')
				usleep(100);
		}
		if (check_death(task, stat.exit_code))
			return -EINVAL;
	}
	return 0;
}

int restore_settle(void *context)
{
	struct restore *restore = context;
	size_t alive = living_tasks(&restore->snapshot);
	int result;

	board_open_stage(restore->board, STAGE_SETTLE);
	result = board_wait_for(restore, restore->snapshot.task_count);
	if (result)
		return result;
	board_open_stage(restore->board, STAGE_BURY);
	return board_wait_for(restore, alive) ?: wait_for_the_dead(restore);
}

int restore_rebuild(void *context)
{
	const struct sigaction noting = { .sa_handler = note_stopped_task, .sa_flags = SA_RESTART };
	struct restore *restore = context;
	sigset_t child, before;
	int result;

	/* The process that started criu may have blocked it. */
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigaction(SIGCHLD, &noting, NULL);
	sigprocmask(SIG_UNBLOCK, &child, &before);
	has_stopped_tasks = 1; /* possible: they have been traced for a while */
	board_open_stage(restore->board, STAGE_LEAVE);
	result = board_wait_for(restore, restore->snapshot.thread_count);
	sigprocmask(SIG_SETMASK, &before, NULL);
	signal(SIGCHLD, SIG_DFL);
	return result;
}

/* ---- undo ---- */

/* Once all exist, every pid of the images is one of the tree; before, some may belong to other processes. */
static void kill_tree(const struct restore *restore)
{
	const struct task *task;
	int status;

	if (restore->all_are_born) {
		for_each_task (task, &restore->snapshot)
			kill(task->here, SIGKILL);
		return;
	}
	/*
	 * Each dies with its parent (PR_SET_PDEATHSIG). criu waits for the root, unless it is a sibling, or a
	 * grandchild.
	 */
	if (restore->middle)
		return;
	if (restore->request->is_sibling)
		syscall(SYS_pidfd_send_signal, restore->root, SIGKILL, NULL, 0);
	else if (waitpid(restore->snapshot.root->here, &status, WNOHANG | __WALL) == 0)
		kill(restore->snapshot.root->here, SIGKILL);
}

static void collect(pid_t pid)
{
	pid_t gone;

	do
		gone = waitpid(pid, NULL, __WALL);
	while (gone < 0 && errno == EINTR);
	if (gone > 0)
		log_debug("process %d is gone", gone);
}

/* Its parent collects it; but it must not outlive criu. When its threads are collected, only its death is missing. */
static void await_sibling(struct restore *restore)
{
	struct pollfd end = { .fd = restore->root, .events = POLLIN };

	if (restore->root < 0)
		return;
	while (poll(&end, 1, -1) < 0 && errno == EINTR)
		;
	close(steal_fd(&restore->root));
}

void restore_kill(void *context)
{
	struct restore *restore = context;
	struct task *task;

	watchdog_end(restore);
	root_forget_wait(restore);
	if (!restore->has_spawned || restore->is_running)
		return;
	restore->board->failed = 1;
	restore->has_spawned = false;
	kill_tree(restore);
	parent_end(restore);
	/*
	 * Orphans become criu's children when their parent has died, and parents come first. criu may have other
	 * children.
	 */
	for_each_task (task, &restore->snapshot) {
		for (size_t i = task->thread_count; i-- > 0;) /* traced threads must be waited for, too */
			collect(task->threads[i].here);
		if (task->newborn->stand_in)
			collect(task->newborn->stand_in);
	}
	await_sibling(restore);
	prctl(PR_SET_CHILD_SUBREAPER, 0);
}
