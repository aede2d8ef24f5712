/*
 * names.c - after the freeze: gives each process and thread its names, the ids that images tell (model/pids.h). Until
 * then, the ids by which criu reaches them are all that is known.
 *
 * Most trees are in criu's own pid namespace, where both are equal. A link of each process shows that, for half of
 * what the text with NSpid costs.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "dump/dump.h"
#include "kernel/proc.h"

/* The pid namespace of a process, also of a zombie. 0: criu may not look at it, such as at a zombie of another user. */
static int read_namespace(int proc, ino_t *inode)
{
	struct stat stat;

	*inode = 0;
	if (fstatat(proc, "ns/pid", &stat, 0) == 0)
		*inode = stat.st_ino;
	else if (errno != EACCES && errno != EPERM)
		return fail(errno, "cannot look at /proc/PID/ns/pid");
	return 0;
}

static void name_as_here(struct task *task)
{
	for (size_t i = 0; i < task->thread_count; i++)
		task->threads[i].tid = task->threads[i].here;
}

/* A leader that is not in that namespace has no id there: 0. */
static int name_of_leader(const char *text, const char *line, size_t outside, pid_t *name)
{
	struct pid_levels levels;
	int result = proc_parse_levels(text, line, &levels);

	if (!result)
		*name = outside < levels.count ? levels.ids[outside] : 0;
	return result;
}

static int read_names(struct snapshot *snapshot, struct task *task, size_t thread)
{
	autofree char *text = NULL;
	struct pid_levels levels;
	char path[32] = "status";
	ssize_t length;

	if (thread)
		snprintf(path, sizeof(path), "task/%d/status", task->threads[thread].here);
	length = read_text_at(task->proc, path, &text);
	if (length < 0)
		return fail(-length, "cannot read /proc/%d/%s", task->here, path);
	if (proc_parse_levels(text, "NSpid", &levels))
		return -EINVAL;
	if (!thread && !task->parent)
		snapshot->levels_outside = levels.count - 1;
	if (thread_set_names(&task->threads[thread], &levels, snapshot->levels_outside))
		return fail(0, "it has ids in %zu pid namespaces, and the root of the tree in %zu",
			    levels.count, snapshot->levels_outside + 1);
	return thread								      ? 0 :
	       name_of_leader(text, "NSpgid", snapshot->levels_outside, &task->group) ?:
			name_of_leader(text, "NSsid", snapshot->levels_outside, &task->session);
}

static int name_task(struct snapshot *snapshot, struct task *task, ino_t own)
{
	ino_t namespace = 0;
	int result = read_namespace(task->proc, &namespace);
	bool is_here = namespace && namespace == own && !snapshot->levels_outside;

	/* The kernel shows 0 to those who may not look at the process. */
	if (!result && !namespace && task->state == TASK_DEAD)
		log_warning("process %d (%s) is a zombie whose exit status criu may not read: it will be 0",
			    task->here, task->name);
	if (is_here)
		name_as_here(task);
	for (size_t i = 0; !result && !is_here && i < task->thread_count; i++)
		result = read_names(snapshot, task, i);
	if (!result)
		snapshot_name_task(snapshot, task, task->threads[0].tid);
	return result;
}

int dump_name_tasks(struct snapshot *snapshot)
{
	autoclose int self = proc_open(getpid());
	struct task *task;
	ino_t own = 0;
	int result = self < 0 ? fail(-self, "cannot open /proc/self") : read_namespace(self, &own);

	for_each_task (task, snapshot) {
		if (!result)
			result = name_task(snapshot, task, own);
		if (result)
			return fail_in(result, "process %d (%s)", task->here, task->name);
	}
	return 0;
}
