/*
 * locks.c - see locks.h. Dump reads the locks from fdinfo, which lists them for each descriptor. Restore takes them
 * again, without waiting, in the newborn that held them.
 *
 * A task that waits for a lock needs nothing: its system call is restarted.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include "base/error.h"
#include "base/memory.h"
#include "file-lock.pb-c.h"
#include "files/kind.h"
#include "files/locks.h"
#include "image/message.h"

#define ADVICE "--file-locks (-l), if nobody outside of the tree uses these locks"

/* file_lock_entry.flag, and the name in fdinfo. */
enum { LOCK_POSIX = 1, LOCK_FLOCK = 2, LOCK_OFD = 4 };
static const struct {
	const char *name;
	uint32_t flag;
} families[] = {
	{ "POSIX", LOCK_POSIX },
	{ "FLOCK", LOCK_FLOCK },
	{ "OFDLCK", LOCK_OFD },
};

struct file_lock {
	struct task *task; /* holds it through the descriptor `fd` */
	int fd;
	struct file *file;
	uint32_t flag, type;
	int64_t start, length; /* 0: to the end */
	size_t number;	       /* restore: in the image */
};

struct locks {
	struct file_lock *items;
	size_t count;
};

static void clear_locks(void *state)
{
	free(((struct locks *)state)->items);
}

static const struct state_type locks_type = { sizeof(struct locks), clear_locks };

static struct locks *locks_of(const struct snapshot *snapshot)
{
	return snapshot_state(snapshot, &locks_type);
}

static const char *name_of_family(uint32_t flag)
{
	for (size_t i = 0; i < array_size(families); i++)
		if (families[i].flag == flag)
			return families[i].name;
	return NULL;
}

/* ---- dump ---- */

/*
 * "1: POSIX ADVISORY WRITE 4711 fe:00:10953813 0 99": number, family, its way, type, pid, file, first and last byte.
 */
int locks_note(struct snapshot *snapshot, struct task *task, int fd, const char *text)
{
	struct locks *locks = locks_of(snapshot);
	struct file_lock lock = { .task = task, .fd = fd };
	char family[16], way[16], type[16], last[32];

	if (sscanf(text, "%*d: %15s %15s %15s %*d %*x:%*x:%*u %" SCNd64 " %31s", family, way, type,
		   &lock.start, last) != 5)
		return fail(EINVAL, "cannot understand the lock of descriptor %d: %s", fd, text);
	if (!strcmp(family, "->"))
		return 0; /* a process waits for it */
	for (size_t i = 0; i < array_size(families); i++)
		if (!strcmp(family, families[i].name))
			lock.flag = families[i].flag;
	lock.type = strcmp(type, "WRITE") ? F_RDLCK : F_WRLCK;
	if (!lock.flag || (strcmp(type, "WRITE") && strcmp(type, "READ"))) {
		refuse("process %d (%s): descriptor %d has a lock that cannot be saved (%s %s): give up the lease first",
		       task->here, task->name, fd, family, type);
		return 0;
	}
	lock.length = strcmp(last, "EOF") ? strtoll(last, NULL, 10) - lock.start + 1 : 0;
	*grow(&locks->items, &locks->count) = lock;
	return 0;
}

/*
 * The descriptors of one open file list the same lock. A POSIX lock belongs to the process, other locks belong to the
 * open file.
 */
static bool is_same_lock(const struct file_lock *a, const struct file_lock *b)
{
	return a->file == b->file && a->flag == b->flag && a->start == b->start && a->length == b->length &&
	       (a->flag != LOCK_POSIX || a->task == b->task);
}

/* NULL: none yet; then *key is free for it. */
static const struct file_lock *find_same(const struct index *known, const struct file_lock *lock,
					 uint64_t *key)
{
	const struct file_lock *other;

	*key = index_mix(index_mix((uintptr_t)lock->file, lock->start), lock->length);
	if (lock->flag == LOCK_POSIX)
		*key = index_mix(*key, (uintptr_t)lock->task);
	while ((other = index_find(known, *key)) && !is_same_lock(other, lock))
		++*key;
	return other;
}

static void forget_repeated(struct locks *locks)
{
	struct index known = { 0 };
	size_t kept = 0;

	for (size_t i = 0; i < locks->count; i++) {
		struct file_lock *lock = &locks->items[i];
		uint64_t key;

		if (find_same(&known, lock, &key))
			continue;
		locks->items[kept] = *lock;
		index_set(&known, key, &locks->items[kept++]);
	}
	index_free(&known);
	locks->count = kept;
}

void locks_collect(struct snapshot *snapshot)
{
	struct locks *locks = locks_of(snapshot);

	for (size_t i = 0; i < locks->count; i++) {
		struct file_lock *lock = &locks->items[i];

		lock->file = task_find_descriptor(lock->task, lock->fd)->file;
	}
	forget_repeated(locks);
	for (size_t i = 0; i < locks->count && !snapshot->policy.file_locks; i++) {
		const struct file_lock *lock = &locks->items[i];

		if (i && lock[-1].task == lock->task && lock[-1].file == lock->file)
			continue; /* once for each file */
		refuse("process %d (%s): descriptor %d (%s) has a lock (%s)", lock->task->here,
		       lock->task->name, lock->fd, lock->file->seen->link, name_of_family(lock->flag));
		fail_advice(ADVICE);
	}
}

