/*
 * collect.c - dump: every open file description of the tree, once. See seen.h.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"
#include "files/locks.h"
#include "files/words.h"
#include "image/message.h"
#include "kernel_constants.h"

/* A descriptor on its way to becoming a reference to a file. */
struct found {
	struct seen_file seen;
	struct task *task;
	size_t index; /* in task->descriptors */
};

void seen_file_free(struct seen_file *seen)
{
	free(seen->link);
	free(seen->info.rest);
	free(seen->lines);
}

int files_borrow(const struct seen_file *seen)
{
	int fd = syscall(SYS_pidfd_getfd, seen->task->pidfd, seen->fd, 0);

	return fd < 0 ? fail(errno, "cannot borrow file %d of process %d", seen->fd, seen->task->pid) : fd;
}

static int look_at_owner(int fd, struct seen_file *seen)
{
	seen->signal = fcntl(fd, F_GETSIG);
	/* An O_PATH descriptor has no owner, nor can anything be asked of it. */
	if (seen->signal < 0 && errno == EBADF)
		return seen->signal = 0;
	if (seen->signal < 0 || fcntl(fd, F_GETOWN_EX, &seen->owner) < 0)
		return fail(errno, "cannot read the owner of file %d", seen->fd);
	if (seen->owner.pid && fcntl(fd, F_GETOWNER_UIDS, seen->owner_users) < 0)
		return fail(errno, "cannot read the user of the owner of file %d", seen->fd);
	return 0;
}

/* What can be asked of the file itself costs half of what its path in /proc does. */
static int look_through(struct seen_file *seen)
{
	autoclose int fd = files_borrow(seen);

	if (fd < 0)
		return fd;
	if (fstat(fd, &seen->stat) < 0)
		return fail(errno, "cannot look at file %d", seen->fd);
	return look_at_owner(fd, seen);
}

static int look_at(struct task *task, int fd, struct seen_file *seen)
{
	ssize_t length;
	int result;

	snprintf(seen->place, sizeof(seen->place), "fd/%d", fd);
	seen->task = task;
	seen->fd = fd;
	result = look_through(seen);
	if (result)
		return result;
	length = read_link_at(task->proc, seen->place, &seen->link);
	if (length < 0)
		return fail(-length, "cannot read where file %d points", fd);
	result = proc_read_fdinfo(task->proc, fd, &seen->info);
	if (!result)
		fdinfo_split(seen->info.rest, &seen->lines, &seen->line_count);
	return result;
}

static int note_locks(struct snapshot *snapshot, struct task *task, const struct seen_file *seen)
{
	int result = 0;

	for (size_t i = 0; !result && i < seen->line_count; i++)
		if (!strcmp(seen->lines[i].key, "lock"))
			result = locks_note(snapshot, task, seen->fd, seen->lines[i].value);
	return result;
}

static int list_descriptors(struct snapshot *snapshot, struct task *task, struct found **found, size_t *count)
{
	int list = openat(task->proc, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC), result = 0;
	struct dirent *entry;
	DIR *directory = list < 0 ? NULL : fdopendir(list);

	if (!directory)
		return fail(errno, "cannot list /proc/PID/fd");
	while (!result && (entry = readdir(directory))) {
		struct descriptor *descriptor;
		struct found *added;

		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		descriptor = grow(&task->descriptors, &task->descriptor_count);
		descriptor->fd = strtol(entry->d_name, NULL, 10);
		added = grow(found, count);
		added->task = task;
		added->index = task->descriptor_count - 1;
		result = look_at(task, descriptor->fd, &added->seen);
		if (!result)
			result = note_locks(snapshot, task, &added->seen);
		descriptor->closes_on_exec = added->seen.info.flags & O_CLOEXEC;
	}
	closedir(directory);
	return result;
}

static int order(uint64_t a, uint64_t b)
{
	return a < b ? -1 : a > b;
}

/*
 * Equal exactly for descriptors of one open file description. Their positions are no part of the key: somebody outside of the tree
 * who shares the description may move it between two looks at it.
 */
static int compare_found(const void *left, const void *right)
{
	const struct found *a = left, *b = right;
	int by_key = order(a->seen.stat.st_dev, b->seen.stat.st_dev) ?:
			     order(a->seen.stat.st_ino, b->seen.stat.st_ino);
	long by_kernel;

	if (by_key)
		return by_key;
	by_kernel = syscall(SYS_kcmp, a->task->pid, b->task->pid, KCMP_FILE, a->seen.fd, b->seen.fd);
	if (by_kernel < 0)
		fail(errno, "cannot compare files of processes %d and %d", a->task->pid, b->task->pid);
	return by_kernel == 0 ? 0 : by_kernel == 1 ? -1 : 1;
}

/* Files get their ids in the order in which tasks hold them, so that images of one tree look alike. */
static int compare_holders(const void *left, const void *right)
{
	const struct found *a = *(struct found *const *)left, *b = *(struct found *const *)right;

	return order(a->task->pid, b->task->pid) ?: order(a->seen.fd, b->seen.fd);
}

