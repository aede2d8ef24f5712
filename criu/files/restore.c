/*
 * restore.c - restore: reads files.img and descriptor tables, opens every file once, in criu itself, before the first task exists.
 * Newborns inherit all of them by fork(), and each arranges its own table from that: sharing needs no further work, and no
 * descriptor travels through a socket.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"
#include "files/locks.h"
#include "image/image.h"
#include "memory/memfd.h"

static int compare_ids(const void *left, const void *right)
{
	const struct file *a = *(struct file *const *)left, *b = *(struct file *const *)right;

	return a->id < b->id ? -1 : a->id > b->id;
}

static int load_files(struct snapshot *snapshot)
{
	struct image *image;
	FileEntry *entry;
	int result = image_open(snapshot->images, &image, IMAGE_FILES, 0);

	if (result)
		return result == -ENOENT ? fail(ENOENT, "files.img is missing") : result;
	while ((result = image_read_as(image, file_entry, &entry)) > 0) {
		struct file *file = snapshot_add_file(snapshot, entry->id);

		file->entry = entry;
		file->kind = file_kind_of(entry->type);
	}
	image_close_read(image);
	if (snapshot->file_count)
		qsort(snapshot->files, snapshot->file_count, sizeof(*snapshot->files), compare_ids);
	for (size_t i = 1; !result && i < snapshot->file_count; i++)
		if (snapshot->files[i]->id == snapshot->files[i - 1]->id)
			result = fail(EINVAL, "files.img holds file %u twice", snapshot->files[i]->id);
	return result;
}

static int add_descriptor(struct snapshot *snapshot, struct task *task, const FdinfoEntry *entry)
{
	struct descriptor *descriptor = grow(&task->descriptors, &task->descriptor_count);

	if (entry->fd > INT32_MAX)
		return fail(EINVAL, "fdinfo-%u.img holds an impossible descriptor", task->ids->files_id);
	descriptor->fd = entry->fd;
	descriptor->closes_on_exec = entry->flags & FD_CLOEXEC;
	descriptor->file = snapshot_find_file(snapshot, entry->id);
	if (!descriptor->file || descriptor->file->entry->type != entry->type)
		return fail(EINVAL,
			    "fdinfo-%u.img: descriptor %u leads to file %u, which files.img does not hold",
			    task->ids->files_id, entry->fd, entry->id);
	if (!descriptor->file->kind)
		return fail(EINVAL, "descriptor %u is of a kind that is not supported yet (type %d)",
			    entry->fd, entry->type);
	return 0;
}

static int load_descriptors(struct snapshot *snapshot, struct task *task)
{
	struct image *image;
	FdinfoEntry *entry;
	int result = image_open(snapshot->images, &image, IMAGE_FDINFO, task->ids->files_id);

	/* criu 4.2.1 writes none for a process that has nothing open. */
	if (result == -ENOENT && snapshot->is_of_another) {
		snapshot->lacks_tables = true;
		return 0;
	}
	if (result)
		return result == -ENOENT ? fail(ENOENT, "fdinfo-%u.img is missing", task->ids->files_id) :
					   result;
	while ((result = image_read_as(image, fdinfo_entry, &entry)) > 0) {
		result = add_descriptor(snapshot, task, entry);
		image_free(entry);
		if (result)
			break;
	}
	image_close_read(image);
	task_sort_descriptors(task);
	for (size_t i = 1; !result && i < task->descriptor_count; i++)
		if (task->descriptors[i].fd == task->descriptors[i - 1].fd)
			result = fail(EINVAL, "fdinfo-%u.img holds descriptor %d twice", task->ids->files_id,
				      task->descriptors[i].fd);
	return result;
}

struct file *file_path(const struct snapshot *snapshot, const struct file *file)
{
	uint32_t id = file->kind->path ? file->kind->path(file) : 0;

	return id ? snapshot_find_file(snapshot, id) : NULL;
}

