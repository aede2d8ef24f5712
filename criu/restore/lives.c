/*
 * lives.c - notices that a newborn has died, killed by the OOM killer or by a user. Most newborns are no children of
 * criu, and their parents wait for other events. So the kernel is used to tell: each newborn holds a robust futex
 * (get_robust_list(2)) in memory that all share, and when the newborn ends for any reason, the kernel marks that futex.
 * Checking all of them means reading a few words each.
 *
 * The futex does not cover two phases: before the newborn has registered it (then its parent has noted its creation,
 * and /proc tells), and after it has released it to become the task (then criu traces it, and waitid() tells). The list
 * itself is in the shared memory, too, because the OOM killer frees a process's private memory before the kernel walks
 * its list.
 */
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/proc.h"
#include "restore/lives.h"
#include "restore/restore.h"

struct life {
	struct robust_list_head head;
	struct robust_list link; /* the only entry of the list */
	uint32_t holder; /* the futex: its pid; marked by the kernel when it dies; 0: unused, or it may die */
	uint32_t is_born, is_registered;
};

int lives_make(struct restore *restore)
{
	size_t count = 1;
	struct task *task;
	struct life *lives;

	for_each_task (task, &restore->snapshot)
		count += 1 + (task->newborn->stand_in > 0);
	lives = mmap(NULL, count * sizeof(*lives), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (lives == MAP_FAILED)
		return fail(errno, "no memory for criu to share with the restored processes");
	restore->middle_life = lives++;
	for_each_task (task, &restore->snapshot) {
		task->newborn->life = lives++;
		if (task->newborn->stand_in)
			task->newborn->stand_in_life = lives++;
	}
	return 0;
}

void life_begin(struct life *life)
{
	life->head.list.next = &life->link;
	life->head.futex_offset = offsetof(struct life, holder) - offsetof(struct life, link);
	life->link.next = &life->head.list;
	life->holder = getpid();
	syscall(SYS_set_robust_list, &life->head, sizeof(life->head));
	__atomic_store_n(&life->is_registered, 1, __ATOMIC_RELEASE);
}

void life_note_birth(struct life *life)
{
	__atomic_store_n(&life->is_born, 1, __ATOMIC_RELEASE);
}

void life_end(struct life *life)
{
	__atomic_store_n(&life->holder, 0, __ATOMIC_RELEASE);
}

static int explain_death(pid_t here, pid_t pid, const char *name)
{
	autoclose int proc = proc_open(here);
	struct proc_stat stat = { 0 };
	int signal;

	if (proc >= 0 && proc_read_stat(proc, &stat))
		return -EINVAL;
	signal = WIFSIGNALED(stat.exit_code) ? WTERMSIG(stat.exit_code) : 0;
	if (!signal) /* or it has been collected */
		return fail(0, "process %d (%s) ended while it was being restored", pid, name);
	return fail(0, "process %d (%s) was killed by signal %d while it was being restored%s", pid, name,
		    signal, signal == SIGKILL ? "; out of memory?" : "");
}

int fail_for_death(const struct task *task)
{
	return explain_death(task->here, task->pid, task->name);
}

static bool is_gone(pid_t here)
{
	autoclose int proc = proc_open(here);
	struct proc_stat stat;

	return proc < 0 || proc_read_stat(proc, &stat) || stat.state == 'Z' || stat.state == 'X';
}

static bool has_died(const struct life *life, pid_t here)
{
	if (__atomic_load_n(&life->holder, __ATOMIC_ACQUIRE) & FUTEX_OWNER_DIED)
		return true;
	return __atomic_load_n(&life->is_born, __ATOMIC_ACQUIRE) &&
	       !__atomic_load_n(&life->is_registered, __ATOMIC_ACQUIRE) && is_gone(here);
}

/*
 * criu can wait for a process while it traces it. It is left for its parent to collect. The kernel also reports stops
 * to a tracer, whether requested or not: trace_pass_signals() handles those.
 */
static bool has_died_traced(const struct task *task)
{
	siginfo_t info = { 0 };

	if (!task->victim)
		return false;
	if (waitid(P_PID, task->here, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0)
		return true;
	return info.si_pid &&
	       (info.si_code == CLD_EXITED || info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED);
}

/* Later, the root dies with it. */
static bool has_middle_died_early(const struct restore *restore)
{
	const struct life *root = restore->snapshot.root->newborn->life;

	return restore->middle > 0 && !__atomic_load_n(&root->is_born, __ATOMIC_ACQUIRE) &&
	       has_died(restore->middle_life, restore->middle);
}

int lives_check(const struct restore *restore)
{
	const struct task *task;

	if (has_middle_died_early(restore))
		return fail(0, "the process that was to create process %d died", restore->snapshot.root->pid);

	/* A process that dies takes its descendants with it, and parents come first. */
	for_each_task (task, &restore->snapshot) {
		const struct newborn *newborn = task->newborn;

		if (has_died(newborn->life, task->here) || has_died_traced(task))
			return fail_for_death(task);
		if (newborn->stand_in && has_died(newborn->stand_in_life, newborn->stand_in))
			return explain_death(newborn->stand_in, newborn->stand_in,
					     "once the leader of a process group");
	}
	return 0;
}