static void name_files(struct snapshot *snapshot, struct found *found, size_t count)
{
	struct found **firsts = allocate_array(count, sizeof(*firsts));
	size_t first_count = 0;

	qsort(found, count, sizeof(*found), compare_found);
	for (size_t i = 0; i < count; i++)
		if (!i || compare_found(&found[i - 1], &found[i]))
			firsts[first_count++] = &found[i];
	/* `seen` of the first of each run becomes the file's; the others point to the same file. */
	qsort(firsts, first_count, sizeof(*firsts), compare_holders);
	for (size_t i = 0; i < first_count; i++) {
		struct file *file = snapshot_add_file(snapshot, snapshot->file_count + 1);

		file->seen = copy_bytes(&firsts[i]->seen, sizeof(firsts[i]->seen));
		firsts[i]->task->descriptors[firsts[i]->index].file = file;
	}
	for (size_t i = 0; i < count; i++) {
		struct descriptor *descriptor = &found[i].task->descriptors[found[i].index];

		if (descriptor->file)
			continue;
		descriptor->file = found[i - 1].task->descriptors[found[i - 1].index].file;
		seen_file_free(&found[i].seen);
	}
	free(firsts);
}

/* Which kind it is, and what fdinfo tells. */
static int recognize(struct snapshot *snapshot, struct file *file)
{
	const struct seen_file *seen = file->seen;

	for (size_t i = 0; i < file_kind_count && !file->kind; i++)
		if (file_kinds[i]->recognizes(snapshot, seen))
			file_set_kind(snapshot, file, file_kinds[i]);
	if (!file->kind)
		return refuse_file(seen, "it is of a kind that is not supported yet");
	file_make_message(file);
	return fdinfo_offer(snapshot, file);
}

static int describe(struct snapshot *snapshot, struct file *file)
{
	const struct seen_file *seen = file->seen;

	log_debug("file %u: %s %s, file %d of process %d", file->id, file->kind->name, seen->link, seen->fd,
		  seen->task->pid);
	return file->kind->describe(snapshot, file);
}

static bool is_first_of_table(struct index *tables, struct task *task)
{
	if (index_find(tables, task->ids->files_id))
		return false;
	index_set(tables, task->ids->files_id, task);
	return true;
}

static int collect_descriptors(struct snapshot *snapshot)
{
	struct found *found = NULL;
	struct index tables = { 0 };
	size_t count = 0;
	struct task *task;
	int result = 0;

	for_each_task (task, snapshot) {
		if (result || task->state == TASK_DEAD || !is_first_of_table(&tables, task))
			continue;
		result = list_descriptors(snapshot, task, &found, &count);
		if (result)
			fail_in(result, "process %d (%s)", task->pid, task->name);
	}
	index_free(&tables);
	if (!result)
		name_files(snapshot, found, count);
	free(found);
	for_each_task (task, snapshot)
		task_sort_descriptors(task);
	return result;
}

/* How far the files of a dump are. */
struct progress {
	size_t begun;		      /* kinds that have to let go */
	size_t recognized, described; /* files, from the first on */
};

static const struct state_type progress_type = { sizeof(struct progress), NULL };

/* A refusal ends nothing: all of them are told at once. */
static int add_place(const struct file *file, int result)
{
	const struct seen_file *seen = file->seen;

	if (!unless_refused(result))
		return 0;
	return fail_in(result, "process %d (%s): file %d", seen->task->pid, seen->task->name, seen->fd);
}

/*
 * Works off all files that are not described yet, and those that come to be known meanwhile. All are recognized before the next is
 * described. Files that are known by a path only were described when they were added.
 */
static int describe_files(struct snapshot *snapshot)
{
	struct progress *progress = snapshot_state(snapshot, &progress_type);
	int result = 0;

	while (!result && progress->described < snapshot->file_count) {
		struct file *file;

		for (; !result && progress->recognized < snapshot->file_count; progress->recognized++) {
			file = snapshot->files[progress->recognized];
			if (!file->is_described)
				result = add_place(file, recognize(snapshot, file));
		}
		file = snapshot->files[progress->described++];
		if (!result && file->kind && !file->is_described)
			result = add_place(file, describe(snapshot, file));
	}
	return result;
}

static int begin_kinds(struct snapshot *snapshot)
{
	struct progress *progress = snapshot_state(snapshot, &progress_type);
	int result = 0;

	while (!result && progress->begun < file_kind_count) {
		const struct file_kind *kind = file_kinds[progress->begun++];

		result = kind->collect ? kind->collect(snapshot) : 0;
	}
	return result;
}

static int hold(struct snapshot *snapshot)
{
	if (refusals())
		return 0; /* nothing is touched */
	return call_file_kinds(hold, snapshot) ?: describe_files(snapshot);
}

