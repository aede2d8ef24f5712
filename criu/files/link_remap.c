/*
 * link_remap.c - files whose path was deleted, while other links lead to them. The POSIX semaphores of glibc are such
 * files: sem_open() opens a temporary name, gives the file its own, and removes the first.
 *
 * A dump looks for another name in the directory of the deleted one, and saves that path instead. If there is none, it
 * makes one with --link-remap, `link_remap.N` in the same directory, for a restore to find. The image has the file
 * handle, too. A restore removes the name when the processes run; the next restore of the same images finds the file by
 * its handle. That works as long as a link exists, in the same file system, if that has handles (ext4, xfs, btrfs,
 * tmpfs; not overlayfs).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/ghost.h"
#include "files/passing_name.h"
#include "files/words.h"
#include "image/message.h"

#define LINK_PREFIX "link_remap."
#define LINK_TRIES  1000

/* ---- dump: another name ---- */

/* A file for which a name is wanted, and the directory that its deleted name was in. */
struct wanted {
	struct nameless *nameless;
	char *directory;
};

static int compare_directories(const void *left, const void *right)
{
	return strcmp(((const struct wanted *)left)->directory, ((const struct wanted *)right)->directory);
}

/* "/a" for "/a/b", "/" for "/a"; to be freed. */
static char *directory_of(const char *path)
{
	char *directory = copy_text(path), *last = strrchr(directory, '/');

	last[last == directory] = '\0';
	return directory;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static char *join(const char *directory, const char *name)
{
	return format_text("%s/%s", strcmp(directory, "/") ? directory : "", name);
}

/* A name that an earlier dump has made. A restore of its images removes it. */
static bool is_made_by_criu(const char *name)
{
	return !strncmp(name, LINK_PREFIX, strlen(LINK_PREFIX));
}

static bool leads_to(DIR *directory, const struct dirent *entry, const struct stat *file)
{
	struct stat found;

	return entry->d_ino == file->st_ino && !is_made_by_criu(entry->d_name) &&
	       fstatat(dirfd(directory), entry->d_name, &found, AT_SYMLINK_NOFOLLOW) == 0 &&
	       is_same(&found, file);
}

char *link_beside(const char *deleted, const struct stat *file)
{
	autofree char *path = directory_of(deleted);
	DIR *directory = opendir(path);
	struct dirent *entry;
	char *name = NULL;

	while (!name && directory && (entry = readdir(directory)))
		if (leads_to(directory, entry, file))
			name = join(path, entry->d_name);
	if (directory)
		closedir(directory);
	return name;
}

/* Looks through one directory for all files that lack a name there. */
static void look_through(const char *path, struct wanted *wanted, size_t count)
{
	struct index by_inode = { 0 };
	DIR *directory = opendir(path);
	struct dirent *entry;

	for (size_t i = 0; i < count; i++)
		index_set(&by_inode, wanted[i].nameless->file->seen->stat.st_ino, wanted[i].nameless);
	while (directory && (entry = readdir(directory))) {
		struct nameless *nameless = index_find(&by_inode, entry->d_ino);

		if (nameless && !nameless->other && leads_to(directory, entry, &nameless->file->seen->stat))
			nameless->other = join(path, entry->d_name);
	}
	if (directory)
		closedir(directory);
	index_free(&by_inode);
}

static void look_through_all(struct wanted *wanted, size_t count)
{
	if (count)
		qsort(wanted, count, sizeof(*wanted), compare_directories);
	for (size_t i = 0, next; i < count; i = next) {
		for (next = i + 1; next < count && !strcmp(wanted[i].directory, wanted[next].directory);)
			next++;
		look_through(wanted[i].directory, wanted + i, next - i);
	}
}

/* The image has the other path, as if it had been opened by that. */
static void take_other_names(struct snapshot *snapshot)
{
	for (size_t i = 0; i < snapshot->file_count; i++) {
		struct file *file = snapshot->files[i];

		if (!file->nameless || !file->nameless->other)
			continue;
		log_info("file %u: %s is saved as %s", file->id, file->seen->link, file->nameless->other);
		free(file->entry->reg->name);
		file->entry->reg->name = copy_text(file->nameless->other);
		file->nameless = NULL;
	}
}

static void read_handle(struct nameless *nameless)
{
	autofree struct file_handle *handle = allocate(sizeof(*handle) + MAX_HANDLE_SZ);
	autofree char *place = seen_file_place(nameless->file->seen);
	int mount;

	handle->handle_bytes = MAX_HANDLE_SZ;
	if (name_to_handle_at(AT_FDCWD, place, handle, &mount, AT_SYMLINK_FOLLOW) < 0) {
		log_info("%s has no file handle (%s): its images can be restored only once",
			 nameless->file->seen->link, strerror(errno));
		return;
	}
	nameless->handle_type = handle->handle_type;
	nameless->handle_size = handle->handle_bytes;
	nameless->handle = copy_bytes(handle->f_handle, handle->handle_bytes);
}

/* The directory of the name, or the nearest one above it that is left. */
static char *find_directory(const struct nameless *nameless)
{
	char *directory = directory_of(nameless->file->entry->reg->name);
	struct stat found;

	while (directory[1] && (stat(directory, &found) < 0 || !S_ISDIR(found.st_mode))) {
		char *above = directory_of(directory);

		free(directory);
		directory = above;
	}
	return directory;
}

/* Adds the regular file that has the path of the link, as the format requires. The name is made later. */
static void plan_link(struct snapshot *snapshot, struct nameless *nameless)
{
	struct file *link = snapshot_add_file(snapshot, snapshot->file_count + 1);
	autofree char *directory = find_directory(nameless);
	autofree char *name = format_text(LINK_PREFIX "%u", link->id);

	link->seen = allocate(sizeof(*link->seen));
	link->seen->holder = nameless->file->seen->holder;
	link->seen->fd = -1;
	link->seen->link = join(directory, name);
	link->is_described = link->is_only_path = true;
	file_set_kind(snapshot, link, &file_kind_regular);
	file_make_message(snapshot, link);
	link->entry->reg->name = copy_text(link->seen->link);
	nameless->link = link;
	read_handle(nameless);
}

int links_find(struct snapshot *snapshot)
{
	const struct nameless_files *all = nameless_files_of(snapshot);
	struct wanted *wanted = NULL;
	size_t count = 0;
	int result = 0;

	for (size_t i = 0; i < all->count; i++)
		if (!all->items[i]->ghost && all->items[i]->file->seen->stat.st_nlink &&
		    !all->items[i]->is_refused)
			*grow(&wanted, &count) = (struct wanted){
				all->items[i], directory_of(all->items[i]->file->entry->reg->name)
			};
	look_through_all(wanted, count);
	for (size_t i = 0; i < count; i++) {
		struct nameless *nameless = wanted[i].nameless;

		free(wanted[i].directory);
		if (nameless->other || result)
			continue;
		if (snapshot->policy.makes_links) {
			plan_link(snapshot, nameless);
			continue;
		}
		fail_advice("--link-remap");
		result = unless_refused(refuse_file(
			nameless->file->seen,
			"its path was deleted, and only other links to it exist, in other directories"));
	}
	free(wanted);
	if (!result)
		take_other_names(snapshot);
	return result;
}

/* ---- dump: a new name ---- */

static int make_link(struct nameless *nameless)
{
	const struct seen_file *seen = nameless->file->seen;
	RegFileEntry *link = nameless->link->entry->reg;
	autofree char *place = seen_file_place(seen), *directory = directory_of(link->name);
	struct stat found;

	for (unsigned i = 0; i < LINK_TRIES; i++) {
		autofree char *name = format_text(LINK_PREFIX "%u", nameless->link->id + i);

		free(link->name);
		link->name = join(directory, name);
		if (linkat(AT_FDCWD, place, AT_FDCWD, link->name, AT_SYMLINK_FOLLOW) == 0) {
			nameless->is_made = true;
			return 0;
		}
		if (errno != EEXIST)
			return fail(errno, "process %d (%s): cannot make the name %s for %s",
				    seen->holder.here, seen->holder.name, link->name, seen->link);
		/* Left by an earlier dump. */
		if (lstat(link->name, &found) == 0 && is_same(&found, &seen->stat))
			return 0;
	}
	return fail(EEXIST, "no name is free in %s for another link to %s", directory, seen->link);
}

int links_make(struct snapshot *snapshot)
{
	const struct nameless_files *all = nameless_files_of(snapshot);
	int result = 0;

	for (size_t i = 0; !result && i < all->count; i++)
		if (all->items[i]->link)
			result = make_link(all->items[i]);
	return result;
}

static void remove_link(const char *name, const struct stat *inode)
{
	const char *base = strrchr(name, '/') + 1;
	struct stat found;

	if (!is_made_by_criu(base) || lstat(name, &found) < 0 || !is_same(&found, inode))
		return;
	if (unlink(name) < 0)
		log_warning("cannot remove %s: %s", name, strerror(errno));
}

void links_remove(struct snapshot *snapshot)
{
	const struct nameless_files *all = nameless_files_of(snapshot);

	for (size_t i = 0; i < all->count; i++) {
		struct nameless *nameless = all->items[i];

		if (nameless->is_made)
			remove_link(nameless->link->entry->reg->name, &nameless->file->seen->stat);
		nameless->is_made = false;
	}
}

/* ---- restore ---- */

/* The handle is of the file system that has the directory of the name. -1 with errno. */
static int open_handle(const struct nameless *nameless)
{
	autofree struct file_handle *handle = allocate(sizeof(*handle) + MAX_HANDLE_SZ);
	autofree char *directory = directory_of(nameless->link->entry->reg->name);
	autoclose int mount = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (mount < 0)
		return -1;
	handle->handle_type = nameless->handle_type;
	handle->handle_bytes = nameless->handle_size;
	memcpy(handle->f_handle, nameless->handle, nameless->handle_size);
	return open_by_handle_at(mount, handle, O_PATH | O_CLOEXEC);
}

/* An O_PATH descriptor; -errno, recorded. */
static int find_link(const struct nameless *nameless)
{
	const RegFileEntry *entry = nameless->file->entry->reg;
	const char *name = nameless->link->entry->reg->name;
	int fd = open(name, O_PATH | O_NOFOLLOW | O_CLOEXEC), error = errno;

	if (fd < 0 && error == ENOENT && nameless->handle) {
		fd = open_handle(nameless);
		error = errno == ESTALE ? ENOENT : errno;
	}
	return fd < 0 ? fail(error, "%s, another link to %s, which the process had open, cannot be found",
			     name, entry->name) :
			fd;
}

/* An open file is a regular one. Any file can be opened with O_PATH, and the path of a named pipe can be known. */
static bool can_be_linked(const struct file *file, mode_t mode)
{
	return S_ISREG(mode) || file->entry->reg->flags & O_PATH || (file->is_only_path && S_ISFIFO(mode));
}

int link_check(const struct file *file)
{
	const RegFileEntry *entry = file->entry->reg;
	autoclose int fd = find_link(file->nameless);
	struct stat found;

	if (fd < 0)
		return fd;
	if (fstat(fd, &found) < 0)
		return fail(errno, "cannot stat another link to %s", entry->name);
	if (!can_be_linked(file, found.st_mode))
		return fail(EINVAL, "another link to %s is not a regular file", entry->name);
	if (entry->has_mode && (found.st_mode ^ entry->mode) & S_IFMT)
		return fail(EINVAL, "another link to %s is a file of another type now", entry->name);
	if (entry->has_size && (uint64_t)found.st_size != entry->size)
		return fail(
			EINVAL,
			"%s, now reached by another link, has %lld bytes and had %llu when the process was dumped",
			entry->name, (long long)found.st_size, (unsigned long long)entry->size);
	return 0;
}

static int make_passing_link(int directory, const char *name, const void *argument)
{
	char path[NAMELESS_PATH_SIZE];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", *(const int *)argument);
	return linkat(AT_FDCWD, path, directory, name, AT_SYMLINK_FOLLOW);
}

/* The same inode by the name that the process had opened; -errno, not recorded. */
static int open_by_old_name(const struct nameless *nameless, int fd)
{
	autoclose int named = passing_name(nameless->file->entry->reg->name, make_passing_link, &fd);
	struct stat wanted, found;

	if (named < 0)
		return named;
	if (fstat(fd, &wanted) < 0 || fstat(named, &found) < 0 || !is_same(&wanted, &found))
		return -ESTALE; /* another has taken its place */
	return steal_fd(&named);
}

int link_open(const struct nameless *nameless)
{
	int fd = find_link(nameless), named = fd;

	if (fd >= 0)
		named = open_by_old_name(nameless, fd);
	if (named < 0 && fd >= 0) {
		log_info("%s is shown under another name: %s", nameless->file->entry->reg->name,
			 strerror(-named));
		return fd;
	}
	if (fd >= 0)
		close(fd);
	return named;
}

void links_release(struct snapshot *snapshot)
{
	const struct nameless_files *all = nameless_files_of(snapshot);

	for (size_t i = 0; i < all->count; i++)
		if (all->items[i]->link)
			remove_link(all->items[i]->link->entry->reg->name, &all->items[i]->inode);
}
