/*
 * collect.c - dump: collects every open file description of the tree once. See seen.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/helper_thread.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/ghost.h"
#include "files/kind.h"
#include "files/locks.h"
#include "files/words.h"
#include "image/message.h"
#include "kernel/file_lister.h"

/* Descriptors: 5 ms, nearly all in the kernel. On busy CPUs, to wait for a thread takes some milliseconds, too. */
#define WORTH_A_THREAD 256

static int note_locks(struct snapshot *snapshot, struct task *task, const struct seen_file *seen)
{
	int result = 0;

	for (size_t i = 0; !result && i < seen->line_count; i++)
		if (!strcmp(seen->lines[i].key, "lock"))
			result = locks_note(snapshot, task, seen->fd, seen->lines[i].value);
	return result;
}

/* ---- all descriptors ---- */

/* A descriptor that somebody holds, and what is seen of its file. */
struct sight {
	struct task *task;
	int fd;
	struct seen_file *seen;
	struct descriptor_ahead *ahead; /* NULL: nothing is prepared */
	struct listed_file listed;	/* its file is 0: the kernel has not listed it, but /proc */
	bool is_assumed;		/* it was not listed */
	bool is_gone;			/* there is no such descriptor */
	size_t same;	   /* 1 + the index of the parent's, of the same open file; 0: not known */
	struct file *file; /* when it is known */
	int result;	   /* of looking at it */
};

struct sights {
	struct sight *items;
	size_t count;
	size_t looked_at; /* the first ones */
	struct index tables;
};

/* Those of one task; they are sorted by number. */
struct table_sights {
	size_t first, count;
};

static void add_sight(struct sights *sights, struct task *task, int fd, struct descriptor_ahead *ahead)
{
	*grow(&sights->items, &sights->count) = (struct sight){
		.task = task,
		.fd = fd,
		.ahead = ahead,
	};
}

static int compare_sight(const void *key, const void *member)
{
	return *(const int *)key - ((const struct sight *)member)->fd;
}

/* A child inherits open files, and most keep their numbers. NULL: the parent has none of this number. */
static struct sight *find_of_parent(const struct sights *sights, const struct sight *sight)
{
	const struct task *parent = sight->task->parent;
	const struct table_sights *table =
		parent ? index_find(&sights->tables, parent->table->object.leader->here) : NULL;

	if (!table || !table->count)
		return NULL;
	return bsearch(&sight->fd, sights->items + table->first, table->count, sizeof(*sight), compare_sight);
}

/* `known`: those that there are need no other sight. */
static int list_descriptors(struct task *task, const struct table_ahead *ahead, bool known,
			    struct sights *sights)
{
	autofree int *fds = NULL;
	size_t count = 0;
	int result = proc_read_descriptors(task->proc, &fds, &count);

	if (result)
		return fail(-result, "cannot list /proc/PID/fd");
	for (size_t i = 0; i < count; i++) {
		struct descriptor_ahead *found = table_ahead_find(ahead, fds[i]);

		if (!(known && found && !found->is_gone))
			add_sight(sights, task, fds[i], found);
	}
	return 0;
}

/* false: criu cannot do that. */
static bool list_at_once(const struct snapshot *snapshot, struct task *task, const struct table_ahead *ahead,
			 struct sights *sights)
{
	autofree struct listed_file *files = NULL;
	size_t count;

	if (!files_list(snapshot, task->here, &files, &count))
		return false;
	for (size_t i = 0; i < count; i++) {
		add_sight(sights, task, files[i].fd, table_ahead_find(ahead, files[i].fd));
		sights->items[sights->count - 1].listed = files[i];
	}
	return true;
}

/* If a process has as many descriptors as before, they are assumed to have the same numbers. */
static int find_descriptors(const struct snapshot *snapshot, struct task *task, struct sights *sights)
{
	const struct table_ahead *ahead = files_ahead(snapshot, task->here);

	if (list_at_once(snapshot, task, ahead, sights))
		return 0;
	if (!ahead || count_descriptors(task->proc) != ahead->count)
		return list_descriptors(task, ahead, false, sights);
	for (size_t i = 0; i < ahead->count; i++) {
		add_sight(sights, task, ahead->items[i].fd, &ahead->items[i]);
		sights->items[sights->count - 1].is_assumed = true;
	}
	return 0;
}

