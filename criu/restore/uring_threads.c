/*
 * uring_threads.c - in the newborn: rings whose requests a thread of the kernel takes (IORING_SETUP_SQPOLL). The
 * process makes them itself, because that thread becomes one of its own (files/kinds/io_uring_thread.c). So it has to
 * be the right process, in its namespaces, with its descriptor table.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/kind.h"
#include "files/kinds/io_uring.h"
#include "kernel/proc.h"
#include "restore/restore.h"
#include "restore/space.h"

#define IO_WORKER 0x10 /* PF_IO_WORKER */

/* It gets its name later. */
static bool is_of_kernel(int proc, pid_t tid)
{
	struct proc_stat stat;

	return !attempted(proc_read_thread_stat(proc, tid, &stat)) && stat.flags & IO_WORKER;
}

/* The threads of the kernel in this process that are not in `known`: the last one, or 0; then they are. */
static int find_thread(struct index *known, pid_t *found)
{
	autoclose int proc = proc_open(getpid());
	int fd = proc < 0 ? -1 : openat(proc, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *threads = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	*found = 0;
	if (!threads)
		return fail(errno, "cannot list the threads of a process");
	while ((entry = readdir(threads))) {
		pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);

		if (tid <= 0 || index_find(known, tid) || !is_of_kernel(proc, tid))
			continue;
		index_set(known, tid, known);
		*found = tid;
	}
	closedir(threads);
	return 0;
}

/*
 * The kernel chooses the id of the thread, which must not be one that a thread of the tree needs. It gives each id only
 * once in a round, so the next attempt gets another one.
 */
static int make_ring(struct restore *restore, const struct task *task, const struct file *file,
		     struct index *known, pid_t *thread)
{
	for (;;) {
		autoclose int fd = io_uring_make_for(file, task);
		int result = fd < 0 ? fd : find_thread(known, thread);

		if (result)
			return result;
		if (!*thread)
			return fail(ESRCH, "the thread of an io_uring has ended");
		if (restore_needs_id(restore, *thread))
			continue;
		if (dup3(fd, file->fd, O_CLOEXEC) < 0)
			return fail(errno, "cannot move an io_uring");
		return file_set_flags(&restore->snapshot, file);
	}
}

static int map_ring(const struct task *task, const struct file *file)
{
	int result = 0;

	for (size_t i = 0; !result && i < task->space->vmas.count; i++) {
		const struct vma *vma = &task->space->vmas.items[i];

		if (vma->status & VMA_FILE_SHARED && vma->object == file->id)
			result = space_steer(vma, protection_while_made(vma), file->fd);
	}
	return result;
}

int uring_threads_make(struct restore *restore, struct task *task)
{
	const struct file_list *files = files_of_kind(&restore->snapshot, &file_kind_io_uring);
	struct index known = { 0 };
	int result = 0;

	for (size_t i = 0; !result && i < files->count; i++) {
		struct file *file = files->items[i];
		pid_t thread = 0;

		if (!io_uring_has_thread(file) || (pid_t)file->entry->uring->owner != task->pid ||
		    file->fd < 0)
			continue;
		result = make_ring(restore, task, file, &known, &thread)		  ?:
				 io_uring_settle_thread(&restore->snapshot, file, thread) ?:
				 map_ring(task, file);
		if (result)
			fail_in(result, "file %u (io_uring)", file->id);
	}
	index_free(&known);
	return result;
}
