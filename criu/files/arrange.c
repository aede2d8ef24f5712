/*
 * arrange.c - restore, in a newborn: turns the files that it has inherited from criu into the process's descriptor
 * table. Then, when all processes exist, sets owners and signals of files.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/memory.h"
#include "files/kind.h"

int files_settle(struct snapshot *snapshot, struct task *task)
{
	return call_file_kinds(settle, snapshot, task);
}

/*
 * Every file is open under one number, and wanted under others. What this process does not need is closed at once. Then
 * the wanted numbers are filled in ascending order; a file that is in the way moves. A number that it leaves is closed
 * in the end, with all others that are not wanted, or replaced. But a task may have nearly as many as its limit allows:
 * then it is closed at once, and there are never many more descriptors than in the end.
 *
 * The files of other processes are not touched: there may be many, and to write to them would copy their memory.
 */
struct table {
	const struct task *task;
	struct index files; /* by the number that they are open under now */
	int highest;	    /* the highest wanted number */
	bool has_room;	    /* above it, for every file once more */
};

static bool is_number_wanted(const struct task *task, int fd)
{
	return task_find_descriptor(task, fd);
}

static int no_room(void)
{
	return fail(errno, "there is no free descriptor: the process has nearly as many as its limit allows");
}

/* Is the file already open under one of its wanted numbers, so that it stays? */
static bool is_at_home(const struct table *table, const struct file *file)
{
	const struct descriptor *descriptor = task_find_descriptor(table->task, file->fd);

	return descriptor && descriptor->file == file;
}

static void note_place(struct table *table, struct file *file, int fd)
{
	file->fd = fd;
	index_set(&table->files, fd, file);
}

static int move_aside(struct table *table, struct file *file)
{
	int aside = fcntl(file->fd, F_DUPFD_CLOEXEC, table->highest + 1);

	if (aside < 0) /* no free number above the wanted ones: then it may have to move again */
		aside = fcntl(file->fd, F_DUPFD_CLOEXEC, 0);
	if (aside < 0)
		return no_room();
	index_remove(&table->files, file->fd);
	note_place(table, file, aside);
	return 0;
}

/*
 * All numbers that are not wanted are taken. One of them is a file's, because the limit leaves more of them than criu
 * has descriptors of its own: that file moves to a number that it will leave again.
 */
static int take_place_of_file(struct table *table, int *fd)
{
	const struct descriptor_table *descriptors = table->task->table;

	for (size_t i = 0; i < descriptors->count; i++) {
		struct file *file = descriptors->items[i].file;
		int number = file->fd;

		if (is_number_wanted(table->task, number))
			continue;
		if (move_aside(table, file))
			return -EMFILE;
		if (dup3(*fd, number, O_CLOEXEC) < 0)
			return no_room();
		*fd = number;
		return 0;
	}
	return no_room();
}

/* Moves one of criu's own descriptors to a number that is not wanted. */
static int move_away(struct table *table, int *fd)
{
	int from = *fd, moved = fcntl(from, F_DUPFD_CLOEXEC, table->highest + 1), result = 0;

	/* If the limit leaves no number above all wanted ones, takes the lowest free number that is not wanted. */
	for (int lowest = 0; moved < 0 || is_number_wanted(table->task, moved); lowest = moved + 1) {
		if (moved >= 0)
			close(moved);
		moved = fcntl(from, F_DUPFD_CLOEXEC, lowest);
		if (moved < 0)
			break;
	}
	if (moved >= 0)
		*fd = moved;
	else
		result = take_place_of_file(table, fd);
	if (!result)
		close(from);
	return result;
}

static int put_in_place(struct table *table, const struct descriptor *descriptor)
{
	int number = descriptor->fd, flags = descriptor->closes_on_exec ? O_CLOEXEC : 0, result;
	struct file *file = descriptor->file, *there = index_find(&table->files, number);

	if (there && there != file && move_aside(table, there))
		return -EMFILE;
	result = number == file->fd ? fcntl(number, F_SETFD, descriptor->closes_on_exec ? FD_CLOEXEC : 0) :
				      dup3(file->fd, number, flags);
	if (result < 0)
		return fail(errno, "cannot move a file to descriptor %d", number);
	/*
	 * It stays here, and its other descriptors are copies of this one: no number is occupied longer than necessary.
	 */
	if (!is_at_home(table, file)) {
		index_remove(&table->files, file->fd);
		if (!table->has_room)
			close(file->fd);
		note_place(table, file, number);
	}
	return 0;
}

