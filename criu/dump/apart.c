/*
 * apart.c - state that a process or a single thread does not share: namespaces other than criu's, or than those of its
 * process; a thread's own root and directories, or descriptor table. None of it can be saved yet, so it is refused.
 * Cgroups, which can also differ, are saved, and so are uts namespaces of whole processes (criu/namespaces).
 *
 * unshare(2) and setns(2) affect one thread. It can change all its namespaces except user, pid and time (Linux 6.18:
 * EINVAL, EUSERS, or they change only for its children). For mounts it has to unshare its root and directories first,
 * so kcmp() shows that.
 *
 * Reading a link in /proc costs some 3 to 5 µs, kcmp() 1 µs, a list of cgroups 10 µs. With many threads a helper
 * thread does this in parallel with the rest of the step. It looks at the processes first: what they have apart is
 * refused before anything is touched. Its work on their threads may last until these have been asked. It also reads the
 * flags of each thread, which is as slow.
 */
#include <errno.h>
#include <linux/kcmp.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/helper_thread.h"
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "dump/dump.h"
#include "image/message.h"
#include "kernel/cpus.h"
#include "kernel/proc.h"
#include "task/part.h"

#define WORTH_A_THREAD 100 /* threads to look at; for fewer, starting a helper takes longer */

/*
 * The links in /proc/PID/ns, and the message for a process that is in another one than criu, and for a thread that is
 * in another one than its process.
 */
static const struct {
	const char *link;
	bool is_of_threads;
	const char *process_is, *thread_is;
} links[] = {
	{ "pid", false, "is in another pid namespace than criu", NULL },
	{ "user", false, "is in another user namespace than criu", NULL },
	{ "time", false, "is in another time namespace than criu", NULL },
	{ "mnt", false, "is in another mount namespace than criu", NULL },
	{ "net", true, "is in another network namespace than criu", "is in another network namespace" },
	{ "ipc", true, "is in another ipc namespace than criu", "is in another ipc namespace" },
	{ "uts", true, NULL, "is in another uts namespace" }, /* of a process: criu/namespaces */
	{ "cgroup", true, "is in another cgroup namespace than criu", "is in another cgroup namespace" },
	{ "pid_for_children", true, "creates its children in another pid namespace (unshare(CLONE_NEWPID))",
	  "creates its children in another pid namespace (unshare(CLONE_NEWPID))" },
	{ "time_for_children", true,
	  "creates its children in another time namespace (unshare(CLONE_NEWTIME))",
	  "creates its children in another time namespace (unshare(CLONE_NEWTIME))" },
};

/* What the threads of a process share unless one of them has called unshare(2). */
static const struct {
	int type;
	const char *thread_is;
} shared[] = {
	{ KCMP_FILES, "has its own table of open files" },
	{ KCMP_FS, "has its own root, working directory, umask or mount namespace" },
};

/* A thread that represents all threads of its process that differ in the same way. */
struct apart {
	const struct task *task;
	pid_t tid;
	const char *is; /* the text from the two tables above */
	size_t others;
};

struct apart_look {
	const struct snapshot *snapshot;
	struct process *processes; /* in the order of tasks */
	sem_t processes_done; /* posted when all processes have been looked at, but not yet their threads */
	bool processes_are_apart; /* from then on: has one of them something apart, or could not be looked at? */
	struct cgroup_sets *cgroups; /* NULL: the kernel has none */
	bool ignores_cgroups;	     /* then they are used only for cpusets */
	uint32_t *sets;		     /* cgroup set of each thread, in the order of tasks; 0: none was found */
	unsigned *flags;	     /* PF_* of each thread, in the same order */
	char ours[array_size(links)][64];
	struct apart *found;
	size_t count;
	int error; /* of the first call that failed, and its name */
	const char *failed;
	const struct task *failed_task;
	struct helper_thread *helper;
};

/* A task, and the values that its threads are compared with. */
struct process {
	const struct task *task;
	char links[array_size(links)][64];
	uint32_t *sets;
	unsigned *flags;
	bool threads_may_differ; /* their cgroups may differ */
};

/*
 * `text` becomes empty if there is no such link: the kernel has no such namespace, or the new pid namespace has no
 * process yet.
 */
static int read_link(int proc, const char *directory, const char *name, char text[64])
{
	char path[64];
	ssize_t length;

	snprintf(path, sizeof(path), "%sns/%s", directory, name);
	length = readlinkat(proc, path, text, 63);
	if (length < 0 && errno != ENOENT)
		return -errno;
	text[max(length, 0)] = '\0';
	return 0;
}

