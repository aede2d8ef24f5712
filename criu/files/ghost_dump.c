/*
 * ghost_dump.c - dump: deleted files, with their content. See ghost.h.
 *
 * The content is copied while the processes are frozen, because any of them may write to the file, through a mapping,
 * too. Where the file system can, it shares the blocks with the image (base/copy.h). Holes are not read: SEEK_DATA
 * finds the data. Small files are only read then, and written when the processes may run: to make an image takes some
 * 0.1 ms.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "base/copy.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/ghost.h"
#include "files/passing_name.h"
#include "files/words.h"
#include "image/message.h"
#include "model/inode.h"

#define PIECE	  (64ULL << 20) /* what is copied between two looks for a signal */
#define SMALL	  (64ULL << 10)
#define MOST_HELD (64ULL << 20) /* bytes of small files in memory */

bool nameless_find(struct snapshot *snapshot, struct file *file)
{
	const struct stat *stat = &file->seen->stat;
	struct nameless_files *all = nameless_files_of(snapshot);
	struct nameless *known;
	uint64_t key = index_mix(stat->st_dev, stat->st_ino);

	for (; (known = index_find(&all->by_inode, key)); key++) {
		const struct stat *other = &known->file->seen->stat;

		if (other->st_dev == stat->st_dev && other->st_ino == stat->st_ino)
			break;
	}
	if (known) {
		file->nameless = known;
		return true;
	}
	index_set(&all->by_inode, key, nameless_add(snapshot, file));
	return false;
}

/* ---- describe ---- */

/* Reading must not change the time of the last access. Only the owner may ask for that, or root. */
static int open_to_read(const struct seen_file *seen)
{
	int flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
	int fd = openat(seen->holder.proc, seen->place, flags | O_NOATIME);

	return fd < 0 && errno == EPERM ? openat(seen->holder.proc, seen->place, flags) : fd;
}

static void add_attribute(GhostFileEntry *entry, const char *name, void *value, size_t size)
{
	GhostAttributeEntry *attribute = message_new(GhostAttributeEntry, ghost_attribute_entry);

	*grow(&entry->attributes, &entry->n_attributes) = attribute;
	attribute->name = copy_text(name);
	attribute->value.data = value;
	attribute->value.len = size;
}

/* Attributes may be as large as XATTR_SIZE_MAX, 64 KiB; so may the list of their names. */
static int read_attributes(const char *path, GhostFileEntry *entry)
{
	autofree char *names = allocate(XATTR_LIST_MAX);
	ssize_t length = listxattr(path, names, XATTR_LIST_MAX);

	if (length < 0)
		return errno == EOPNOTSUPP ? 0 : -errno;
	for (const char *name = names; name < names + length; name += strlen(name) + 1) {
		ssize_t size = getxattr(path, name, NULL, 0);
		char *value = size < 0 ? NULL : allocate(size + 1);

		size = value ? getxattr(path, name, value, size) : size;
		if (size >= 0) {
			add_attribute(entry, name, value, size);
			continue;
		}
		free(value);
		if (errno != ENODATA && errno != EOPNOTSUPP)
			return -errno;
	}
	return 0;
}

static int read_target(const struct seen_file *seen, GhostFileEntry *entry)
{
	autoclose int fd = files_borrow(seen);
	char target[PATH_MAX];
	ssize_t length = fd < 0 ? -1 : readlinkat(fd, "", target, sizeof(target) - 1);

	if (fd < 0)
		return fd;
	if (length < 0)
		return fail(errno, "cannot read the symbolic link %s", seen->link);
	target[length] = '\0';
	entry->symlnk_target = copy_text(target);
	return 0;
}

static Timeval *time_entry(const struct timespec *time)
{
	Timeval *entry = message_new(Timeval, timeval);

	entry->tv_sec = time->tv_sec;
	entry->tv_usec = time->tv_nsec / 1000;
	return entry;
}

/* The format has dev as the kernel counts it, and rdev as programs see it. */
static GhostFileEntry *new_entry(const struct stat *stat)
{
	GhostFileEntry *entry = message_new(GhostFileEntry, ghost_file_entry);

	entry->uid = stat->st_uid;
	entry->gid = stat->st_gid;
	entry->mode = stat->st_mode;
	message_set(entry, dev, major(stat->st_dev) << 20 | minor(stat->st_dev));
	message_set(entry, ino, stat->st_ino);
	if (S_ISCHR(stat->st_mode))
		message_set(entry, rdev, stat->st_rdev);
	entry->atim = time_entry(&stat->st_atim);
	entry->mtim = time_entry(&stat->st_mtim);
	entry->times = inode_times(stat);
	return entry;
}

