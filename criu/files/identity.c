/*
 * identity.c - dump: finds out which descriptors are one open file, and reads what is known about each. See seen.h.
 *
 * The tree is that of tsearch(3), which glibc balances. The file position is not part of the key, because a process
 * outside of the tree that shares an open file may move it at any time.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "files/kind.h"
#include "kernel_constants.h"

void seen_file_free(struct seen_file *seen)
{
	free(seen->link);
	free(seen->info.rest);
	free(seen->lines);
}

static int cannot_borrow(const struct seen_file *seen)
{
	return fail(errno, "cannot get descriptor %d of process %d", seen->fd, seen->holder.here);
}

int files_borrow(const struct seen_file *seen)
{
	int fd = syscall(SYS_pidfd_getfd, seen->holder.pidfd, seen->fd, 0);

	return fd < 0 ? cannot_borrow(seen) : fd;
}

static int look_at_owner(int fd, struct seen_file *seen)
{
	seen->signal = fcntl(fd, F_GETSIG);
	/* An O_PATH descriptor has no owner, and cannot be examined. */
	if (seen->signal < 0 && errno == EBADF)
		return seen->signal = 0;
	if (seen->signal < 0 || fcntl(fd, F_GETOWN_EX, &seen->owner) < 0)
		return fail(errno, "cannot read the owner of descriptor %d", seen->fd);
	if (seen->owner.pid && fcntl(fd, F_GETOWNER_UIDS, seen->owner_users) < 0)
		return fail(errno, "cannot read the user of the owner of descriptor %d", seen->fd);
	return 0;
}

/* A stat of the file itself costs half as much as a stat of its path in /proc. */
static int read_seen_file(struct seen_file *seen, bool may_be_gone)
{
	autoclose int fd = syscall(SYS_pidfd_getfd, seen->holder.pidfd, seen->fd, 0);

	if (fd < 0 && errno == EBADF && may_be_gone)
		return -EBADF;
	if (fd < 0)
		return cannot_borrow(seen);
	if (fstat(fd, &seen->stat) < 0)
		return fail(errno, "cannot stat descriptor %d", seen->fd);
	return look_at_owner(fd, seen);
}

/* An open fdinfo shows nothing if its process has ended, and another has the pid now. */
static int read_fdinfo(struct seen_file *seen, const struct descriptor_ahead *ahead)
{
	if (ahead && ahead->fdinfo >= 0 && read_record_from(ahead->fdinfo, &seen->info.rest) > 0)
		return proc_parse_fdinfo(&seen->info);
	return proc_read_fdinfo(seen->holder.proc, seen->fd, &seen->info);
}

static bool leads_to(const char *path, const struct stat *file)
{
	struct stat found;

	return stat(path, &found) == 0 && found.st_ino == file->st_ino && found.st_dev == file->st_dev;
}

/* Can it have only one name in a mount? */
static bool has_one_path(const struct stat *file)
{
	return S_ISDIR(file->st_mode) || (S_ISREG(file->st_mode) && file->st_nlink == 1);
}

/*
 * If a path leads to the file in the file's mount, and the file has only one name, then it is the path. So it makes no
 * difference when it was read; reading it again would cost twice as much as stat(), which is needed in any case. A
 * link that has taken the place of the file is another file. If a directory on the way has become a link, the path is
 * not what /proc shows, but still leads to the file.
 */
static bool is_still_path(const char *path, const struct seen_file *seen)
{
	const struct stat *file = &seen->stat;
	struct statx found;

	return has_one_path(file) &&
	       !statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_MNT_ID, &found) &&
	       found.stx_mask & STATX_MNT_ID && (int)found.stx_mnt_id == seen->info.mount &&
	       found.stx_ino == file->st_ino &&
	       makedev(found.stx_dev_major, found.stx_dev_minor) == file->st_dev;
}

static int find_link(struct seen_file *seen, struct descriptor_ahead *ahead)
{
	ssize_t length;

	seen->is_at_path = ahead && ahead->link && is_still_path(ahead->link, seen);
	if (seen->is_at_path) {
		seen->link = steal_pointer(&ahead->link);
		return 0;
	}
	length = read_link_at(seen->holder.proc, seen->place, &seen->link);
	if (length < 0)
		return fail(-length, "cannot read the link of descriptor %d", seen->fd);
	if (S_ISREG(seen->stat.st_mode) || S_ISDIR(seen->stat.st_mode))
		seen->is_at_path = seen->link[0] == '/' && leads_to(seen->link, &seen->stat);
	return 0;
}

int seen_file_look(struct seen_file *seen, const struct file_holder *holder, int fd,
		   struct descriptor_ahead *ahead, bool may_be_gone)
{
	int result;

	snprintf(seen->place, sizeof(seen->place), "fd/%d", fd);
	seen->holder = *holder;
	seen->fd = fd;
	result = read_seen_file(seen, may_be_gone) ?: read_fdinfo(seen, ahead) ?: find_link(seen, ahead);
	if (!result)
		fdinfo_split(seen->info.rest, &seen->lines, &seen->line_count);
	return result;
}

int seen_file_look_at_descriptor(struct seen_file *seen, const struct file_holder *holder, int fd,
				 struct descriptor_ahead *ahead)
{
	int result;

	seen->holder = *holder;
	seen->fd = fd;
	result = read_fdinfo(seen, ahead);
	if (!result)
		fdinfo_split(seen->info.rest, &seen->lines, &seen->line_count);
	return result;
}

bool is_same_descriptor(const struct task *a, const struct task *b, int fd)
{
	return syscall(SYS_kcmp, a->here, b->here, KCMP_FILE, fd, fd) == 0;
}

/* ---- the tree ---- */

/* A node of the tree. */
struct identity {
	const struct seen_file *seen;
	struct file *file;
	int error; /* error of the kernel during the search for this node */
};

