/*
 * ghost_make.c - restore: makes deleted files again. See ghost.h.
 *
 * A ghost is made when the first of its open files is opened. Until all are open, it is criu's own, with mode 0600;
 * then it gets its owner, attributes, mode and times. criu reaches it through a descriptor without access (O_PATH),
 * because a program cannot be executed while anybody has it open for writing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/ghost.h"
#include "files/passing_name.h"
#include "image/message.h"

/* What open(2) is given for a file that exists. */
static int flags_to_open(const struct file *file)
{
	const struct nameless *nameless = file->nameless;
	int flags = file->entry->reg->flags & ~(O_CREAT | O_EXCL | O_TRUNC | O_NOFOLLOW);

	/* O_TMPFILE has the bit of O_DIRECTORY. */
	return !nameless->ghost || !S_ISDIR(nameless->ghost->mode) ? flags & ~O_TMPFILE : flags;
}

static void path_of_descriptor(int fd, char path[NAMELESS_PATH_SIZE])
{
	snprintf(path, NAMELESS_PATH_SIZE, "/proc/self/fd/%d", fd);
}

/* ---- the inode ---- */

static int make_inode(int directory, const char *name, const void *argument)
{
	const GhostFileEntry *entry = argument;

	switch (entry->mode & S_IFMT) {
	case S_IFDIR:
		return mkdirat(directory, name, 0700);
	case S_IFLNK:
		return symlinkat(entry->symlnk_target, directory, name);
	default:
		return mknodat(directory, name, (entry->mode & S_IFMT) | 0600, entry->rdev);
	}
}

/* A file that O_TMPFILE made can get a name later. -1: this file system cannot do that. */
static int make_unnamed(struct nameless *nameless)
{
	const RegFileEntry *entry = nameless->original->entry->reg;
	int flags = entry->flags & ~(O_CREAT | O_EXCL | O_TRUNC | O_NOFOLLOW);
	autoclose int directory = passing_name_place(entry->name);
	char path[NAMELESS_PATH_SIZE];

	if (directory < 0)
		return -1;
	nameless->original_fd = openat(directory, ".", flags | O_TMPFILE | O_CLOEXEC, 0600);
	if (nameless->original_fd < 0)
		return -1;
	path_of_descriptor(nameless->original_fd, path);
	return open(path, O_PATH | O_CLOEXEC);
}

static int fill(const struct snapshot *snapshot, struct nameless *nameless)
{
	const char *name = nameless->file->entry->reg->name;
	char path[NAMELESS_PATH_SIZE];
	autoclose int fd = -1;

	path_of_descriptor(nameless->fd, path);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? fail(errno, "cannot open the deleted file %s to fill it", name) :
			ghost_read(snapshot, nameless, fd);
}

/*
 * Is it the inode that criu has just made? The owner of the directory could have put another file, even a link to a
 * file of somebody else, under the name before criu opened it.
 */
static bool is_new(const struct nameless *nameless)
{
	struct stat found;

	return fstat(nameless->fd, &found) == 0 && !((found.st_mode ^ nameless->ghost->mode) & S_IFMT) &&
	       found.st_uid == geteuid() && (!S_ISREG(found.st_mode) || !found.st_size) &&
	       (!found.st_nlink || ghost_system_hides(nameless->fd));
}

static int make_ghost(const struct snapshot *snapshot, struct nameless *nameless)
{
	const char *name = nameless->file->entry->reg->name;

	if (nameless->original)
		nameless->fd = make_unnamed(nameless);
	if (nameless->fd < 0)
		nameless->fd = passing_name(name, make_inode, nameless->ghost);
	if (nameless->fd < 0)
		return fail(-nameless->fd, "cannot make the deleted file %s again", name);
	if (!is_new(nameless))
		return fail(ESTALE, "cannot make the deleted file %s again: another took its place", name);
	return S_ISREG(nameless->ghost->mode) ? fill(snapshot, nameless) : 0;
}

static int make(const struct snapshot *snapshot, struct nameless *nameless)
{
	int result = 0;

	if (nameless->ghost)
		result = make_ghost(snapshot, nameless);
	else
		nameless->fd = link_open(nameless);
	if (result || nameless->fd < 0)
		return result ?: nameless->fd;
	return fstat(nameless->fd, &nameless->inode) < 0 ?
		       fail(errno, "cannot stat %s", nameless->file->entry->reg->name) :
		       0;
}

int nameless_make(struct snapshot *snapshot)
{
	const struct nameless_files *all = nameless_files_of(snapshot);
	int result = 0;

	/* If the user gives another file for it, the ghost may not be needed. */
	for (size_t i = 0; !result && i < all->count; i++)
		if (!all->items[i]->file->external)
			result = make(snapshot, all->items[i]);
	return result;
}