/* Files that are there to tell where another lies. */
static int find_paths(struct snapshot *snapshot)
{
	for (size_t i = 0; i < snapshot->file_count; i++) {
		const struct file *file = snapshot->files[i];
		uint32_t id = file->kind && file->kind->path ? file->kind->path(file) : 0;
		struct file *path = id ? snapshot_find_file(snapshot, id) : NULL;

		if (!id)
			continue;
		if (!path || path->kind != &file_kind_regular || !path->entry->reg ||
		    path->entry->reg->name[0] != '/')
			return fail(EINVAL, "files.img does not hold the path of file %u", file->id);
		path->is_only_path = true;
	}
	return 0;
}

/* Only now is it known which files are there for their path alone, and so are never opened. */
static int check_descriptors(struct snapshot *snapshot unused, struct task *task)
{
	for (size_t i = 0; i < task->descriptor_count; i++)
		if (task->descriptors[i].file->is_only_path)
			return fail(EINVAL,
				    "fdinfo-%u.img: descriptor %d leads to file %u, which is another's path",
				    task->ids->files_id, task->descriptors[i].fd,
				    task->descriptors[i].file->id);
	return 0;
}

static int for_each_living(struct snapshot *snapshot, int (*act)(struct snapshot *, struct task *))
{
	struct task *task;

	for_each_task (task, snapshot) {
		int result = task->state == TASK_DEAD ? 0 : act(snapshot, task);

		if (result)
			return fail_in(result, "process %d (%s)", task->pid, task->name);
	}
	return 0;
}

int files_load(struct snapshot *snapshot)
{
	int result = load_files(snapshot)				 ?:
			     for_each_living(snapshot, load_descriptors) ?:
			     locks_load(snapshot)			 ?:
			     memfd_load(snapshot)			 ?:
			     find_paths(snapshot)			 ?:
			     for_each_living(snapshot, check_descriptors);

	if (!result) {
		snapshot_note_holders(snapshot);
		files_note_use(snapshot);
	}
	for (size_t i = 0; !result && i < snapshot->file_count; i++)
		if (snapshot->files[i]->kind && !snapshot->files[i]->is_only_path)
			result = snapshot->files[i]->kind->check(snapshot, snapshot->files[i]);
	return result;
}

static int open_writable(const struct file *file)
{
	const RegFileEntry *entry = file->entry->reg;
	int fd = open(entry->name, O_RDWR | O_CLOEXEC | O_NOCTTY);

	return fd < 0 ? fail(errno, "cannot open %s to map it", entry->name) : fd;
}

/* A shared mapping that could be made writable needs more than the file that the task has open. */
static bool lacks_writable(const struct file *file)
{
	const RegFileEntry *entry = file->entry->reg;

	return file->needs_writable_mapping && entry && (entry->flags & O_ACCMODE) != O_RDWR;
}

static int open_for_mapping(struct file *file)
{
	if (!lacks_writable(file))
		return 0;
	file->mapping_fd = open_writable(file);
	return min(file->mapping_fd, 0);
}

int files_open_to_map(struct snapshot *snapshot, struct file *file, bool is_shared)
{
	return is_shared && lacks_writable(file) ? open_writable(file) : file->kind->open(snapshot, file);
}

