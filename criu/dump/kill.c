/*
 * kill.c - ends the processes of a dump: all of them or none, even if criu is killed meanwhile.
 *
 * For that there is a second process for a moment. It has a pidfd of criu, and shares a word of memory with it. When
 * criu sets the word, all is decided: whoever of the two lives longer kills the processes. Until criu has set it, they
 * live on if criu dies, and the second process undoes what kinds of files have prepared for their end.
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
#include "files/seen.h"

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

static does_not_return void watch(int criu, struct dump *dump, struct victim *const *victims, size_t count)
{
	struct pollfd end = { .fd = criu, .events = POLLIN };

	become_urgent();
	while (poll(&end, 1, -1) < 0 && errno == EINTR)
		;
	if (dump->verdict->is_given)
		kill_each(victims, count);
	else
		files_abandon_end(&dump->snapshot);
	_exit(0);
}

/* No signal but SIGKILL reaches it: a terminal would send one to it and criu. */
static void begin_second(struct dump *dump, struct victim *const *victims, size_t count)
{
	autoclose int criu = syscall(SYS_pidfd_open, getpid(), 0);
	sigset_t all, before;

	dump->verdict = mmap(NULL, sizeof(*dump->verdict), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			     -1, 0);
	if (criu < 0 || dump->verdict == MAP_FAILED)
		return;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	dump->second = fork();
	if (dump->second == 0)
		watch(criu, dump, victims, count);
	sigprocmask(SIG_SETMASK, &before, NULL);
	dump->second = max(dump->second, 0);
}

static void end_second(struct dump *dump)
{
	if (dump->second)
		kill(dump->second, SIGKILL);
	while (dump->second && waitpid(dump->second, NULL, 0) < 0 && errno == EINTR)
		;
	dump->second = 0;
	if (dump->verdict && dump->verdict != MAP_FAILED)
		munmap(dump->verdict, sizeof(*dump->verdict));
	dump->verdict = NULL;
}

/* One process without more to do dies at once or not at all. */
int dump_prepare_kill(struct dump *dump)
{
	autofree struct victim **victims = allocate_array(dump->snapshot.task_count, sizeof(*victims));
	size_t count = dump_list_victims(dump, victims);
	bool is_prepared = files_need_prepare_end(&dump->snapshot);

	if (count <= 1 && !is_prepared)
		return 0;
	begin_second(dump, victims, count);
	if (dump->second)
		return is_prepared ? files_prepare_end(&dump->snapshot) : 0;
	if (is_prepared)
		return fail(errno, "cannot create a process that watches over criu");
	log_warning(
		"if criu is killed now, some processes of the tree may live on: it cannot create a process");
	return 0;
}

void dump_abandon_kill(struct dump *dump)
{
	if (dump->second)
		files_abandon_end(&dump->snapshot);
	end_second(dump);
}

static void tie_together(struct dump *dump, struct victim *const *victims, size_t count)
{
	/* All at once, before: then the loop is short, and wakes no thread that would take criu's CPU. */
	ignore(attempted(victims_park(victims, count)));
	if (dump->second)
		dump->verdict->is_given = true;
	victims_tie(victims, count);
}

int dump_kill(struct dump *dump)
{
	autofree struct victim **victims = allocate_array(dump->snapshot.task_count, sizeof(*victims));
	size_t count = dump_list_victims(dump, victims);
	int result = 0;

	if (count > 1 || dump->second)
		tie_together(dump, victims, count);
	files_end(&dump->snapshot);
	kill_each(victims, count);
	end_second(dump);
	for (size_t i = 0; i < count; i++)
		result = victim_kill(victims[i]) ?: result;
	return result;
}