/* Up to `most`. */
static uint64_t count_data(int fd, uint64_t most)
{
	uint64_t count = 0;
	off_t at = 0, hole;

	while (count <= most && (at = lseek(fd, at, SEEK_DATA)) >= 0) {
		hole = lseek(fd, at, SEEK_HOLE);
		if (hole < 0)
			break;
		count += hole - at;
		at = hole;
	}
	return count;
}

/* To open the file for reading would break it. */
static bool has_write_lease(const struct seen_file *seen)
{
	for (size_t i = 0; i < seen->line_count; i++)
		if (!strcmp(seen->lines[i].key, "lock") && strstr(seen->lines[i].value, " LEASE ") &&
		    !strstr(seen->lines[i].value, " READ "))
			return true;
	return false;
}

static int check_content(const struct snapshot *snapshot, const struct seen_file *seen)
{
	autoclose int fd = has_write_lease(seen) ? -1 : open_to_read(seen);
	uint64_t limit = snapshot->policy.ghost_limit;
	struct statfs system;

	if (has_write_lease(seen))
		return refuse_file(seen, "it is deleted, and has a lease (F_SETLEASE): give that up first");
	if (fd < 0) {
		autofree char *why = format_text("it is deleted, and its content cannot be read: %s",
						 strerror(errno));

		return refuse_file(seen, why);
	}
	if (fstatfs(fd, &system) == 0 && system.f_type == HUGETLBFS_MAGIC)
		return refuse_file(seen, "deleted files of hugetlbfs are not supported yet");
	if (limit && (uint64_t)seen->stat.st_size > limit && count_data(fd, limit) > limit) {
		autofree char *why = format_text(
			"it is deleted, and has more than %llu bytes of data, which is the limit (--ghost-limit)",
			(unsigned long long)limit);

		fail_advice("a larger --ghost-limit");
		return refuse_file(seen, why);
	}
	return 0;
}

/* Where it will be made again. */
static int check_place(const struct snapshot *snapshot, const struct seen_file *seen, const char *path)
{
	int error = -passing_name_check(path);
	autofree char *why = NULL;

	if (!error)
		return 0;
	why = format_text("it is deleted, and could not be made again in its directory: %s", strerror(error));
	if (!snapshot->policy.leave_running && !snapshot->policy.leave_stopped)
		return refuse_file(seen, why);
	log_warning("%s: %s", seen->link, why);
	return 0;
}

int ghost_describe(struct snapshot *snapshot, struct file *file)
{
	const struct seen_file *seen = file->seen;
	struct nameless *nameless = file->nameless;
	autofree char *path = seen_file_place(seen), *name = nameless_path(seen->link);
	const char *remedy;
	int result;

	nameless->is_refused = file_system_in_words(seen, &remedy) ||
			       !ghost_is_possible(seen->stat.st_mode, seen->stat.st_rdev);
	if (nameless->is_refused)
		return refuse_file(seen, "deleted files of this kind are not supported yet");
	nameless->id = ++nameless_files_of(snapshot)->ghosts;
	nameless->ghost = new_entry(&seen->stat);
	result = read_attributes(path, nameless->ghost);
	if (result)
		return fail(-result, "cannot read the attributes of %s", seen->link);
	if (S_ISLNK(seen->stat.st_mode))
		result = read_target(seen, nameless->ghost);
	else if (S_ISREG(seen->stat.st_mode))
		result = check_content(snapshot, seen);
	return result ?: check_place(snapshot, seen, name);
}

/* What a file takes at most: its size, or its blocks if it has holes. */
static uint64_t most_data(const struct nameless *nameless)
{
	const struct stat *stat = &nameless->file->seen->stat;

	return nameless->ghost && S_ISREG(stat->st_mode) ?
		       min((uint64_t)stat->st_size, (uint64_t)stat->st_blocks * 512) :
		       0;
}

int ghosts_judge(struct snapshot *snapshot)
{
	const struct nameless_files *all = nameless_files_of(snapshot);
	int directory = image_store_directory(snapshot->images);
	uint64_t data = 0;
	struct statvfs found;

	for (size_t i = 0; i < all->count; i++)
		data += most_data(all->items[i]);
	if (!data || directory < 0 || fstatvfs(directory, &found) < 0)
		return 0;
	if (data <= (uint64_t)found.f_bavail * found.f_frsize)
		return 0;
	fail_advice("a directory with more space; --ghost-limit refuses files that are too large");
	return unless_refused(refuse(
		"deleted files have %llu MiB of data, and only %llu MiB are free for the images",
		(unsigned long long)data >> 20, (unsigned long long)found.f_bavail * found.f_frsize >> 20));
}