static void close_descriptor(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

int files_open(struct snapshot *snapshot)
{
	int result = 0;

	for (size_t i = 0; !result && i < file_kind_count; i++)
		if (file_kinds[i]->load_more)
			result = file_kinds[i]->load_more(snapshot);
	for (size_t i = 0; !result && i < snapshot->file_count; i++) {
		struct file *file = snapshot->files[i];

		if (!file->kind || file->is_only_path || file->is_only_mapped)
			continue; /* nobody's descriptor: checked when it was loaded */
		file->fd = file->kind->open(snapshot, file);
		result = file->fd < 0 ? file->fd : open_for_mapping(file);
	}
	for (size_t i = 0; !result && i < file_kind_count; i++)
		if (file_kinds[i]->finish)
			result = file_kinds[i]->finish(snapshot);
	return result;
}

void files_close(struct snapshot *snapshot)
{
	for (size_t i = 0; i < file_kind_count; i++)
		if (file_kinds[i]->close_more)
			file_kinds[i]->close_more(snapshot);
	for (size_t i = 0; i < snapshot->file_count; i++) {
		close_descriptor(&snapshot->files[i]->fd);
		close_descriptor(&snapshot->files[i]->mapping_fd);
	}
}

/* ---- in a newborn ---- */

int files_settle(struct snapshot *snapshot, struct task *task)
{
	int result = 0;

	for (size_t i = 0; !result && i < file_kind_count; i++)
		if (file_kinds[i]->settle)
			result = file_kinds[i]->settle(snapshot, task);
	return result;
}

/*
 * Every file is open under a number of its own, and wanted under others. These are gone through from the lowest on: whoever stands
 * there and is still needed moves aside, and what is needed no more is closed. So there are never many more descriptors
 * than there will be in the end: a task may have nearly as many as its limit lets it have.
 */
struct table {
	const struct task *task;
	struct file **files; /* by the number that they are open under now */
	size_t count;
	int highest; /* that is wanted */
};

static bool is_wanted(const struct task *task, int fd)
{
	return task_find_descriptor(task, fd);
}

static int no_room(void)
{
	return fail(errno, "no free descriptor: the process used nearly all it may have");
}

/* Moves what we keep of our own to a number that nobody wants; the old one stays open. */
static int move_away(const struct table *table, int *fd)
{
	int from = *fd, moved = fcntl(from, F_DUPFD_CLOEXEC, table->highest + 1);

	/* Behind all that are wanted the limit leaves no room? Then the lowest free number that is not wanted. */
	for (int lowest = 0; moved < 0 || is_wanted(table->task, moved); lowest = moved + 1) {
		if (moved >= 0)
			close(moved);
		moved = fcntl(from, F_DUPFD_CLOEXEC, lowest);
		if (moved < 0)
			return no_room();
	}
	*fd = moved;
	return 0;
}

static void note_place(struct table *table, struct file *file)
{
	while (table->count <= (size_t)file->fd)
		*grow(&table->files, &table->count) = NULL;
	table->files[file->fd] = file;
}

/* Is the number where the file stands one of those that it is wanted under, so that it stays? */
static bool is_at_home(const struct table *table, const struct file *file)
{
	const struct descriptor *descriptor = task_find_descriptor(table->task, file->fd);

	return descriptor && descriptor->file == file;
}

static void find_places(struct table *table, const struct snapshot *snapshot)
{
	for (size_t i = 0; i < snapshot->file_count; i++)
		snapshot->files[i]->waiting = 0;
	for (size_t i = 0; i < table->task->descriptor_count; i++) {
		table->task->descriptors[i].file->waiting++;
		table->highest = max(table->highest, table->task->descriptors[i].fd);
	}
	for (size_t i = 0; i < snapshot->file_count; i++) {
		struct file *file = snapshot->files[i];

		close_descriptor(&file->mapping_fd);
		if (!file->waiting)
			close_descriptor(&file->fd);
		else
			note_place(table, file);
	}
}

static int move_aside(struct table *table, struct file *file)
{
	int aside = fcntl(file->fd, F_DUPFD_CLOEXEC, table->highest + 1);

	if (aside < 0) /* it may have to move again, but the lower numbers are done */
		aside = fcntl(file->fd, F_DUPFD_CLOEXEC, 0);
	if (aside < 0)
		return no_room();
	table->files[file->fd] = NULL;
	file->fd = aside;
	note_place(table, file);
	return 0;
}

static int put_in_place(struct table *table, const struct descriptor *descriptor)
{
	struct file *file = descriptor->file, *there = NULL;
	int number = descriptor->fd, flags = descriptor->closes_on_exec ? O_CLOEXEC : 0, result;

	if ((size_t)number < table->count)
		there = table->files[number];
	if (there && there != file && move_aside(table, there))
		return -EMFILE;
	result = number == file->fd ? fcntl(number, F_SETFD, descriptor->closes_on_exec ? FD_CLOEXEC : 0) :
				      dup3(file->fd, number, flags);
	if (result < 0)
		return fail(errno, "cannot put file %d in its place", number);
	/* Here it stays, and the others are made of this one: no number is taken for longer than it must be. */
	if (!is_at_home(table, file)) {
		table->files[file->fd] = NULL;
		close(file->fd);
		file->fd = number;
		note_place(table, file);
	}
	return 0;
}

static int close_rest(const struct task *task, int *const *kept, size_t kept_count, int highest)
{
	for (size_t i = 0; i < kept_count; i++)
		highest = max(highest, *kept[i]);
	for (int fd = 0; fd <= highest; fd++) {
		bool stays = is_wanted(task, fd);

		for (size_t i = 0; i < kept_count; i++)
			stays |= *kept[i] == fd;
		if (!stays)
			close(fd);
	}
	if (syscall(SYS_close_range, highest + 1, ~0U, 0) < 0)
		return fail(errno, "cannot close the descriptors of criu itself");
	return 0;
}

int files_arrange(const struct snapshot *snapshot, struct task *task, int **kept, size_t kept_count)
{
	struct table table = { .task = task, .highest = STDERR_FILENO };
	int result = 0;

	find_places(&table, snapshot);
	for (size_t i = 0; !result && i < kept_count; i++)
		if (*kept[i] >= 0 && is_wanted(task, *kept[i]))
			result = move_away(&table, kept[i]);
	for (size_t i = 0; !result && i < task->descriptor_count; i++)
		result = put_in_place(&table, &task->descriptors[i]);
	free(table.files);
	return result ?: close_rest(task, kept, kept_count, table.highest);
}

static int set_owner(const struct file *file, const FownEntry *owner)
{
	struct f_owner_ex holder = { .type = owner->pid_type, .pid = owner->pid };
	uid_t ids[3];
	int result = 0;

	if (owner->signum && fcntl(file->fd, F_SETSIG, owner->signum) < 0)
		return fail(errno, "cannot set the signal of file %u", file->id);
	if (!owner->pid)
		return 0;
	/* The kernel notes on whose behalf it will send the signal: raw calls, that change this thread only. */
	if (getresuid(&ids[0], &ids[1], &ids[2]) < 0 ||
	    syscall(SYS_setresuid, owner->uid, owner->euid, -1) < 0)
		return fail(errno, "cannot act as user %u", owner->uid);
	if (fcntl(file->fd, F_SETOWN_EX, &holder) < 0)
		result = fail(errno, "cannot make %d the owner of file %u", owner->pid, file->id);
	if (syscall(SYS_setresuid, ids[0], ids[1], ids[2]) < 0)
		return fail(errno, "cannot act as ourselves again");
	return result;
}

static const FownEntry *owner_of(const struct snapshot *snapshot, const struct file *file)
{
	if (file->kind->owner)
		return file->kind->owner(file);
	file = file_path(snapshot, file);
	return file ? file->entry->reg->fown : NULL;
}

int files_set_owners(const struct snapshot *snapshot, struct task *task)
{
	int result = 0;

	/* Descriptors of one file lead to the same owner: setting it again changes nothing. */
	for (size_t i = 0; !result && i < task->descriptor_count; i++) {
		const struct file *file = task->descriptors[i].file;
		const FownEntry *owner = owner_of(snapshot, file);

		if (owner && (owner->pid || owner->signum))
			result = set_owner(file, owner);
	}
	return result;
}
