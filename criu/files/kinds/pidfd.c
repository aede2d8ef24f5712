/*
 * pidfd.c - pidfds of processes of the tree: of the living, of zombies, and of those that have been reaped.
 *
 * A pidfd of a process that exists is opened when all processes exist again (late.c). A process that has been reaped
 * has no pid any more: neither fdinfo nor a system call tells it. So a child of criu stands for it, which ends at
 * once: criu opens the pidfds while it is a zombie, and then reaps it. Pidfds with the same inode were of the same
 * process, and get the same child; since Linux 6.9 (pidfs) each process has an inode of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/kind.h"
#include "image/message.h"
#include "kernel/proc.h"

#define FLAGS_TO_OPEN (O_NONBLOCK | O_EXCL) /* PIDFD_NONBLOCK (5.10), PIDFD_THREAD (6.9) */
#define REAPED	      (-1)

static bool pidfd_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	return !strcmp(seen->link, "anon_inode:[pidfd]");
}

/* ---- dump ---- */

/* The id by which criu knows the process; describe() makes a name of it. 0: it is in no pid namespace of criu's. */
static int pidfd_fdinfo(struct snapshot *snapshot unused, struct file *file, const char *key,
			const char *value)
{
	if (!strcmp(key, "Pid") && sscanf(value, "%d", &file->entry->pidfd->nspid) != 1)
		return fail(EINVAL, "cannot understand the fdinfo of %s", file->seen->link);
	return 0;
}

static int refuse_stranger(const struct seen_file *seen, pid_t pid)
{
	autoclose int proc = pid > 0 ? proc_open(pid) : -1;
	struct proc_stat stat = { .comm = "?" };

	if (pid <= 0)
		return refuse(
			"process %d (%s): descriptor %d is a pidfd of a process in a pid namespace that criu cannot see",
			seen->holder.here, seen->holder.name, seen->fd);
	if (proc >= 0)
		attempted(proc_read_stat(proc, &stat));
	return refuse(
		"process %d (%s): descriptor %d is a pidfd of process %d (%s), which is not in the tree: it must be closed first, or the tree must contain that process",
		seen->holder.here, seen->holder.name, seen->fd, pid, stat.comm);
}

static int pidfd_describe(struct snapshot *snapshot, struct file *file)
{
	const struct seen_file *seen = file->seen;
	PidfdEntry *entry = file->entry->pidfd;
	const struct task *task;
	pid_t here = entry->nspid;

	entry->ino = seen->stat.st_ino;
	entry->flags &= FLAGS_TO_OPEN; /* as the format has them: without O_RDWR, which every pidfd has */
	if (here == REAPED)
		return 0;
	task = here > 0 ? snapshot_find_thread_here(snapshot, here) : NULL;
	if (task) {
		entry->nspid = task_find_thread_here(task, here)->tid;
		return 0;
	}
	return refuse_stranger(seen, here);
}

/* ---- restore ---- */

static enum file_lateness pidfd_lateness(const struct snapshot *snapshot, const struct file *file)
{
	pid_t pid = file->entry->pidfd->nspid;

	if (pid == REAPED)
		return FILE_IS_EARLY;
	return snapshot_find_task(snapshot, pid) ? FILE_NEEDS_PROCESS : FILE_NEEDS_THREAD;
}

static int pidfd_check(struct snapshot *snapshot, struct file *file)
{
	const PidfdEntry *entry = file->entry->pidfd;

	if (entry->nspid == REAPED || snapshot_find_thread(snapshot, entry->nspid))
		return 0;
	return fail(EINVAL, "files.img: file %u is a pidfd of process %d, which is not in the tree", file->id,
		    entry->nspid);
}

static int open_pidfd(pid_t pid, const PidfdEntry *entry)
{
	int fd = syscall(SYS_pidfd_open, pid, entry->flags & FLAGS_TO_OPEN);

	return fd < 0 ? fail(errno, "cannot open a pidfd of process %d", pid) : fd;
}