int locks_save(struct snapshot *snapshot)
{
	const struct locks *locks = locks_of(snapshot);
	struct image *image = NULL;
	int result = 0;

	if (locks->count)
		result = image_create(snapshot->images, &image, IMAGE_FILE_LOCKS, 0);
	for (size_t i = 0; !result && i < locks->count; i++) {
		const struct file_lock *lock = &locks->items[i];
		FileLockEntry entry = FILE_LOCK_ENTRY__INIT;

		entry.flag = lock->flag;
		entry.type = lock->type;
		entry.pid = lock->task->pid;
		entry.fd = lock->fd;
		entry.start = lock->start;
		entry.len = lock->length;
		result = image_write(image, &entry.base);
	}
	return image_close(image) ?: result;
}

/* ---- restore ---- */

static int add_entry(struct snapshot *snapshot, const FileLockEntry *entry)
{
	struct locks *locks = locks_of(snapshot);
	struct file_lock *lock = grow(&locks->items, &locks->count);
	const struct descriptor *descriptor;

	lock->task = snapshot_find_task(snapshot, entry->pid);
	descriptor = lock->task ? task_find_descriptor(lock->task, entry->fd) : NULL;
	if (!descriptor)
		return fail(
			EINVAL,
			"filelocks.img: a lock refers to descriptor %d of process %d, which does not exist",
			entry->fd, entry->pid);
	if (!name_of_family(entry->flag) || (entry->type != F_RDLCK && entry->type != F_WRLCK))
		return fail(EINVAL, "filelocks.img: a lock is of an unsupported kind (flag %u, type %u)",
			    entry->flag, entry->type);
	lock->fd = entry->fd;
	lock->file = descriptor->file;
	lock->flag = entry->flag;
	lock->type = entry->type;
	lock->start = entry->start;
	lock->length = entry->len;
	return 0;
}

/* By process, and for each in the order of the image. */
static int compare_locks(const void *left, const void *right)
{
	const struct file_lock *a = left, *b = right;

	if (a->task != b->task)
		return a->task->pid < b->task->pid ? -1 : 1;
	return a->number < b->number ? -1 : a->number > b->number;
}

static void sort_locks(struct locks *locks)
{
	for (size_t i = 0; i < locks->count; i++)
		locks->items[i].number = i;
	if (locks->count)
		qsort(locks->items, locks->count, sizeof(*locks->items), compare_locks);
}

/* The index of the first lock of a process, or of those with a higher pid. */
static size_t first_lock(const struct locks *locks, const struct task *task)
{
	size_t low = 0, high = locks->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (locks->items[middle].task->pid < task->pid)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

int locks_load(struct snapshot *snapshot)
{
	FileLockEntry *entry;
	struct image *image;
	int result = image_open(snapshot->images, &image, IMAGE_FILE_LOCKS, 0);

	if (result)
		return result == -ENOENT ? 0 : result;
	while ((result = image_read_as(image, file_lock_entry, &entry)) > 0) {
		result = add_entry(snapshot, entry);
		image_free(entry);
		if (result)
			break;
	}
	image_close_read(image);
	if (!result)
		sort_locks(locks_of(snapshot));
	if (!result && locks_of(snapshot)->count && !snapshot->policy.file_locks) {
		const struct file_lock *first = &locks_of(snapshot)->items[0];

		fail_advice(ADVICE);
		return fail(0, "process %d (%s) held a lock on descriptor %d", first->task->pid,
			    first->task->name, first->fd);
	}
	return result;
}

static int take_lock(const struct file_lock *lock)
{
	struct flock range = {
		.l_type = lock->type, .l_whence = SEEK_SET, .l_start = lock->start, .l_len = lock->length
	};

	if (lock->flag == LOCK_FLOCK)
		return flock(lock->fd, (lock->type == F_WRLCK ? LOCK_EX : LOCK_SH) | LOCK_NB);
	return fcntl(lock->fd, lock->flag == LOCK_OFD ? F_OFD_SETLK : F_SETLK, &range);
}

int locks_take(const struct snapshot *snapshot, const struct task *task)
{
	const struct locks *locks = locks_of(snapshot);

	for (size_t i = first_lock(locks, task); i < locks->count && locks->items[i].task == task; i++) {
		const struct file_lock *lock = &locks->items[i];
		const RegFileEntry *path = lock->file->entry->reg;

		if (take_lock(lock) == 0)
			continue;
		if (errno == EAGAIN || errno == EACCES)
			return fail(
				0,
				"descriptor %d (%s): the process held a lock that conflicts with a lock of another process",
				lock->fd, path ? path->name : lock->file->kind->name);
		return fail(errno, "cannot restore the lock of descriptor %d (%s)", lock->fd,
			    path ? path->name : lock->file->kind->name);
	}
	return 0;
}