static void note_failure(struct apart_look *look, const struct task *task, int error, const char *what)
{
	look->failed_task = task;
	look->error = error;
	look->failed = what;
}

static void note_apart(struct apart_look *look, const struct task *task, pid_t tid, const char *is)
{
	for (size_t i = look->count; i-- > 0 && look->found[i].task == task;)
		if (look->found[i].is == is) {
			look->found[i].others++;
			return;
		}
	*grow(&look->found, &look->count) = (struct apart){ .task = task, .tid = tid, .is = is };
}

static void look_at_links(struct apart_look *look, struct process *process, size_t thread)
{
	const struct task *task = process->task;
	char directory[32] = "", other[64];

	if (thread)
		snprintf(directory, sizeof(directory), "task/%d/", task->threads[thread].here);
	for (size_t i = 0; i < array_size(links); i++) {
		char *text = thread ? other : process->links[i];
		int result;

		if (thread && !links[i].is_of_threads)
			continue;
		result = read_link(task->proc, directory, links[i].link, text);
		if (result)
			note_failure(look, task, -result, "read a link in /proc/PID/ns");
		else if ((thread || links[i].process_is) &&
			 strcmp(text, thread ? process->links[i] : look->ours[i]) != 0)
			note_apart(look, task, task->threads[thread].here,
				   thread ? links[i].thread_is : links[i].process_is);
	}
}

static void look_at_shared(struct apart_look *look, const struct task *task, pid_t tid)
{
	for (size_t i = 0; i < array_size(shared); i++) {
		long order = syscall(SYS_kcmp, task->here, tid, shared[i].type, 0, 0);

		if (order < 0)
			note_failure(look, task, errno, "compare threads with kcmp()");
		else if (order)
			note_apart(look, task, tid, shared[i].thread_is);
	}
}

static void look_at_cgroups(struct apart_look *look, struct process *process, size_t thread)
{
	autofree char *text = NULL;
	char path[48] = "cgroup";
	bool may_differ;
	ssize_t length;

	if (thread && !process->threads_may_differ) {
		process->sets[thread] = process->sets[0];
		return;
	}
	if (thread)
		snprintf(path, sizeof(path), "task/%d/cgroup", process->task->threads[thread].here);
	length = read_record_at(process->task->proc, path, &text);
	if (length < 0 && look->ignores_cgroups)
		return;
	if (length < 0)
		note_failure(look, process->task, -length, "read /proc/PID/cgroup");
	else if (cgroup_sets_find(look->cgroups, text, &process->sets[thread], &may_differ))
		note_failure(look, process->task, EINVAL, "understand /proc/PID/cgroup");
	else if (!thread)
		process->threads_may_differ = may_differ;
}

static void read_flags(struct apart_look *look, struct process *process, size_t thread)
{
	struct proc_stat stat;

	if (proc_read_thread_stat(process->task->proc, process->task->threads[thread].here, &stat))
		note_failure(look, process->task, EINVAL, "read /proc/PID/stat");
	else
		process->flags[thread] = stat.flags;
}

static void look_at_process(struct apart_look *look, struct process *process)
{
	look_at_links(look, process, 0);
	read_flags(look, process, 0);
	if (look->cgroups)
		look_at_cgroups(look, process, 0);
}

static void look_at_threads(struct apart_look *look, struct process *process)
{
	const struct task *task = process->task;

	for (size_t i = 1; i < task->thread_count; i++) {
		look_at_links(look, process, i);
		look_at_shared(look, task, task->threads[i].here);
		read_flags(look, process, i);
		if (look->cgroups)
			look_at_cgroups(look, process, i);
	}
}

static void look_at_all(void *context)
{
	struct apart_look *look = context;
	size_t count = look->snapshot->task_count;

	for (size_t i = 0; i < count; i++)
		if (look->processes[i].task->state != TASK_DEAD)
			look_at_process(look, &look->processes[i]);
	look->processes_are_apart = look->count || look->error;
	sem_post(&look->processes_done);
	for (size_t i = 0; i < count; i++)
		if (look->processes[i].task->state != TASK_DEAD)
			look_at_threads(look, &look->processes[i]);
}