static bool has_same(const struct sight *sight, const struct sight *parents)
{
	return is_same_descriptor((pid_t[]){ sight->task->here, parents->task->here },
				  (uint64_t[]){ sight->listed.file, parents->listed.file }, sight->fd);
}

/* Changes nothing in the snapshot. */
static void look_at_sight(void *context, size_t i)
{
	const struct sights *sights = context;
	struct sight *sight = &sights->items[sights->looked_at + i];
	const struct file_holder holder = file_holder_task(sight->task);
	const struct listed_file *listed = sight->listed.file ? &sight->listed : NULL;
	struct sight *parents = find_of_parent(sights, sight);

	sight->seen = allocate(sizeof(*sight->seen));
	if (parents && has_same(sight, parents)) {
		sight->same = parents - sights->items + 1;
		sight->result = seen_file_look_at_descriptor(sight->seen, &holder, sight->fd, sight->ahead,
							     listed);
		return;
	}
	sight->result = seen_file_look(sight->seen, &holder, sight->fd, sight->ahead, listed,
				       sight->is_assumed);
	if (sight->result == -EBADF && sight->is_assumed) {
		sight->result = 0;
		sight->is_gone = sight->ahead->is_gone = true;
	}
}

static void look_at_sights(struct sights *sights)
{
	share_work(sights->count - sights->looked_at, WORTH_A_THREAD, look_at_sight, sights);
	sights->looked_at = sights->count;
}

/* A process that lacks one of the assumed numbers has another one instead. */
static int look_at_others(const struct snapshot *snapshot, struct sights *sights)
{
	const struct task *last = NULL;
	int result = 0;

	for (size_t i = 0; !result && i < sights->looked_at; i++) {
		struct task *task = sights->items[i].task;

		if (!sights->items[i].is_gone || task == last)
			continue;
		last = task;
		result = list_descriptors(task, files_ahead(snapshot, task->here), true, sights);
	}
	if (!result)
		look_at_sights(sights);
	return result;
}

/* Uses up what is seen of a file that is not known. */
static int add_descriptor(struct snapshot *snapshot, const struct sights *sights, struct sight *sight)
{
	struct descriptor *descriptor = grow(&sight->task->table->items, &sight->task->table->count);
	int result = 0;

	descriptor->fd = sight->fd;
	descriptor->closes_on_exec = sight->seen->info.flags & O_CLOEXEC;
	if (sight->same)
		sight->file = sights->items[sight->same - 1].file; /* parents come before their children */
	else
		result = files_identify_seen(snapshot, steal_pointer(&sight->seen), &sight->file);
	descriptor->file = sight->file;
	return result;
}

static int add_descriptors(struct snapshot *snapshot, struct sights *sights)
{
	int result = 0;

	for (size_t i = 0; !result && i < sights->count; i++) {
		struct sight *sight = &sights->items[i];

		if (sight->is_gone)
			continue;
		result = sight->result						?:
				 note_locks(snapshot, sight->task, sight->seen) ?:
				 add_descriptor(snapshot, sights, sight);
		if (result)
			fail_in(result, "process %d (%s)", sight->task->here, sight->task->name);
	}
	return result;
}

static void free_sights(struct sights *sights)
{
	for (size_t i = 0; i < sights->count; i++)
		if (sights->items[i].seen) {
			seen_file_free(sights->items[i].seen);
			free(sights->items[i].seen);
		}
	free(sights->items);
	index_free(&sights->tables);
}

static int compare_holders(const void *left, const void *right)
{
	const struct seen_file *a = (*(struct file *const *)left)->seen,
			       *b = (*(struct file *const *)right)->seen;

	return a->holder.here != b->holder.here ? a->holder.here - b->holder.here : a->fd - b->fd;
}

/* Files get ids in the order in which tasks hold them, so that images of equal trees are alike. */
static void number_files(struct snapshot *snapshot, size_t first)
{
	if (snapshot->file_count > first)
		qsort(snapshot->files + first, snapshot->file_count - first, sizeof(*snapshot->files),
		      compare_holders);
	for (size_t i = first; i < snapshot->file_count; i++)
		snapshot->files[i]->id = i + 1;
}

/*
 * open("/proc/PID/fd/N", O_PATH) of something that has no path: such a descriptor is no end of a pipe, and no other
 * kind of file either.
 */
static bool is_nameless_path(const struct seen_file *seen, const struct file_kind *kind)
{
	return seen->fd >= 0 && seen->info.flags & O_PATH && seen->link[0] != '/' &&
	       kind != &file_kind_namespace;
}