/* ---- save ---- */

struct saving {
	struct image *image;
	struct copier copier;
	int fd;
};

/* Appends a range of the file. If the file has become shorter meanwhile, the rest is zeros. */
static int append(struct saving *saving, uint64_t offset, uint64_t size)
{
	int to = image_fd(saving->image), result = image_flush(saving->image);
	off_t at = result ? -1 : lseek(to, 0, SEEK_END);

	if (result)
		return result;
	if (at < 0 || ftruncate(to, at + size) < 0)
		return fail(errno, "cannot write %s", image_name(saving->image));
	for (uint64_t done = 0, take; !result && done < size; done += take) {
		take = min(size - done, PIECE);
		result = copier_copy(&saving->copier, saving->fd, offset + done, to, at + done, take);
		if (result)
			return fail(-result, "cannot copy a deleted file to %s", image_name(saving->image));
		result = interrupt_check();
	}
	if (!result && lseek(to, 0, SEEK_END) < 0)
		result = fail(errno, "cannot write %s", image_name(saving->image));
	return result;
}

static int append_chunks(struct saving *saving, uint64_t size)
{
	off_t at = 0;
	int result = 0;

	while (!result && (uint64_t)at < size && (at = lseek(saving->fd, at, SEEK_DATA)) >= 0) {
		off_t hole = lseek(saving->fd, at, SEEK_HOLE);
		GhostChunkEntry chunk = GHOST_CHUNK_ENTRY__INIT;

		if (hole < 0 || (uint64_t)at >= size)
			break;
		chunk.off = at;
		chunk.len = min((uint64_t)hole, size) - at;
		result = image_write(saving->image, &chunk.base) ?: append(saving, chunk.off, chunk.len);
		at = hole;
	}
	return result;
}

static bool has_holes(int fd, uint64_t size)
{
	off_t hole = size ? lseek(fd, 0, SEEK_HOLE) : -1;

	return hole >= 0 && (uint64_t)hole < size;
}

/* Reads a small file. If it has become shorter meanwhile, the rest is zeros. */
static int hold_content(struct snapshot *snapshot, struct nameless *nameless, int fd, size_t size)
{
	ssize_t got = 0;

	nameless->content = allocate(size);
	nameless->content_size = size;
	nameless_files_of(snapshot)->held += size;
	for (size_t done = 0; done < size; done += got) {
		got = pread(fd, nameless->content + done, size - done, done);
		if (got < 0)
			return fail(errno, "cannot read the deleted file %s", nameless->file->seen->link);
		if (!got)
			break;
	}
	return 0;
}

/* 1: it is held; 0: it is not small. */
static int hold_small(struct snapshot *snapshot, struct nameless *nameless)
{
	const struct seen_file *seen = nameless->file->seen;
	autoclose int fd = -1;
	struct stat now;

	if (!S_ISREG(seen->stat.st_mode) || (uint64_t)seen->stat.st_size > SMALL ||
	    nameless_files_of(snapshot)->held > MOST_HELD)
		return 0;
	fd = open_to_read(seen);
	if (fd < 0 || fstat(fd, &now) < 0 || (uint64_t)now.st_size > SMALL || has_holes(fd, now.st_size))
		return 0;
	message_set(nameless->ghost, size, now.st_size);
	return hold_content(snapshot, nameless, fd, now.st_size) ?: 1;
}

static int save_held(struct snapshot *snapshot, struct nameless *nameless)
{
	struct image *image;
	int result = image_create(snapshot->images, &image, IMAGE_GHOST_FILE, nameless->id);

	if (result)
		return result;
	result = image_write(image, &nameless->ghost->base) ?:
			 image_write_bytes(image, nameless->content, nameless->content_size);
	log_info("ghost-file-%x.img: %s, %zu bytes copied", nameless->id, nameless->file->seen->link,
		 nameless->content_size);
	free(steal_pointer(&nameless->content));
	return image_close(image) ?: result;
}

static int save_content(struct saving *saving, const struct nameless *nameless)
{
	GhostFileEntry *entry = nameless->ghost;
	const struct seen_file *seen = nameless->file->seen;
	struct stat now;

	saving->fd = open_to_read(seen);
	if (saving->fd < 0 || fstat(saving->fd, &now) < 0)
		return fail(errno, "process %d (%s): cannot read the deleted file %s", seen->holder.here,
			    seen->holder.name, seen->link);
	message_set(entry, size, now.st_size);
	if (!has_holes(saving->fd, now.st_size))
		return image_write(saving->image, &entry->base) ?: append(saving, 0, now.st_size);
	message_set(entry, chunks, true);
	return image_write(saving->image, &entry->base) ?: append_chunks(saving, now.st_size);
}