/* Reads the links of criu itself, whose children are in the same namespaces. */
static int read_our_links(struct apart_look *look)
{
	autoclose int self = proc_open(getpid());

	if (self < 0)
		return fail(-self, "cannot open /proc/self");
	for (size_t i = 0; i < array_size(links); i++) {
		size_t own = strcspn(links[i].link, "_");
		char name[32];
		int result;

		snprintf(name, sizeof(name), "%.*s", (int)own, links[i].link);
		result = read_link(self, "", name, look->ours[i]);
		if (result)
			return fail(-result, "cannot read /proc/self/ns/%s", name);
	}
	return 0;
}

static struct apart_look *new_look(const struct dump *dump, size_t *threads)
{
	struct apart_look *look = allocate(sizeof(*look));
	const struct task *task;
	size_t process = 0, first = 0;

	*threads = 0;
	for_each_task (task, &dump->snapshot)
		*threads += task->thread_count;
	look->snapshot = &dump->snapshot;
	look->cgroups = dump->cgroups;
	look->ignores_cgroups = dump->request->ignores_cgroups;
	look->sets = allocate_array(*threads, sizeof(*look->sets));
	look->flags = allocate_array(*threads, sizeof(*look->flags));
	look->processes = allocate_array(dump->snapshot.task_count, sizeof(*look->processes));
	for_each_task (task, &dump->snapshot) {
		look->processes[process++] = (struct process){ .task = task,
							       .sets = look->sets + first,
							       .flags = look->flags + first };
		first += task->thread_count;
	}
	sem_init(&look->processes_done, 0, 0);
	return look;
}

int dump_begin_apart(struct dump *dump)
{
	size_t threads;
	struct apart_look *look = dump->apart = new_look(dump, &threads);
	int result = read_our_links(look);

	if (result)
		return result;
	if (threads >= WORTH_A_THREAD)
		look->helper = helper_thread_start();
	if (look->helper)
		helper_thread_run(look->helper, look_at_all, look);
	else
		look_at_all(look);
	return 0;
}

bool dump_processes_are_apart(const struct dump *dump)
{
	while (sem_wait(&dump->apart->processes_done) < 0)
		; /* a signal */
	return dump->apart->processes_are_apart;
}

static void note_thread(const struct apart_look *look, ThreadCoreEntry *core, uint32_t set,
			const struct cpus *ours)
{
	const struct cpus *cpus = set ? cgroup_sets_cpus(look->cgroups, set) : NULL;

	scheduling_drop_full_affinity(core, cpus ?: ours);
	message_set(core, cg_set, look->ignores_cgroups || !set ? DUMP_OWN_CGROUPS : set);
}

static void note_found(const struct apart_look *look)
{
	struct cpus ours;

	cpus_fill(&ours);
	cpus_restrict(&ours);
	for (size_t i = 0; i < look->snapshot->task_count; i++) {
		const struct process *process = &look->processes[i];
		const struct task *task = process->task;

		for (size_t j = 0; task->state != TASK_DEAD && j < task->thread_count; j++) {
			ThreadCoreEntry *core = task->cores[j]->thread_core;

			note_thread(look, core, process->sets[j], &ours);
			machine_hear_flags(core, process->flags[j]);
		}
	}
}

static void refuse_apart(const struct apart *apart)
{
	const struct task *task = apart->task;

	if (apart->tid == task->here)
		refuse("process %d (%s) %s, which is not supported yet", task->here, task->name, apart->is);
	else if (!apart->others)
		refuse("process %d (%s): thread %d %s, which is not supported yet", task->here, task->name,
		       apart->tid, apart->is);
	else
		refuse("process %d (%s): thread %d %s, which is not supported yet; the same is true for %zu other threads",
		       task->here, task->name, apart->tid, apart->is, apart->others);
}

int dump_end_apart(struct dump *dump, int result)
{
	struct apart_look *look = steal_pointer(&dump->apart);

	if (!look)
		return result;
	if (look->helper)
		helper_thread_wait(look->helper);
	helper_thread_end(look->helper);
	if (!result && look->error)
		result = fail_in(fail(look->error, "cannot %s", look->failed), "process %d (%s)",
				 look->failed_task->here, look->failed_task->name);
	for (size_t i = 0; !result && i < look->count; i++)
		refuse_apart(&look->found[i]);
	if (!result)
		note_found(look);
	sem_destroy(&look->processes_done);
	free(look->found);
	free(look->processes);
	free(look->sets);
	free(look->flags);
	free(look);
	return result;
}