int files_collect(struct snapshot *snapshot)
{
	int result = begin_kinds(snapshot) ?: collect_descriptors(snapshot);

	if (result)
		return result;
	snapshot_note_holders(snapshot);
	locks_collect(snapshot);
	return describe_files(snapshot) ?: hold(snapshot) ?: call_file_kinds(judge, snapshot);
}

void files_let_go(struct snapshot *snapshot, enum dump_end end)
{
	static const char *const names[] = { [DUMP_FAILED] = "failed",
					     [DUMP_RUNS_ON] = "runs on",
					     [DUMP_STOPPED] = "stopped",
					     [DUMP_KILLED] = "killed" };
	struct progress *progress = snapshot_state(snapshot, &progress_type);

	if (progress->begun)
		log_info("let the files go: %s", names[end]);
	for (size_t i = 0; i < progress->begun; i++)
		if (file_kinds[i]->let_go)
			file_kinds[i]->let_go(snapshot, end);
	progress->begun = 0;
}

/* One that is known by its path already. NULL: none is, and *key is free for it. */
static struct file *find_path(const struct snapshot *snapshot, const struct seen_file *seen, uint64_t *key)
{
	struct file *file;

	*key = index_mix(index_mix(seen->stat.st_dev, seen->stat.st_ino), seen->info.flags);
	for (; (file = index_find(&snapshot->files_by_path, *key)); ++*key) {
		const struct seen_file *other = file->seen;

		if (other->stat.st_dev == seen->stat.st_dev && other->stat.st_ino == seen->stat.st_ino &&
		    other->info.flags == seen->info.flags && !strcmp(other->link, seen->link))
			break;
	}
	return file;
}

int files_add_path(struct snapshot *snapshot, struct task *task, const char *link, int flags, uint32_t *id)
{
	struct seen_file seen = { .task = task, .fd = -1, .info = { .flags = flags, .mount = -1 } };
	ssize_t length = read_link_at(task->proc, link, &seen.link);
	struct file *file;
	uint64_t key;

	snprintf(seen.place, sizeof(seen.place), "%s", link);
	if (length < 0)
		return fail(-length, "cannot read where /proc/%d/%s points", task->pid, link);
	if (fstatat(task->proc, link, &seen.stat, 0) < 0) {
		free(seen.link);
		return fail(errno, "cannot look at /proc/%d/%s", task->pid, link);
	}
	file = find_path(snapshot, &seen, &key);
	if (file) {
		*id = file->id;
		free(seen.link);
		return 0;
	}
	file = snapshot_add_file(snapshot, snapshot->file_count + 1);
	file->seen = copy_bytes(&seen, sizeof(seen));
	file->is_described = true;
	index_set(&snapshot->files_by_path, key, file);
	*id = file->id;
	return unless_refused(recognize(snapshot, file) ?: describe(snapshot, file));
}

int files_add_path_of(struct snapshot *snapshot, const struct file *file, uint32_t *id)
{
	struct file *path = snapshot_add_file(snapshot, snapshot->file_count + 1);
	struct seen_file *seen = path->seen = copy_bytes(file->seen, sizeof(*file->seen));

	seen->fd = -1;
	seen->link = copy_text(file->seen->link);
	seen->info.rest = NULL;
	seen->lines = NULL;
	seen->line_count = 0;
	if (file_owner(snapshot, file)) {
		seen->owner = (struct f_owner_ex){ 0 };
		seen->signal = 0;
	}
	path->is_described = true;
	file_set_kind(snapshot, path, &file_kind_regular);
	file_make_message(path);
	*id = path->id;
	return path->kind->describe(snapshot, path);
}

static int save_descriptors(struct snapshot *snapshot, const struct task *task)
{
	struct image *image;
	int result = image_create(snapshot->images, &image, IMAGE_FDINFO, task->ids->files_id);

	if (result)
		return result;
	for (size_t i = 0; !result && i < task->descriptor_count; i++) {
		const struct descriptor *descriptor = &task->descriptors[i];
		FdinfoEntry entry = FDINFO_ENTRY__INIT;

		entry.id = descriptor->file->id;
		entry.fd = descriptor->fd;
		entry.type = descriptor->file->kind->type;
		entry.flags = descriptor->closes_on_exec ? FD_CLOEXEC : 0;
		result = image_write(image, &entry.base);
	}
	return image_close(image) ?: result;
}

int files_save(struct snapshot *snapshot)
{
	struct index tables = { 0 };
	struct image *image;
	struct task *task;
	int result = image_create(snapshot->images, &image, IMAGE_FILES, 0);

	if (result)
		return result;
	for (size_t i = 0; !result && i < snapshot->file_count; i++)
		result = image_write(image, &snapshot->files[i]->entry->base);
	result = image_close(image) ?: result;
	for_each_task (task, snapshot) {
		if (!result && task->state != TASK_DEAD && is_first_of_table(&tables, task))
			result = save_descriptors(snapshot, task);
	}
	index_free(&tables);
	return result ?: call_file_kinds(save, snapshot) ?: locks_save(snapshot);
}
