/*
 * restore.c - restore: reads files.img and the descriptor tables, and opens every file once, in criu itself. The root,
 * which exists already and waits, shares criu's descriptors meanwhile; all other newborns inherit them by fork(). Each
 * arranges its own table from them. So sharing needs no further work, and no descriptor travels through a socket.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/ghost.h"
#include "files/kind.h"
#include "files/locks.h"
#include "image/image.h"

static int compare_file_ids(const void *left, const void *right)
{
	const struct file *a = *(struct file *const *)left, *b = *(struct file *const *)right;

	return a->id < b->id ? -1 : a->id > b->id;
}

/* The kind becomes NULL for an unsupported kind, which matters only if a task has the file open. */
static int find_file_kind(struct snapshot *snapshot, struct file *file)
{
	const struct file_kind *kind = file_kind_of(file->entry->type);

	if (!kind)
		return 0;
	file_set_kind(snapshot, file, kind);
	if (!file_message(file))
		return fail(EINVAL, "files.img: file %u is a %s without a description", file->id, kind->name);
	return 0;
}

static int load_files(struct snapshot *snapshot)
{
	struct image *image;
	FileEntry *entry;
	int result = image_open(snapshot->images, &image, IMAGE_FILES, 0);

	if (result)
		return result == -ENOENT ? fail(ENOENT, "files.img is missing") : result;
	while ((result = image_read_as(image, file_entry, &entry)) > 0)
		snapshot_add_file(snapshot, entry->id)->entry = entry;
	image_close_read(image);
	if (snapshot->file_count)
		qsort(snapshot->files, snapshot->file_count, sizeof(*snapshot->files), compare_file_ids);
	for (size_t i = 1; !result && i < snapshot->file_count; i++)
		if (snapshot->files[i]->id == snapshot->files[i - 1]->id)
			result = fail(EINVAL, "files.img: file %u occurs twice", snapshot->files[i]->id);
	for (size_t i = 0; !result && i < snapshot->file_count; i++)
		result = find_file_kind(snapshot, snapshot->files[i]);
	return result;
}

static int load_descriptor(struct snapshot *snapshot, struct task *task, const FdinfoEntry *entry)
{
	struct descriptor *descriptor = grow(&task->table->items, &task->table->count);

	if (entry->fd > INT32_MAX)
		return fail(EINVAL, "fdinfo-%u.img has an invalid descriptor", task->table->object.id);
	descriptor->fd = entry->fd;
	descriptor->closes_on_exec = entry->flags & FD_CLOEXEC;
	descriptor->file = snapshot_find_file(snapshot, entry->id);
	if (!descriptor->file || descriptor->file->entry->type != entry->type)
		return fail(EINVAL,
			    "fdinfo-%u.img: descriptor %u refers to file %u, which is missing in files.img",
			    task->table->object.id, entry->fd, entry->id);
	if (!descriptor->file->kind)
		return fail(EINVAL, "descriptor %u is of a kind that is not supported yet (type %d)",
			    entry->fd, entry->type);
	return 0;
}

static int load_descriptors(struct snapshot *snapshot, struct task *task)
{
	struct image *image;
	FdinfoEntry *entry;
	int result = image_open(snapshot->images, &image, IMAGE_FDINFO, task->table->object.id);

	/* criu 4.2.1 writes none for a process without open files. */
	if (result == -ENOENT && snapshot->is_of_another) {
		snapshot->lacks_tables = true;
		return 0;
	}
	if (result)
		return result == -ENOENT ? fail(ENOENT, "fdinfo-%u.img is missing", task->table->object.id) :
					   result;
	while ((result = image_read_as(image, fdinfo_entry, &entry)) > 0) {
		result = load_descriptor(snapshot, task, entry);
		image_free(entry);
		if (result)
			break;
	}
	image_close_read(image);
	task_sort_descriptors(task);
	for (size_t i = 1; !result && i < task->table->count; i++)
		if (task->table->items[i].fd == task->table->items[i - 1].fd)
			result = fail(EINVAL, "fdinfo-%u.img: descriptor %d occurs twice",
				      task->table->object.id, task->table->items[i].fd);
	return result;
}

/* Finds the files that only hold the path of another. */
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
			return fail(EINVAL, "files.img: the path of file %u is missing", file->id);
		path->is_only_path = true;
	}
	return 0;
}

/* Only now is it known which files only hold a path, and so are never opened. */
static int check_descriptors(struct snapshot *snapshot unused, struct task *task)
{
	for (size_t i = 0; i < task->table->count; i++)
		if (task->table->items[i].file->is_only_path)
			return fail(
				EINVAL,
				"fdinfo-%u.img: descriptor %d refers to file %u, which is only the path of another file",
				task->table->object.id, task->table->items[i].fd,
				task->table->items[i].file->id);
	return 0;
}

static int for_each_table(struct snapshot *snapshot, int (*act)(struct snapshot *, struct task *))
{
	struct task *task;

	for_each_leader (task, snapshot, OBJECT_DESCRIPTORS) {
		int result = task->state == TASK_DEAD ? 0 : act(snapshot, task);

		if (result)
			return fail_in(result, "process %d (%s)", task->pid, task->name);
	}
	return 0;
}

static const struct state_type begun_type = { sizeof(size_t), NULL };

/* The number of kinds, from the first on, for which close() must be called. */
static size_t *kinds_begun(struct snapshot *snapshot)
{
	return snapshot_state(snapshot, &begun_type);
}

static int load_kinds(struct snapshot *snapshot)
{
	size_t *begun = kinds_begun(snapshot);
	int result = 0;

	while (!result && *begun < file_kind_count) {
		const struct file_kind *kind = file_kinds[(*begun)++];

		result = kind->load ? kind->load(snapshot) : 0;
	}
	return result;
}

