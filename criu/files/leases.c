/*
 * leases.c - leases of files (F_SETLEASE): whoever opens the file in a conflicting way waits, and the holder is told
 * by a signal to give the lease up or to reduce it. See lock.h.
 *
 * While a lease is being broken, the kernel tells only what it will be: F_GETLEASE and /proc have the same. It has to
 * be a write lease if it will be a read lease, or if its file is open for writing, because then nobody gets a read
 * lease. Otherwise criu tries to open the file for reading: only a write lease prevents that. Such an attempt changes
 * nothing, because the lease is being broken already (Linux 6.18, __break_lease()).
 *
 * After the restore the holder has the whole time (/proc/sys/fs/lease-break-time) once more.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"
#include "files/lock.h"

/* Opens the file behind a descriptor of this process, as somebody else would. */
static int open_as_other(int fd, int flags)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

/* ---- dump ---- */

int lease_find_held(struct file_lock *lease)
{
	const struct seen_file *seen = lease->file->seen;
	autoclose int fd = -1, other = -1;

	lease->held = F_WRLCK;
	if (lease->type == F_RDLCK || (seen->info.flags & O_ACCMODE) != O_RDONLY)
		return 0;
	fd = files_borrow(seen);
	if (fd < 0)
		return fd;
	other = open_as_other(fd, O_RDONLY);
	if (other >= 0 || errno != EWOULDBLOCK)
		lease->held = F_RDLCK;
	if (other < 0 && errno != EWOULDBLOCK)
		log_warning(
			"%s: criu cannot see whether the lease that is being broken is one for reading (%s)",
			seen->link, strerror(errno));
	return 0;
}

/* ---- restore ---- */

uint32_t lease_guess_held(const struct snapshot *snapshot, const struct file_lock *lease)
{
	bool is_reader = (file_flags(snapshot, lease->file) & O_ACCMODE) == O_RDONLY;

	return lease->type == F_UNLCK && is_reader ? F_RDLCK : F_WRLCK;
}

static int remove_owner(int fd)
{
	return fcntl(fd, F_SETOWN, 0) < 0 ? fail(errno, "cannot remove the owner of descriptor %d", fd) : 0;
}

static int break_again(const struct file_lock *lease)
{
	autoclose int other = -1;

	other = open_as_other(lease->fd, lease->type == F_UNLCK ? O_WRONLY : O_RDONLY);
	if (other >= 0)
		return fail(0, "the lease of descriptor %d does not prevent that the file is opened",
			    lease->fd);
	if (errno != EWOULDBLOCK)
		log_warning("descriptor %d: its lease was being broken, and is whole now: %s", lease->fd,
			    strerror(errno));
	return 0;
}

/*
 * The kernel makes the process that takes a lease the owner of the file, if it has none. While the lease is broken
 * again there is no owner, so nobody is told of it a second time.
 */
int lease_take(const struct snapshot *snapshot, const struct file_lock *lease)
{
	const FownEntry *owner = file_owner(snapshot, lease->file);
	bool had_owner = owner && owner->pid;
	int result = 0;

	if (fcntl(lease->fd, F_SETLEASE, lease->held) < 0)
		return -errno;
	if (lease->file->is_shared_outside)
		return lease->is_broken ? break_again(lease) : 0;
	if (lease->is_broken || !had_owner)
		result = remove_owner(lease->fd);
	if (!result && lease->is_broken)
		result = break_again(lease);
	return result || !had_owner ? result : descriptor_set_owner(lease->fd, lease->file->id, owner);
}