static int save_ghost(struct snapshot *snapshot, const struct nameless *nameless)
{
	struct saving saving = { .fd = -1 };
	int result = image_create(snapshot->images, &saving.image, IMAGE_GHOST_FILE, nameless->id);

	if (result)
		return result;
	if (S_ISREG(nameless->ghost->mode))
		result = save_content(&saving, nameless);
	else
		result = image_write(saving.image, &nameless->ghost->base);
	if (saving.fd >= 0)
		close(saving.fd);
	if (result)
		image_abandon(saving.image, result);
	else
		log_info("ghost-file-%x.img: %s, %llu bytes copied, %llu shared", nameless->id,
			 nameless->file->seen->link, (unsigned long long)saving.copier.copied,
			 (unsigned long long)saving.copier.shared);
	return image_close(saving.image) ?: result;
}

static int save_remap(struct image *image, const struct file *file)
{
	const struct nameless *nameless = file->nameless;
	RemapFilePathEntry entry = REMAP_FILE_PATH_ENTRY__INIT;

	entry.orig_id = file->id;
	entry.remap_id = nameless->ghost ? nameless->id : nameless->link->id;
	message_set(&entry, remap_type, nameless->ghost ? REMAP_TYPE__GHOST : REMAP_TYPE__LINKED);
	if (nameless->handle) {
		message_set(&entry, handle_type, nameless->handle_type);
		entry.has_handle = true;
		entry.handle.data = nameless->handle;
		entry.handle.len = nameless->handle_size;
	}
	return image_write(image, &entry.base);
}

static int save_ended(struct image *image, const struct ended_process *ended)
{
	RemapFilePathEntry entry = REMAP_FILE_PATH_ENTRY__INIT;

	entry.orig_id = ended->file;
	entry.remap_id = ended->pid;
	message_set(&entry, remap_type, REMAP_TYPE__PROCFS);
	return image_write(image, &entry.base);
}

static size_t depth(const struct file *file)
{
	const struct nameless *nameless = file->nameless;

	return nameless->ghost && S_ISDIR(nameless->ghost->mode) ? strlen(file->entry->reg->name) : SIZE_MAX;
}

/* What is in directories, before them: criu 4.2 removes its names in this order. */
static int compare_depths(const void *left, const void *right)
{
	const struct file *a = *(struct file *const *)left, *b = *(struct file *const *)right;

	if (depth(a) != depth(b))
		return depth(a) > depth(b) ? -1 : 1;
	return a->id < b->id ? -1 : 1;
}

static int save_remaps(struct snapshot *snapshot)
{
	autofree struct file **files = allocate_array(snapshot->file_count + 1, sizeof(*files));
	const struct nameless_files *all = nameless_files_of(snapshot);
	size_t count = 0;
	struct image *image;
	int result;

	for (size_t i = 0; i < snapshot->file_count; i++)
		if (snapshot->files[i]->nameless)
			files[count++] = snapshot->files[i];
	if (!count && !all->ended_count)
		return 0;
	qsort(files, count, sizeof(*files), compare_depths);
	result = image_create(snapshot->images, &image, IMAGE_REMAP_FPATH, 0);
	for (size_t i = 0; !result && i < count; i++)
		result = save_remap(image, files[i]);
	for (size_t i = 0; !result && i < all->ended_count; i++)
		result = save_ended(image, &all->ended[i]);
	return image_close(image) ?: result;
}

int nameless_save(struct snapshot *snapshot)
{
	const struct nameless_files *all = nameless_files_of(snapshot);
	int result = links_make(snapshot);

	for (size_t i = 0; !result && i < all->count; i++) {
		if (all->items[i]->ghost)
			result = hold_small(snapshot, all->items[i]);
		if (all->items[i]->ghost && !result)
			result = save_ghost(snapshot, all->items[i]);
		result = min(result, 0);
	}
	return result ?: save_remaps(snapshot);
}

int nameless_save_held(struct snapshot *snapshot)
{
	const struct nameless_files *all = nameless_files_of(snapshot);
	int result = 0;

	for (size_t i = 0; !result && i < all->count; i++)
		if (all->items[i]->content)
			result = save_held(snapshot, all->items[i]);
	return result;
}