/* Of everything that criu has open, only what this process needs stays. */
static int close_others(const struct table *table, int *const *kept, size_t kept_count, bool is_in_place)
{
	const struct descriptor_table *descriptors = table->task->table;
	autofree int *numbers = allocate_array(descriptors->count + kept_count, sizeof(*numbers));
	int result;

	for (size_t i = 0; i < descriptors->count; i++)
		numbers[i] = is_in_place ? descriptors->items[i].fd : descriptors->items[i].file->fd;
	for (size_t i = 0; i < kept_count; i++)
		numbers[descriptors->count + i] = *kept[i];
	result = descriptors_close_others(numbers, descriptors->count + kept_count);
	return result ? fail(-result, "cannot close the descriptors of criu itself") : 0;
}

static rlim_t own_limit(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_NOFILE, &limit) < 0 ? 0 : limit.rlim_cur;
}

static void find_places(struct table *table, size_t kept_count)
{
	for (size_t i = 0; i < table->task->table->count; i++) {
		const struct descriptor *descriptor = &table->task->table->items[i];

		table->highest = max(table->highest, descriptor->fd);
		note_place(table, descriptor->file, descriptor->file->fd);
	}
	table->has_room = table->highest + 1 + 2 * table->task->table->count + kept_count < own_limit();
}

int files_arrange(struct task *task, int **kept, size_t kept_count)
{
	struct table table = { .task = task, .highest = STDERR_FILENO };
	int result = close_others(&table, kept, kept_count, false);

	find_places(&table, kept_count);
	for (size_t i = 0; !result && i < kept_count; i++)
		if (*kept[i] >= 0 && is_number_wanted(task, *kept[i]))
			result = move_away(&table, kept[i]);
	for (size_t i = 0; !result && i < task->table->count; i++)
		result = put_in_place(&table, &task->table->items[i]);
	index_free(&table.files);
	return result ?: close_others(&table, kept, kept_count, true);
}

int descriptor_set_owner(int fd, uint32_t id, const FownEntry *owner)
{
	struct f_owner_ex holder = { .type = owner->pid_type, .pid = owner->pid };
	uid_t ids[3];
	int result = 0;

	if (owner->signum && fcntl(fd, F_SETSIG, owner->signum) < 0)
		return fail(errno, "cannot set the signal of file %u (F_SETSIG)", id);
	if (!owner->pid)
		return 0;
	/* The kernel remembers the user ids for which it will send the signal. Raw calls change only this thread. */
	if (getresuid(&ids[0], &ids[1], &ids[2]) < 0 ||
	    syscall(SYS_setresuid, owner->uid, owner->euid, -1) < 0)
		return fail(errno, "cannot change criu's user id to %u", owner->uid);
	if (fcntl(fd, F_SETOWN_EX, &holder) < 0)
		result = fail(errno, "cannot set the owner of file %u to %d (F_SETOWN_EX)", id, owner->pid);
	if (syscall(SYS_setresuid, ids[0], ids[1], ids[2]) < 0)
		return fail(errno, "cannot restore criu's own user ids");
	return result;
}

int file_set_owner(const struct snapshot *snapshot, const struct file *file)
{
	const FownEntry *owner = file_owner(snapshot, file);

	if (file->is_shared_outside || !owner || !(owner->pid || owner->signum))
		return 0;
	return descriptor_set_owner(file->fd, file->id, owner);
}

int files_set_owners(const struct snapshot *snapshot, struct task *task)
{
	int result = 0;

	/* All descriptors of a file have the same owner: setting it again changes nothing. */
	for (size_t i = 0; !result && i < task->table->count; i++) {
		const struct file *file = task->table->items[i].file;

		if (file_lateness(snapshot, file) != FILE_NEEDS_THREAD)
			result = file_set_owner(snapshot, file);
	}
	return result;
}