static int open_late(struct snapshot *snapshot, struct file *file)
{
	const PidfdEntry *entry = file->entry->pidfd;
	const struct task *task = snapshot_find_thread(snapshot, entry->nspid);

	for (size_t i = 0; i < task->thread_count; i++)
		if (task->threads[i].tid == entry->nspid)
			return open_pidfd(task->threads[i].here, entry);
	return fail(ESRCH, "thread %d has ended", entry->nspid);
}

/* The pidfds of a dead process are opened together, with that of its first file. */
struct opened {
	const struct file *file;
	int fd;
};

struct pidfd_state {
	struct opened *items;
	size_t count;
};

static struct pidfd_state *pidfd_state(const struct snapshot *snapshot)
{
	return file_kind_state(snapshot, &file_kind_pidfd);
}

/* A child that has ended, and has not been reaped. It sends no signal. */
static pid_t make_zombie(void)
{
	struct clone_args arguments = { 0 };
	siginfo_t info;
	long child = syscall(SYS_clone3, &arguments, sizeof(arguments));
	int result;

	if (!child)
		_exit(0);
	if (child < 0)
		return fail(errno, "cannot create a process");
	do
		result = waitid(P_PID, child, &info, WEXITED | WNOWAIT | __WALL);
	while (result < 0 && errno == EINTR);
	return result < 0 ? fail(errno, "cannot wait for process %ld", child) : child;
}

static int open_all_of(struct snapshot *snapshot, pid_t pid, uint32_t inode)
{
	const struct file_list *list = files_of_kind(snapshot, &file_kind_pidfd);
	struct pidfd_state *state = pidfd_state(snapshot);

	for (size_t i = 0; i < list->count; i++) {
		const PidfdEntry *entry = list->items[i]->entry->pidfd;
		int fd;

		if (entry->nspid != REAPED || entry->ino != inode)
			continue;
		fd = open_pidfd(pid, entry);
		if (fd < 0)
			return fd;
		*grow(&state->items, &state->count) = (struct opened){ list->items[i], fd };
	}
	return 0;
}

static int open_of_dead(struct snapshot *snapshot, struct file *file)
{
	struct pidfd_state *state = pidfd_state(snapshot);
	size_t known = state->count;
	pid_t zombie;
	int result;

	for (size_t i = 0; i < state->count; i++)
		if (state->items[i].file == file)
			return steal_fd(&state->items[i].fd);
	zombie = make_zombie();
	if (zombie < 0)
		return zombie;
	result = open_all_of(snapshot, zombie, file->entry->pidfd->ino);
	while (waitpid(zombie, NULL, __WALL) < 0 && errno == EINTR)
		;
	if (result)
		return result;
	for (size_t i = known; i < state->count; i++)
		if (state->items[i].file == file)
			return steal_fd(&state->items[i].fd);
	return fail(EINVAL, "files.img: file %u is a pidfd that no process has", file->id);
}

static void pidfd_close(struct snapshot *snapshot)
{
	struct pidfd_state *state = pidfd_state(snapshot);

	for (size_t i = 0; i < state->count; i++)
		if (state->items[i].fd >= 0)
			close(state->items[i].fd);
	free(steal_pointer(&state->items));
	state->count = 0;
}

static const char *const fdinfo_needs[] = { "Pid", NULL };

const struct file_kind file_kind_pidfd = {
	.name = "pidfd",
	.type = FD_TYPES__PIDFD,
	.message = offsetof(FileEntry, pidfd),
	.state_size = sizeof(struct pidfd_state),
	.recognizes = pidfd_recognizes,
	.fdinfo = pidfd_fdinfo,
	.fdinfo_needs = fdinfo_needs,
	.describe = pidfd_describe,
	.lateness = pidfd_lateness,
	.check = pidfd_check,
	.open = open_of_dead,
	.open_late = open_late,
	.close = pidfd_close,
};
