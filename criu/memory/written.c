/*
 * written.c - tracks memory by asynchronous write protection (Linux 6.7): mappings are registered with a userfaultfd of
 * the task's own memory, their pages are write-protected with PAGEMAP_SCAN, and on a write the kernel lifts the
 * protection by itself and lets the writer go on. Then a page that is not protected was written.
 *
 * What the kernel does with the protection (tried out on Linux 6.18):
 *
 *	munmap() + mmap(), mremap() to another place, exec, fork    the mapping is not registered any more
 *	MADV_DONTNEED, then written, or read                        the new page is not protected
 *	a page of zeros becomes a page of its own                   not protected
 *	KSM merges it                                               not protected
 *	swapped out and in                                          stays protected
 *	a huge page is written                                      it is split; what was not written stays protected
 *	the last descriptor of the userfaultfd is closed            no mapping is registered any more
 *
 * If pages of a file are protected, MADV_GUARD_INSTALL (Linux 6.15) never returns: it clears the page table, which
 * keeps the protection, finds it not clear, and tries again (6.18). A task must not hang because criu tracks it, so
 * private mappings of files are not protected (saving.c).
 *
 * A mapping has one userfaultfd at a time. Registering it again with the same one changes nothing, with another one it
 * fails. So it is known whose protection a page has.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "compel.h"
#include "kernel_constants.h"
#include "memory/saving.h"
#include "memory/delta.h"

/* Faults are not handled, so FEATURE_EVENT_* are not requested: the kernel drops the registration instead. */
static int set_up_userfaultfd(int fd)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED };

	return ioctl(fd, UFFDIO_API, &api) < 0 ? -errno : 0;
}

static bool register_mapping(int fd, const struct vma *vma)
{
	struct uffdio_register mapping = { .range = { vma->start, vma_length(vma) },
					   .mode = UFFDIO_REGISTER_MODE_WP };

	return ioctl(fd, UFFDIO_REGISTER, &mapping) == 0;
}

static bool written_resumes(struct increment *increment, struct task_delta *delta)
{
	ssize_t noted = increment_find_noted(increment, delta->task);

	if (noted >= 0 && increment->parent_userfaultfds)
		delta->userfaultfd = steal_fd(&increment->parent_userfaultfds[noted]);
	return delta->userfaultfd >= 0;
}

/* Called only if pages are protected: is it by this userfaultfd? */
static bool written_vouches(const struct task_delta *delta, const struct vma *vma)
{
	return register_mapping(delta->userfaultfd, vma);
}

/*
 * It must be created in the task itself, because it is of the creator's memory; the task's own descriptor of it is
 * closed at once.
 */
static int make_userfaultfd(struct task_delta *delta)
{
	struct victim *victim = delta->task->victim;
	struct remote_call make = { .number = SYS_userfaultfd,
				    .arguments = { O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY } };
	struct remote_call unmake = { .number = SYS_close };
	bool was_infected = victim->infection;
	int fd, result = was_infected ? 0 : victim_infect(victim);

	result = result ?: victim_call(victim, &make, 1);
	if (result)
		return result;
	fd = make.result < 0 ? make.result : syscall(SYS_pidfd_getfd, delta->task->pidfd, make.result, 0);
	if (fd < 0 && make.result >= 0)
		fd = -errno;
	unmake.arguments[0] = make.result;
	if (make.result >= 0)
		result = victim_call(victim, &unmake, 1);
	if (!was_infected)
		result = victim_cure(victim) ?: result;
	if (!result && fd >= 0)
		result = set_up_userfaultfd(fd);
	if (result && fd >= 0)
		close(fd);
	return result ?: fd;
}

/* *registered: the number of mappings. */
static int protect_mappings(const struct task_delta *delta, size_t *registered)
{
	const struct vmas *vmas = &delta->task->space->vmas;
	int result = 0;

	*registered = 0;
	for (size_t i = 0; result >= 0 && i < vmas->count; i++) {
		const struct vma *vma = &vmas->items[i];

		if (!vma_how_saved(vma)->is_protected)
			continue;
		result = scan_is_protectable(delta->scanner, vma->start, vma->end);
		/* If it cannot be registered (another userfaultfd is there), all its pages will count as changed. */
		if (result < 0 || !register_mapping(delta->userfaultfd, vma))
			continue;
		++*registered;
		result = scan_protect(delta->scanner, vma->start, vma->end, !result);
	}
	return min(result, 0);
}

static int written_begin(struct increment *increment, struct task_delta *delta, const char **why)
{
	bool is_old = delta->userfaultfd >= 0;
	size_t registered = 0;
	int result = 0;

	*why = "its pages cannot be write-protected";
	if (is_old)
		result = protect_mappings(delta, &registered);
	/* After exec, the old userfaultfd is of memory that no longer exists. */
	if (is_old && !result && !registered)
		close(steal_fd(&delta->userfaultfd));
	if (!result && delta->userfaultfd < 0) {
		*why = "a userfaultfd cannot be created in it";
		delta->userfaultfd = make_userfaultfd(delta);
		if (delta->userfaultfd < 0)
			return delta->userfaultfd;
		*why = "its pages cannot be write-protected";
		result = protect_mappings(delta, &registered);
		/*
		 * All mappings belong to another userfaultfd, perhaps that of another snapshot whose tracking has not
		 * ended.
		 */
		if (!result && !registered)
			result = -EBUSY;
	}
	if (result)
		return result;
	increment_keep(increment, delta);
	return 0;
}

const struct tracker tracker_written = {
	.name = "written",
	.number = 2,
	.note = NOTE_WRITTEN,
	.probe = "written",
	.resumes = written_resumes,
	.vouches = written_vouches,
	.begin = written_begin,
};
