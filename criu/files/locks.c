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
#include "files/lock.h"
#include "files/locks.h"
#include "image/message.h"

#define ADVICE "--file-locks (-l), if nobody outside of the tree uses these locks"

static const struct {
	const char *name; /* in fdinfo */
	uint32_t flag;
	const char *words;
} families[] = {
	{ "POSIX", LOCK_POSIX, "POSIX lock" },
	{ "FLOCK", LOCK_FLOCK, "flock" },
	{ "OFDLCK", LOCK_OFD, "lock of the open file (F_OFD_SETLK)" },
	{ "LEASE", LOCK_LEASE, "lease" },
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

/* NULL: there is no such family. */
static const char *words_for_family(uint32_t flag)
{
	for (size_t i = 0; i < array_size(families); i++)
		if (families[i].flag == flag)
			return families[i].words;
	return NULL;
}

/* "POSIX lock (write, bytes 0 to 99)": to be freed. */
static char *words_for(const struct file_lock *lock)
{
	static const char *const types[] = { [F_RDLCK] = "read", [F_WRLCK] = "write", [F_UNLCK] = "none" };
	const char *family = words_for_family(lock->flag);
	long long first = lock->start;

	if (lock->is_broken)
		return format_text("%s (%s, being broken to %s)", family, types[lock->held],
				   types[lock->type]);
	if (lock->flag == LOCK_FLOCK || lock->flag == LOCK_LEASE)
		return format_text("%s (%s)", family, types[lock->type]);
	if (!lock->length)
		return format_text("%s (%s, byte %lld to the end)", family, types[lock->type], first);
	return format_text("%s (%s, bytes %lld to %lld)", family, types[lock->type], first,
			   first + (long long)lock->length - 1);
}

/* ---- dump ---- */

static const char *const types_in_proc[] = { [F_RDLCK] = "READ", [F_WRLCK] = "WRITE", [F_UNLCK] = "UNLCK" };

static bool parse_type(struct file_lock *lock, const char *way, const char *type)
{
	lock->is_broken = lock->flag == LOCK_LEASE && !strcmp(way, "BREAKING");
	for (lock->type = 0; lock->type < array_size(types_in_proc); lock->type++)
		if (!strcmp(type, types_in_proc[lock->type]))
			break;
	return lock->type == F_RDLCK || lock->type == F_WRLCK || (lock->is_broken && lock->type == F_UNLCK);
}

/*
 * "1: POSIX ADVISORY WRITE 4711 fe:00:10953813 0 99": number, family, its way, type, pid, file, first and last byte.
 * Of a lease that is being broken, the type that it will have.
 */
int locks_note(struct snapshot *snapshot, struct task *task, int fd, const char *text)
{
	struct locks *locks = locks_of(snapshot);
	struct file_lock lock = { .task = task, .fd = fd, .line = lock_line_hash(text) };
	char family[16], way[16], type[16], last[32];

	if (sscanf(text, "%*d: %15s %15s %15s %d %*x:%*x:%*u %" SCNd64 " %31s", family, way, type,
		   &lock.taker, &lock.start, last) != 6)
		return fail(EINVAL, "cannot understand the lock of descriptor %d: %s", fd, text);
	if (!strcmp(family, "->"))
		return 0; /* a process waits for it */
	for (size_t i = 0; i < array_size(families); i++)
		if (!strcmp(family, families[i].name))
			lock.flag = families[i].flag;
	if (!lock.flag || !parse_type(&lock, way, type)) {
		refuse("process %d (%s): descriptor %d has a lock of a kind that cannot be saved (%s %s %s)",
		       task->here, task->name, fd, family, way, type);
		return 0;
	}
	lock.held = lock.type;
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
static struct file_lock *find_same(const struct index *known, const struct file_lock *lock, uint64_t *key)
{
	struct file_lock *other;

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
		struct file_lock *lock = &locks->items[i], *same;
		uint64_t key;

		same = find_same(&known, lock, &key);
		if (same && same->task->here != same->taker && lock->task->here == lock->taker) {
			same->task = lock->task;
			same->fd = lock->fd;
		}
		if (same)
			continue;
		locks->items[kept] = *lock;
		index_set(&known, key, &locks->items[kept++]);
	}
	index_free(&known);
	locks->count = kept;
}

/* Tasks that share a descriptor table share POSIX locks; the table was read once, for its leader. */
static void find_taker(const struct snapshot *snapshot, struct file_lock *lock)
{
	struct task *taker = lock->taker > 0 ? snapshot_find_task_here(snapshot, lock->taker) : NULL;

	if (taker && taker->table == lock->task->table && taker->state != TASK_DEAD)
		lock->task = taker;
}

static void refuse_locks(const struct locks *locks)
{
	for (size_t i = 0, next; i < locks->count; i = next) {
		const struct file_lock *lock = &locks->items[i];
		autofree char *words = words_for(lock), *more = NULL;

		for (next = i + 1; next < locks->count; next++)
			if (lock->task != locks->items[next].task || lock->file != locks->items[next].file)
				break;
		if (next > i + 1)
			more = format_text(" and %zu more", next - i - 1);
		refuse("process %d (%s): descriptor %d (%s) has a lock: %s%s", lock->task->here,
		       lock->task->name, lock->fd, lock->file->seen->link, words, more ?: "");
		fail_advice(ADVICE);
	}
}

int locks_collect(struct snapshot *snapshot)
{
	struct locks *locks = locks_of(snapshot);
	int result = 0;

	for (size_t i = 0; i < locks->count; i++) {
		struct file_lock *lock = &locks->items[i];

		lock->file = task_find_descriptor(lock->task, lock->fd)->file;
	}
	forget_repeated(locks);
	for (size_t i = 0; !result && i < locks->count; i++) {
		find_taker(snapshot, &locks->items[i]);
		if (locks->items[i].is_broken)
			result = lease_find_held(&locks->items[i]);
	}
	if (result)
		return result;
	if (snapshot->policy.file_locks)
		locks_check_waiters(snapshot, locks->items, locks->count);
	else
		refuse_locks(locks);
	return 0;
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
		entry.type = lock->type | (lock->is_broken ? LEASE_IS_BROKEN : 0);
		if (lock->is_broken)
			message_set(&entry, held, lock->held);
		entry.pid = lock->task->pid;
		entry.fd = lock->fd;
		entry.start = lock->start;
		entry.len = lock->length;
		result = image_write(image, &entry.base);
	}
	return image_close(image) ?: result;
}