/* ---- open ---- */

int nameless_reach(struct snapshot *snapshot, const struct file *file, char buffer[NAMELESS_PATH_SIZE],
		   const char **path)
{
	struct nameless *nameless = file->nameless;
	int result = nameless && nameless->fd < 0 ? make(snapshot, nameless) : 0;

	*path = nameless ? buffer : file->entry->reg->name;
	if (nameless && !result)
		path_of_descriptor(nameless->fd, buffer);
	return result;
}

int nameless_open(struct snapshot *snapshot, struct file *file)
{
	struct nameless *nameless = file->nameless;
	char buffer[NAMELESS_PATH_SIZE];
	const char *path;
	int flags = flags_to_open(file), fd, result = nameless_reach(snapshot, file, buffer, &path);

	if (result)
		return result;
	if (nameless->original == file && nameless->original_fd >= 0)
		return steal_fd(&nameless->original_fd);
	/* Such descriptors have no state of their own, and the flags are those that criu has used. */
	if (flags & O_PATH && file->entry->reg->flags & O_NOFOLLOW)
		fd = fcntl(nameless->fd, F_DUPFD_CLOEXEC, 0);
	else
		fd = open(path, flags | O_CLOEXEC | O_NOCTTY);
	return fd < 0 ? fail(errno, "cannot open %s with its original flags (%#o)", file->entry->reg->name,
			     file->entry->reg->flags) :
			fd;
}

/* ---- when all are open ---- */

/* Without these, the process or the kernel would treat the file differently. Others are the system's own. */
static bool is_needed(const char *attribute)
{
	return !strncmp(attribute, "user.", 5) || !strncmp(attribute, "system.posix_acl", 16) ||
	       !strcmp(attribute, "security.capability");
}

static int set_attributes(const char *path, const char *name, const GhostFileEntry *entry)
{
	/* A default ACL of the directory gave the new file one. */
	static const char *const inherited[] = { "system.posix_acl_access", "system.posix_acl_default" };

	for (size_t i = 0; i < array_size(inherited); i++)
		ignore(removexattr(path, inherited[i]));
	for (size_t i = 0; i < entry->n_attributes; i++) {
		const GhostAttributeEntry *attribute = entry->attributes[i];

		if (setxattr(path, attribute->name, attribute->value.data, attribute->value.len, 0) == 0)
			continue;
		if (is_needed(attribute->name))
			return fail(errno, "cannot set the attribute %s of the deleted file %s",
				    attribute->name, name);
		log_warning("cannot set the attribute %s of the deleted file %s: %s", attribute->name, name,
			    strerror(errno));
	}
	return 0;
}

static struct timespec time_of(const Timeval *entry)
{
	return entry ? (struct timespec){ entry->tv_sec, entry->tv_usec * 1000 } :
		       (struct timespec){ 0, UTIME_OMIT };
}

static int set_times(const char *path, const GhostFileEntry *entry)
{
	const InodeTimesEntry *times = entry->times;
	struct timespec wanted[2] = { time_of(entry->atim), time_of(entry->mtim) };

	if (times) {
		wanted[0] = (struct timespec){ times->accessed, times->accessed_ns };
		wanted[1] = (struct timespec){ times->modified, times->modified_ns };
	}
	return utimensat(AT_FDCWD, path, wanted, 0);
}

/* A new owner clears bits of the mode and the capabilities, so they come later. */
static int finish(struct nameless *nameless)
{
	const GhostFileEntry *entry = nameless->ghost;
	const char *name = nameless->file->entry->reg->name;
	const struct stat *now = &nameless->inode;
	char path[NAMELESS_PATH_SIZE];
	int result;

	path_of_descriptor(nameless->fd, path);
	if ((now->st_uid != entry->uid || now->st_gid != entry->gid) &&
	    fchownat(nameless->fd, "", entry->uid, entry->gid, AT_EMPTY_PATH) < 0)
		return fail(errno, "cannot give the deleted file %s to user %u and group %u", name,
			    entry->uid, entry->gid);
	result = set_attributes(path, name, entry);
	if (result)
		return result;
	if (!S_ISLNK(entry->mode) && chmod(path, entry->mode & 07777) < 0)
		return fail(errno, "cannot set the mode of the deleted file %s", name);
	if (set_times(path, entry) < 0)
		return fail(errno, "cannot set the times of the deleted file %s", name);
	return 0;
}

int ghosts_finish(struct snapshot *snapshot)
{
	const struct nameless_files *all = nameless_files_of(snapshot);
	int result = 0;

	for (size_t i = 0; !result && i < all->count; i++)
		if (all->items[i]->ghost && all->items[i]->fd >= 0)
			result = finish(all->items[i]);
	nameless_close(snapshot);
	return result;
}