struct identities {
	void *root;		/* of tsearch() */
	struct index by_path;	/* files known only by their path */
	struct file_holder own; /* pid 0: not filled yet */
	struct descriptors {	/* received by criu, and kept open */
		int *items;
		size_t count;
	} kept;
};

static void free_identities(struct identities *identities)
{
	if (identities->root)
		tdestroy(identities->root, free);
	index_free(&identities->by_path);
	if (identities->own.here) {
		close(identities->own.proc);
		close(identities->own.pidfd);
	}
	for (size_t i = 0; i < identities->kept.count; i++)
		close(identities->kept.items[i]);
	free(identities->kept.items);
	*identities = (struct identities){ 0 };
}

static void clear(void *state)
{
	free_identities(state);
}

static const struct state_type identities_type = { sizeof(struct identities), clear };

static struct identities *identities_of(const struct snapshot *snapshot)
{
	return snapshot_state(snapshot, &identities_type);
}

void files_forget_identities(struct snapshot *snapshot)
{
	free_identities(identities_of(snapshot));
}

static int order(uint64_t a, uint64_t b)
{
	return a < b ? -1 : a > b;
}

/* The kernel's own order. 0: the same open file. */
static int compare_by_kernel(struct identity *wanted, const struct seen_file *other)
{
	const struct seen_file *seen = wanted->seen;
	long result = syscall(SYS_kcmp, seen->holder.here, other->holder.here, KCMP_FILE, seen->fd,
			      other->fd);

	if (result < 0)
		wanted->error = fail(errno, "cannot compare files of processes %d and %d", seen->holder.here,
				     other->holder.here);
	return result == 1 ? -1 : result == 0 ? 0 : 1;
}

/* tsearch() passes the key of the search first. */
static int compare_identities(const void *left, const void *right)
{
	struct identity *wanted = (struct identity *)left;
	const struct seen_file *a = wanted->seen, *b = ((const struct identity *)right)->seen;
	int by_key = order(a->stat.st_dev, b->stat.st_dev);

	if (!by_key)
		by_key = order(a->stat.st_ino, b->stat.st_ino);
	return by_key ? by_key : compare_by_kernel(wanted, b);
}

int files_identify_seen(struct snapshot *snapshot, struct seen_file *seen, struct file **file)
{
	struct identities *identities = identities_of(snapshot);
	struct identity *wanted = allocate(sizeof(*wanted)), **found;
	int error;

	wanted->seen = seen;
	found = tsearch(wanted, &identities->root, compare_identities);
	if (!found)
		return fail(ENOMEM, "out of memory for another open file");
	error = wanted->error;
	if (*found == wanted) {
		wanted->file = snapshot_add_file(snapshot, snapshot->file_count + 1);
		wanted->file->seen = seen;
		*file = wanted->file;
		return error;
	}
	*file = (*found)->file;
	free(wanted);
	seen_file_free(seen);
	free(seen);
	return error;
}

/* ---- what criu itself has received ---- */

struct file_holder file_holder_task(const struct task *task)
{
	return (struct file_holder){
		.here = task->here,
		.session = task->session,
		.name = task->name,
		.proc = task->proc,
		.pidfd = task->pidfd,
	};
}

static int become_holder(struct file_holder *own)
{
	int proc = proc_open(getpid()), pidfd = proc < 0 ? -1 : (int)syscall(SYS_pidfd_open, getpid(), 0);

	if (pidfd < 0) {
		int error = proc < 0 ? -proc : errno;

		if (proc >= 0)
			close(proc);
		return fail(error, "cannot read criu's own open files");
	}
	*own = (struct file_holder){ .here = getpid(), .name = "criu", .proc = proc, .pidfd = pidfd };
	return 0;
}

static int look_at_own(struct snapshot *snapshot, int fd, struct seen_file *seen)
{
	struct file_holder *own = &identities_of(snapshot)->own;
	int result = own->here ? 0 : become_holder(own);

	return result ?: seen_file_look(seen, own, fd, NULL, false);
}

int files_identify(struct snapshot *snapshot, int fd, struct file **file)
{
	struct identities *identities = identities_of(snapshot);
	struct seen_file *seen = allocate(sizeof(*seen));
	size_t known = snapshot->file_count;
	int result = look_at_own(snapshot, fd, seen);

	if (result) {
		seen_file_free(seen);
		free(seen);
	} else {
		result = files_identify_seen(snapshot, seen, file);
	}
	/* Later ones are compared with this descriptor. */
	if (snapshot->file_count > known)
		*grow(&identities->kept.items, &identities->kept.count) = fd;
	else
		close(fd);
	return result;
}

/* ---- files that are known by their paths only ---- */

static uint64_t key_of_path(const struct seen_file *seen)
{
	uint64_t key = index_mix(index_mix(seen->stat.st_dev, seen->stat.st_ino), seen->info.flags);

	for (const char *byte = seen->link; *byte; byte++)
		key = index_mix(key, (unsigned char)*byte);
	return key;
}

struct file *files_find_path(const struct snapshot *snapshot, const struct seen_file *seen, uint64_t *key)
{
	const struct index *by_path = &identities_of(snapshot)->by_path;
	struct file *file;

	for (*key = key_of_path(seen); (file = index_find(by_path, *key)); ++*key) {
		const struct seen_file *other = file->seen;

		if (other->stat.st_dev == seen->stat.st_dev && other->stat.st_ino == seen->stat.st_ino &&
		    other->info.flags == seen->info.flags && !strcmp(other->link, seen->link))
			break;
	}
	return file;
}

void files_note_path(struct snapshot *snapshot, struct file *file, uint64_t key)
{
	index_set(&identities_of(snapshot)->by_path, key, file);
}