/* Finds the kind of a file, and passes its fdinfo. */
static int recognize(struct snapshot *snapshot, struct file *file)
{
	const struct seen_file *seen = file->seen;
	const struct file_kind *kind = files_find_external(snapshot, file);

	for (size_t i = 0; i < file_kind_count && !kind; i++)
		if (file_kinds[i]->recognizes(snapshot, seen))
			kind = file_kinds[i];
	if (is_nameless_path(seen, kind))
		return refuse_file(seen, "it was opened with O_PATH, but has no path: close it first");
	if (!kind) {
		file_advise_external(snapshot, seen);
		return refuse_file(seen, "it is of a kind that is not supported yet");
	}
	file_set_kind(snapshot, file, kind);
	file_make_message(snapshot, file);
	return fdinfo_offer(snapshot, file);
}

static int describe_seen_file(struct snapshot *snapshot, struct file *file)
{
	const struct seen_file *seen = file->seen;

	log_debug("file %u: %s %s, descriptor %d of process %d", file->id, file->kind->name, seen->link,
		  seen->fd, seen->holder.here);
	return file->kind->describe(snapshot, file);
}

static int list_all(struct snapshot *snapshot, struct sights *sights, struct table_sights *table)
{
	struct task *task;
	int result = 0;

	for_each_leader (task, snapshot, OBJECT_DESCRIPTORS) {
		if (result || task->state == TASK_DEAD)
			continue;
		table->first = sights->count;
		result = find_descriptors(snapshot, task, sights);
		if (result)
			fail_in(result, "process %d (%s)", task->here, task->name);
		table->count = sights->count - table->first;
		index_set(&sights->tables, task->here, table++);
	}
	return result;
}

static int collect_descriptors(struct snapshot *snapshot)
{
	size_t first = snapshot->file_count;
	struct sights sights = { 0 };
	struct task *task;
	autofree struct table_sights *tables = allocate_array(snapshot->task_count, sizeof(*tables));
	int result = list_all(snapshot, &sights, tables);

	if (!result)
		look_at_sights(&sights);
	result = result ?: look_at_others(snapshot, &sights) ?: add_descriptors(snapshot, &sights);
	free_sights(&sights);
	files_looked(snapshot);
	for_each_leader (task, snapshot, OBJECT_DESCRIPTORS)
		task_sort_descriptors(task);
	number_files(snapshot, first);
	return result;
}

/* The progress of the files of a dump. */
struct progress {
	size_t begun;		      /* kinds for which let_go() must be called */
	size_t recognized, described; /* number of files, from the first on */
};

static const struct state_type progress_type = { sizeof(struct progress), NULL };

/* A refusal does not end the collection: all refusals are reported at once. */
static int add_place(const struct file *file, int result)
{
	const struct seen_file *seen = file->seen;

	if (!unless_refused(result))
		return 0;
	return fail_in(result, "process %d (%s): descriptor %d", seen->holder.here, seen->holder.name,
		       seen->fd);
}

/*
 * Describes all files that are not described yet, and those that are added meanwhile. All known files are recognized
 * before the next one is described. Files known only by a path were described when they were added.
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
			result = add_place(file, describe_seen_file(snapshot, file));
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

static int hold_all_kinds(struct snapshot *snapshot)
{
	if (refusals())
		return 0; /* nothing has been changed */
	return call_file_kinds(hold, snapshot) ?: describe_files(snapshot);
}

int files_collect(struct snapshot *snapshot)
{
	int result = begin_kinds(snapshot) ?: collect_descriptors(snapshot);

	if (result)
		return result;
	snapshot_note_holders(snapshot);
	result = locks_collect(snapshot) ?: describe_files(snapshot);
	if (!result)
		result = hold_all_kinds(snapshot) ?: call_file_kinds(judge, snapshot);
	files_give_advice(snapshot);
	if (!result && snapshot->externals)
		snapshot->externals->is_complete = true;
	return result;
}

bool files_need_prepare_end(const struct snapshot *snapshot)
{
	for (size_t i = 0; i < file_kind_count; i++)
		if (file_kinds[i]->needs_prepare_end && file_kinds[i]->needs_prepare_end(snapshot))
			return true;
	return false;
}

int files_prepare_end(struct snapshot *snapshot)
{
	return call_file_kinds(prepare_end, snapshot);
}