static int check_files(struct snapshot *snapshot)
{
	int result = 0;

	for (size_t i = 0; !result && i < snapshot->file_count; i++)
		if (snapshot->files[i]->kind && !snapshot->files[i]->is_only_path)
			result = file_check(snapshot, snapshot->files[i]);
	return result;
}

int files_load(struct snapshot *snapshot)
{
	int result = load_files(snapshot) ?: for_each_table(snapshot, load_descriptors);

	if (result)
		return result;
	snapshot_note_holders(snapshot);
	result = locks_load(snapshot)	      ?:
			 load_kinds(snapshot) ?:
			 find_paths(snapshot) ?:
						for_each_table(snapshot, check_descriptors);
	if (result)
		return result;
	files_note_use(snapshot);
	files_find_inherited(snapshot);
	return check_files(snapshot);
}

static int open_writable(struct snapshot *snapshot, const struct file *file)
{
	char buffer[NAMELESS_PATH_SIZE];
	const char *path;
	int fd, result;

	if (file->external)
		return file_open_external_again(file, O_RDWR);
	result = nameless_reach(snapshot, file, buffer, &path);
	if (result)
		return result;
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY);
	return fd < 0 ? fail(errno, "cannot open %s to map it", file->entry->reg->name) : fd;
}

/* A shared mapping that could become writable needs a file that is open for writing. */
static bool lacks_writable(const struct file *file)
{
	const RegFileEntry *entry = file->entry->reg;

	return file->needs_writable_mapping && entry && (entry->flags & O_ACCMODE) != O_RDWR;
}

static int open_for_mapping(struct snapshot *snapshot, struct file *file)
{
	if (!lacks_writable(file))
		return 0;
	file->mapping_fd = open_writable(snapshot, file);
	return min(file->mapping_fd, 0);
}

int files_open_to_map(struct snapshot *snapshot, struct file *file, bool is_shared)
{
	return is_shared && lacks_writable(file) ? open_writable(snapshot, file) :
						   file->kind->open(snapshot, file);
}

int file_set_flags(const struct snapshot *snapshot, const struct file *file)
{
	uint32_t flags = file_flags(snapshot, file);

	/* A descriptor with O_PATH has no other flags; an image without them leaves them to whoever opens the file. */
	if (flags & O_PATH || file->is_shared_outside || !file_has_flags(snapshot, file))
		return 0;
	if (fcntl(file->fd, F_SETFL, flags) < 0)
		return fail(errno, "cannot set the flags of file %u (%s): %#o", file->id, file->kind->name,
			    flags);
	return 0;
}

int files_open(struct snapshot *snapshot)
{
	int result = nameless_make(snapshot);

	for (size_t i = 0; !result && i < snapshot->file_count; i++) {
		struct file *file = snapshot->files[i];

		if (!file->kind || file->is_only_path || file->is_only_mapped)
			continue; /* no task has it open: checked when it was loaded */
		if (file_lateness(snapshot, file)) {
			file->fd = file_reserve_late(snapshot, file);
			result = min(file->fd, 0);
			continue;
		}
		file->fd = file_open(snapshot, file);
		result = file->fd < 0 ? file->fd : file_set_flags(snapshot, file);
		result = result ?: open_for_mapping(snapshot, file);
	}
	return result ?: files_make_envelopes(snapshot) ?: call_file_kinds(join, snapshot);
}

void files_pass(struct snapshot *snapshot, struct letter *letter)
{
	for (size_t i = 0; i < snapshot->file_count; i++) {
		letter_number(letter, &snapshot->files[i]->fd);
		letter_number(letter, &snapshot->files[i]->mapping_fd);
	}
	files_pass_envelopes(snapshot, letter);
	for (size_t i = 0; i < file_kind_count; i++)
		if (file_kinds[i]->pass)
			file_kinds[i]->pass(snapshot, letter);
}

static bool is_needed_by_release(const struct snapshot *snapshot, const struct file *file)
{
	return file_lateness(snapshot, file) || file->is_changed_last ||
	       (file->kind && file->kind->release && file->kind != &file_kind_regular);
}

static void close_files(struct snapshot *snapshot, bool only_idle)
{
	autofree int *numbers = allocate_array(2 * snapshot->file_count, sizeof(*numbers));
	size_t count = 0;

	for (size_t i = 0; i < snapshot->file_count; i++) {
		struct file *file = snapshot->files[i];

		if (file->mapping_fd >= 0)
			numbers[count++] = steal_fd(&file->mapping_fd);
		if (file->fd >= 0 && !(only_idle && is_needed_by_release(snapshot, file)))
			numbers[count++] = steal_fd(&file->fd);
	}
	descriptors_close(numbers, count);
}

int files_prepare_release(struct snapshot *snapshot)
{
	return call_file_kinds(prepare_release, snapshot);
}

void files_release(struct snapshot *snapshot)
{
	/* What only the processes need now. Its end is over before release(): to close a file is an event for an inotify. */
	close_files(snapshot, true);
	for (size_t i = 0; i < file_kind_count; i++)
		if (file_kinds[i]->release)
			file_kinds[i]->release(snapshot);
}

void files_close(struct snapshot *snapshot)
{
	size_t *begun = kinds_begun(snapshot);

	for (size_t i = 0; i < *begun; i++)
		if (file_kinds[i]->close)
			file_kinds[i]->close(snapshot);
	*begun = 0;
	externals_close_descriptors(snapshot->externals);
	files_close_envelopes(snapshot);
	close_files(snapshot, false);
}
