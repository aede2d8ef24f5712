/*
 * kill.c - ends the processes of a dump: all of them or none, even if criu is killed meanwhile.
 *
 * For that there is a second process for a moment. It has a pidfd of criu, and shares a word of memory with it. When
 * criu sets the word, all is decided: whoever of the two lives longer kills the processes. Until criu has set it, they
 * live on if criu dies.
 *
 * The second process sees criu's death a moment late, and no process may run in that moment. So criu ties all processes
 * to itself (PTRACE_O_EXITKILL) before it kills the first: then they die with it. Only if it is killed within that loop,
 * which takes 1 us for each process, the others run until the second process has killed them.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "compel.h"
#include "dump/dump.h"

struct verdict {
	atomic_bool is_given; /* in memory that criu and the second process share */
};

static void kill_each(struct victim *const *victims, size_t count)
{
	for (size_t i = 0; i < count; i++)
		kill(victims[i]->pid, SIGKILL);
}

/* A busy machine must not make it late. */
static void become_urgent(void)
{
	const struct sched_param urgent = { .sched_priority = 1 };

	if (sched_getscheduler(0) == SCHED_OTHER)
		sched_setscheduler(0, SCHED_FIFO, &urgent);
}

static does_not_return void watch(int criu, const struct verdict *verdict, struct victim *const *victims,
				  size_t count)
{
	struct pollfd end = { .fd = criu, .events = POLLIN };

	become_urgent();
	while (poll(&end, 1, -1) < 0 && errno == EINTR)
		;
	if (verdict->is_given)
		kill_each(victims, count);
	_exit(0);
}

/* No signal but SIGKILL reaches it: a terminal would send one to it and criu. 0: there is none. */
static pid_t begin_second(const struct verdict *verdict, struct victim *const *victims, size_t count)
{
	autoclose int criu = syscall(SYS_pidfd_open, getpid(), 0);
	sigset_t all, before;
	pid_t second;

	if (criu < 0 || verdict == MAP_FAILED)
		return 0;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	second = fork();
	if (second == 0)
		watch(criu, verdict, victims, count);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return max(second, 0);
}

static void end_second(pid_t second)
{
	if (!second)
		return;
	kill(second, SIGKILL);
	while (waitpid(second, NULL, 0) < 0 && errno == EINTR)
		;
}

static void kill_together(struct victim *const *victims, size_t count)
{
	struct verdict *verdict = mmap(NULL, sizeof(*verdict), PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t second;

	/* All at once, before: then the loop is short, and wakes no thread that would take criu's CPU. */
	ignore(attempted(victims_park(victims, count)));
	second = begin_second(verdict, victims, count);
	if (second)
		verdict->is_given = true;
	else
		log_warning(
			"if criu is killed now, some processes of the tree may live on: it cannot create a process");
	victims_tie(victims, count);
	kill_each(victims, count);
	end_second(second);
	if (verdict != MAP_FAILED)
		munmap(verdict, sizeof(*verdict));
}

int dump_kill(struct dump *dump)
{
	autofree struct victim **victims = allocate_array(dump->snapshot.task_count, sizeof(*victims));
	size_t count = dump_list_victims(dump, victims);
	int result = 0;

	/* One process dies at once or not at all. */
	if (count > 1)
		kill_together(victims, count);
	else
		kill_each(victims, count);
	for (size_t i = 0; i < count; i++)
		result = victim_kill(victims[i]) ?: result;
	return result;
}