/* ---- restore ---- */

/* A lease is broken to something less than it was. */
static bool is_possible(const struct file_lock *lock)
{
	if (!words_for_family(lock->flag) || lock->start < 0 || lock->length < 0 ||
	    lock->length > INT64_MAX - lock->start)
		return false;
	if (lock->is_broken)
		return lock->flag == LOCK_LEASE &&
		       ((lock->held == F_WRLCK && (lock->type == F_RDLCK || lock->type == F_UNLCK)) ||
			(lock->held == F_RDLCK && lock->type == F_UNLCK));
	return lock->type == F_RDLCK || lock->type == F_WRLCK;
}

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
	lock->fd = entry->fd;
	lock->file = descriptor->file;
	lock->flag = entry->flag;
	lock->is_broken = entry->type & LEASE_IS_BROKEN;
	lock->type = lock->held = entry->type & ~LEASE_IS_BROKEN;
	if (lock->is_broken)
		lock->held = entry->has_held ? entry->held : lease_guess_held(snapshot, lock);
	lock->start = entry->start;
	lock->length = entry->len;
	if (!is_possible(lock))
		return fail(
			EINVAL,
			"filelocks.img: a lock of process %d is impossible (flag %u, type %u, %lld bytes at %lld)",
			entry->pid, entry->flag, entry->type, (long long)entry->len, (long long)entry->start);
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
		autofree char *words = words_for(first);

		fail_advice(ADVICE);
		return fail(0, "process %d (%s) held a lock on descriptor %d: %s", first->task->pid,
			    first->task->name, first->fd, words);
	}
	return result;
}

/* 0 or -errno; a lease may also record a failure. */
static int take_lock(const struct snapshot *snapshot, const struct file_lock *lock)
{
	struct flock range = {
		.l_type = lock->type, .l_whence = SEEK_SET, .l_start = lock->start, .l_len = lock->length
	};
	int result;

	if (lock->flag == LOCK_LEASE)
		return lease_take(snapshot, lock);
	if (lock->flag == LOCK_FLOCK)
		result = flock(lock->fd, (lock->type == F_WRLCK ? LOCK_EX : LOCK_SH) | LOCK_NB);
	else
		result = fcntl(lock->fd, lock->flag == LOCK_OFD ? F_OFD_SETLK : F_SETLK, &range);
	return result < 0 ? -errno : 0;
}

int locks_take(const struct snapshot *snapshot, const struct task *task)
{
	const struct locks *locks = locks_of(snapshot);

	for (size_t i = first_lock(locks, task); i < locks->count && locks->items[i].task == task; i++) {
		const struct file_lock *lock = &locks->items[i];
		const RegFileEntry *path = lock->file->entry->reg;
		int result = take_lock(snapshot, lock);
		autofree char *words = NULL;

		if (!result)
			continue;
		words = words_for(lock);
		if (result == -EAGAIN || result == -EACCES)
			return fail(0, "descriptor %d (%s): the process held a %s, which conflicts with %s",
				    lock->fd, path ? path->name : lock->file->kind->name, words,
				    lock->flag == LOCK_LEASE ? "another process that has the file open" :
							       "a lock of another process");
		return fail(-result, "descriptor %d (%s): cannot restore the %s", lock->fd,
			    path ? path->name : lock->file->kind->name, words);
	}
	return 0;
}
