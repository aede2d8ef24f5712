/*
 * proc_files.c - see proc_files.h. The paths are /proc/PID/… and /proc/PID/task/TID/…: the kernel resolves
 * /proc/self and /proc/thread-self when they are opened.
 *
 * A file about a process of the tree is opened when all processes exist (late.c): it has the same path again. For a
 * process that has ended, criu makes one, opens its file, and ends it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/ghost.h"
#include "files/kind.h"
#include "files/kinds/proc_files.h"
#include "image/message.h"

struct proc_path {
	pid_t pid, tid;	  /* tid 0: not below task/ */
	const char *rest; /* with its slash; "": the directory itself */
};

/* False: it is no path of a process. */
static bool parse(const char *path, struct proc_path *parsed)
{
	int used = 0, more = 0;

	*parsed = (struct proc_path){ 0 };
	if (sscanf(path, "/proc/%d%n", &parsed->pid, &used) != 1 || parsed->pid <= 0)
		return false;
	parsed->rest = path + used;
	if (sscanf(parsed->rest, "/task/%d%n", &parsed->tid, &more) == 1)
		parsed->rest += more;
	return !*parsed->rest || *parsed->rest == '/';
}

/* ---- dump ---- */

static bool is_still_at(const char *path, const struct stat *file)
{
	struct stat found;

	return stat(path, &found) == 0 && found.st_ino == file->st_ino && found.st_dev == file->st_dev;
}

static bool is_in_proc(const struct stat *file)
{
	struct stat proc;

	return stat("/proc", &proc) == 0 && (!file->st_dev || proc.st_dev == file->st_dev);
}

enum proc_subject proc_file_seen(const struct snapshot *snapshot, const struct seen_file *seen)
{
	autofree char *path = NULL;
	const struct task *task;
	struct proc_path parsed;

	if (strncmp(seen->link, "/proc/", 6))
		return PROC_NOBODY;
	path = proc_link_path(seen->link);
	if (!parse(path, &parsed) || !is_in_proc(&seen->stat))
		return PROC_NOBODY;
	if (!is_still_at(path, &seen->stat))
		return PROC_ENDED;
	task = snapshot_find_task_here(snapshot, parsed.pid);
	if (!task)
		return snapshot_find_thread_here(snapshot, parsed.pid) ? PROC_THREAD : PROC_NOBODY;
	return !parsed.tid || parsed.tid == parsed.pid ? PROC_PROCESS : PROC_THREAD;
}

/* Is it about one descriptor or one mapping? */
static bool is_of_one(const char *rest)
{
	static const char *const directories[] = { "/fd/", "/fdinfo/", "/map_files/" };

	for (size_t i = 0; i < array_size(directories); i++)
		if (!strncmp(rest, directories[i], strlen(directories[i])))
			return true;
	return false;
}

bool proc_path_is_of_tree(const struct snapshot *snapshot, const char *path)
{
	struct proc_path parsed;

	return parse(path, &parsed) && snapshot_find_thread_here(snapshot, parsed.pid);
}

bool proc_file_is_common(const char *path)
{
	autofree char *own = NULL;
	struct proc_path parsed;
	struct stat found;

	if (!parse(path, &parsed) || is_of_one(parsed.rest))
		return false;
	own = format_text(parsed.tid ? "/proc/thread-self%s" : "/proc/self%s", parsed.rest);
	return stat(own, &found) == 0;
}

void proc_file_note_ended(struct snapshot *snapshot, struct file *file)
{
	RegFileEntry *entry = file->entry->reg;
	autofree char *directory = NULL;
	struct proc_path parsed;
	struct stat found;

	if (!parse(entry->name, &parsed))
		return;
	directory = format_text("/proc/%d", parsed.pid);
	if (lstat(directory, &found) < 0)
		nameless_add_ended(snapshot, parsed.pid, file);
	else
		message_set(entry, ended, true);
}

/* ---- restore ---- */

void proc_files_find_ended(struct snapshot *snapshot)
{
	const struct file_list *list = files_of_kind(snapshot, &file_kind_regular);
	const struct nameless_files *all = nameless_files_of(snapshot);

	for (size_t i = 0; all->ended_count && i < list->count; i++) {
		RegFileEntry *entry = list->items[i]->entry->reg;
		struct proc_path parsed;

		if (parse(entry->name, &parsed) && index_find(&all->ended_by_pid, parsed.pid))
			message_set(entry, ended, true);
	}
}

enum proc_subject proc_file_subject(const struct snapshot *snapshot, const struct file *file)
{
	const RegFileEntry *entry = file->entry->reg;
	struct proc_path parsed;

	if (entry->ended)
		return PROC_ENDED;
	if (strncmp(entry->name, "/proc/", 6) || !parse(entry->name, &parsed))
		return PROC_NOBODY;
	if (!snapshot_find_task(snapshot, parsed.pid))
		return snapshot_find_thread(snapshot, parsed.pid) ? PROC_THREAD : PROC_NOBODY;
	return !parsed.tid || parsed.tid == parsed.pid ? PROC_PROCESS : PROC_THREAD;
}

/* A child that waits to be killed, and sends no signal then. 0: the pid is in use. */
static pid_t make_process(pid_t pid)
{
	struct clone_args arguments = { .set_tid = pid ? (uintptr_t)&pid : 0, .set_tid_size = pid ? 1 : 0 };
	pid_t criu = getpid();
	long child = syscall(SYS_clone3, &arguments, sizeof(arguments));

	if (child > 0)
		return child;
	if (child < 0)
		return pid ? 0 : fail(errno, "cannot create a process");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (getppid() == criu)
		pause();
	_exit(0);
}

/* Only what is in its directory: an image could name a path that leads out of it, to a device. */
static int open_inside(pid_t pid, bool is_thread, const char *rest, int flags)
{
	struct open_how how = {
		.flags = (flags & O_PATH ? flags & (O_PATH | O_DIRECTORY) : flags | O_NOCTTY | O_NONBLOCK) |
			 O_CLOEXEC | O_NOFOLLOW,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
	};
	autofree char *name = is_thread ? format_text("/proc/%d/task/%d", pid, pid) :
					  format_text("/proc/%d", pid);
	autoclose int directory = open(name, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (directory < 0)
		return -1;
	rest += strspn(rest, "/");
	return syscall(SYS_openat2, directory, *rest ? rest : ".", &how, sizeof(how));
}

int proc_file_open_ended(const char *path, int flags)
{
	struct proc_path parsed;
	pid_t child;
	int fd;

	if (!parse(path, &parsed))
		return fail(EINVAL, "%s is no file of /proc about a process", path);
	child = make_process(parsed.tid ?: parsed.pid) ?: make_process(0);
	if (child < 0)
		return child;
	fd = open_inside(child, parsed.tid, parsed.rest, flags);
	if (fd < 0)
		fd = fail(errno, "cannot open %s, a file of a process that has ended", path);
	kill(child, SIGKILL);
	while (waitpid(child, NULL, __WALL) < 0 && errno == EINTR)
		;
	return fd;
}