void files_abandon_end(struct snapshot *snapshot)
{
	for (size_t i = 0; i < file_kind_count; i++)
		if (file_kinds[i]->abandon_end)
			file_kinds[i]->abandon_end(snapshot);
}

void files_end(struct snapshot *snapshot)
{
	for (size_t i = 0; i < file_kind_count; i++)
		if (file_kinds[i]->end)
			file_kinds[i]->end(snapshot);
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
	files_forget_identities(snapshot);
}

/* `kind`: what it is saved as; NULL: its own kind. */
static int add_path(struct snapshot *snapshot, struct task *task, const char *link, int flags,
		    const struct file_kind *kind, uint32_t *id)
{
	struct seen_file seen = { .holder = file_holder_task(task),
				  .fd = -1,
				  .info = { .flags = flags, .mount = -1 } };
	ssize_t length = read_link_at(task->proc, link, &seen.link);
	struct file *file;
	uint64_t key;

	snprintf(seen.place, sizeof(seen.place), "%s", link);
	if (length < 0)
		return fail(-length, "cannot read the link /proc/%d/%s", task->here, link);
	if (fstatat(task->proc, link, &seen.stat, 0) < 0) {
		free(seen.link);
		return fail(errno, "cannot stat /proc/%d/%s", task->here, link);
	}
	file = files_find_path(snapshot, &seen, &key);
	if (file) {
		*id = file->id;
		free(seen.link);
		return 0;
	}
	file = snapshot_add_file(snapshot, snapshot->file_count + 1);
	file->seen = copy_bytes(&seen, sizeof(seen));
	file->is_described = true;
	files_note_path(snapshot, file, key);
	*id = file->id;
	if (kind) {
		file_set_kind(snapshot, file, kind);
		file_make_message(snapshot, file);
		return unless_refused(describe_seen_file(snapshot, file));
	}
	return unless_refused(recognize(snapshot, file) ?: describe_seen_file(snapshot, file));
}

int files_add_path(struct snapshot *snapshot, struct task *task, const char *link, int flags, uint32_t *id)
{
	return add_path(snapshot, task, link, flags, NULL, id);
}

int files_add_device(struct snapshot *snapshot, struct task *task, const char *link, int flags, uint32_t *id)
{
	return add_path(snapshot, task, link, flags, &file_kind_regular, id);
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
	file_make_message(snapshot, path);
	*id = path->id;
	return path->kind->describe(snapshot, path);
}

static int save_descriptors(struct snapshot *snapshot, const struct task *task)
{
	struct image *image;
	int result = image_create(snapshot->images, &image, IMAGE_FDINFO, task->table->object.id);

	if (result)
		return result;
	for (size_t i = 0; !result && i < task->table->count; i++) {
		const struct descriptor *descriptor = &task->table->items[i];
		FdinfoEntry entry = FDINFO_ENTRY__INIT;

		entry.id = descriptor->file->id;
		entry.fd = descriptor->fd;
		entry.type = descriptor->file->kind->type;
		entry.flags = descriptor->closes_on_exec ? FD_CLOEXEC : 0;
		result = image_write(image, &entry.base);
	}
	return image_close(image) ?: result;
}

int files_save_tables(struct snapshot *snapshot)
{
	struct task *task;
	int result = nameless_save_held(snapshot);

	for_each_leader (task, snapshot, OBJECT_DESCRIPTORS) {
		if (!result && task->state != TASK_DEAD)
			result = save_descriptors(snapshot, task);
	}
	return result;
}

/* criu 4.2.1 has to read of a peer outside of the tree before it reads of the sockets that are connected to it. */
static bool comes_first(const struct file *file)
{
	return file->is_only_path && file->kind == &file_kind_unix;
}

static int write_files(const struct snapshot *snapshot, struct image *image, bool first)
{
	int result = 0;

	for (size_t i = 0; !result && i < snapshot->file_count; i++)
		if (comes_first(snapshot->files[i]) == first)
			result = image_write(image, &snapshot->files[i]->entry->base);
	return result;
}

int files_save(struct snapshot *snapshot)
{
	struct image *image;
	int result = image_create(snapshot->images, &image, IMAGE_FILES, 0);

	if (result)
		return result;
	result = write_files(snapshot, image, true) ?: write_files(snapshot, image, false);
	result = image_close(image) ?: result;
	return result ?: call_file_kinds(save, snapshot) ?: locks_save(snapshot);
}
