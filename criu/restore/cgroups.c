/*
 * cgroups.c - every task is created in its old cgroups, so that its resource usage is counted there from its start.
 *
 * A set (see dump/cgroups.c) becomes a path for each hierarchy of this kernel. If the images have nothing about a
 * hierarchy, and for the set that the dumping criu was in (root_cg_set), the path is criu's own. A newborn inherits its
 * parent's cgroups, so it only has to leave those that differ. In version 2, clone3() puts it there (CLONE_INTO_CGROUP,
 * Linux 5.7). In version 1, it moves itself first of all, with all of criu's privileges. criu moves the threads when
 * all exist: their memory is counted for their process.
 *
 * No cgroup is created here. A missing cgroup is refused before any task exists, because a new one would lack its
 * limits.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "cgroup.pb-c.h"
#include "image/image.h"
#include "kernel/cgroups.h"
#include "kernel/cpus.h"
#include "restore/restore.h"
#include "task/cgroup_roots.h"
#include "task/part.h"

struct hierarchy {
	const char *name, *own; /* in `places` */
	char *new_root;		/* --cgroup-root; NULL: none */
	char **tops;		/* only with new_root: the cgroups that it replaces (cgroup_roots.h) */
	size_t top_count;
	int root; /* a directory; -1: no task has to be moved in it */
};

/* The cgroups of the tasks of a set, in each hierarchy. */
struct cgroup_set {
	uint32_t id;
	char **paths;
	struct cpus *cpus; /* of its cpuset; NULL: not read yet */
};

struct cgroups {
	struct cgroup_places places; /* of criu itself */
	struct hierarchy *hierarchies;
	size_t count;
	CgroupEntry *image;		/* NULL: none */
	struct cgroup_set *own, **sets; /* [0] is criu's own */
	size_t set_count;
	struct index sets_by_id, entries_by_id;
};

/* ---- reading ---- */

static struct cgroup_set *add_set(struct cgroups *cgroups, uint32_t id)
{
	struct cgroup_set *set = allocate(sizeof(*set));

	set->id = id;
	set->paths = allocate_array(cgroups->count, sizeof(*set->paths));
	*grow(&cgroups->sets, &cgroups->set_count) = set;
	index_set(&cgroups->sets_by_id, id, set);
	return set;
}

/* Hierarchies that no member of the set names become criu's own. */
static void complete_set(const struct cgroups *cgroups, struct cgroup_set *set)
{
	for (size_t i = 0; i < cgroups->count; i++)
		if (!set->paths[i])
			set->paths[i] = copy_text(cgroups->hierarchies[i].own);
}

/* Controllers that had one hierarchy may be in several here, and vice versa. */
static int place_member(const struct cgroups *cgroups, struct cgroup_set *set, const CgMemberEntry *member)
{
	bool is_known = false;

	if (!cgroup_path_is_sound(member->path))
		return fail(EINVAL,
			    "cgroup.img: a cgroup is invalid, or outside of criu's cgroup namespace: %s",
			    member->path);
	for (size_t i = 0; i < cgroups->count; i++) {
		const struct hierarchy *hierarchy = &cgroups->hierarchies[i];
		autofree char *path = NULL;

		if (!cgroup_is_related(hierarchy->name, member->name))
			continue;
		is_known = true;
		path = hierarchy->new_root ? cgroup_below(hierarchy->new_root, member->path, hierarchy->tops,
							  hierarchy->top_count) :
					     copy_text(member->path);
		if (set->paths[i] && strcmp(set->paths[i], path) != 0)
			return fail(
				EINVAL,
				"cgroup.img: cgroups %s and %s were in two hierarchies, which are one hierarchy here ('%s')",
				set->paths[i], path, hierarchy->name);
		if (!set->paths[i])
			set->paths[i] = steal_pointer(&path);
	}
	if (is_known)
		return 0;
	/* A task in the root of a hierarchy is not limited by it. */
	if (!strcmp(member->path, "/"))
		return 0;
	fail_advice("--manage-cgroups=ignore, to restore the processes in the cgroups that criu is in");
	return fail(0, "a process was in cgroup %s of hierarchy '%s', which this kernel does not have",
		    member->path, member->name);
}

static int find_set(struct cgroups *cgroups, uint32_t id, struct cgroup_set **found)
{
	struct cgroup_set *set = *found = index_find(&cgroups->sets_by_id, id);
	const CgSetEntry *entry = set ? NULL : index_find(&cgroups->entries_by_id, id);
	int result = 0;

	if (set)
		return 0;
	if (!cgroups->image)
		return fail(ENOENT, "cgroup.img is missing");
	if (!entry)
		return fail(EINVAL, "cgroup.img: cgroup set %u is missing", id);
	set = *found = add_set(cgroups, id);
	for (size_t i = 0; !result && i < entry->n_ctls; i++)
		result = place_member(cgroups, set, entry->ctls[i]);
	complete_set(cgroups, set);
	return result;
}

/* Finds the set of a thread: its own, or that of its process, the only one that criu before 4.0 stores. */
static int find_set_of(struct cgroups *cgroups, const CoreEntry *core, struct cgroup_set **set)
{
	if (core->thread_core->has_cg_set)
		return find_set(cgroups, core->thread_core->cg_set, set);
	if (core->tc && core->tc->has_cg_set)
		return find_set(cgroups, core->tc->cg_set, set);
	return 0;
}

static struct cgroup_set *set_of_parent(const struct cgroups *cgroups, const struct task *task)
{
	return task->parent ? task->parent->newborn->cgroups : cgroups->own;
}

static int find_sets(struct cgroups *cgroups, struct task *task)
{
	struct newborn *newborn = task->newborn;
	int result;

	newborn->cgroups = set_of_parent(cgroups, task);
	if (task->state == TASK_DEAD)
		return 0;
	result = find_set_of(cgroups, task->cores[0], &newborn->cgroups);
	for (size_t i = 1; !result && i < task->thread_count; i++) {
		struct cgroup_set *set = newborn->cgroups;

		result = find_set_of(cgroups, task->cores[i], &set);
		if (set == newborn->cgroups)
			continue;
		if (!newborn->thread_cgroups)
			newborn->thread_cgroups = allocate_array(task->thread_count,
								 sizeof(*newborn->thread_cgroups));
		newborn->thread_cgroups[i] = set;
	}
	return result;
}

static void add_top(struct hierarchy *hierarchy, char *path)
{
	*grow(&hierarchy->tops, &hierarchy->top_count) = path;
}

static void add_tops_of(struct hierarchy *hierarchy, const CgControllerEntry *entry)
{
	if (!entry->n_cnames || !cgroup_is_related(hierarchy->name, entry->cnames[0]))
		return;
	if (entry->root)
		add_top(hierarchy, copy_text(entry->root));
	for (size_t i = 0; i < entry->n_dirs; i++)
		add_top(hierarchy, format_text("/%s", entry->dirs[i]->dir_name));
}

/* The topmost cgroups: those given to the dump, those found by 4.2.1, or else those of the tasks. */
static void find_tops(struct hierarchy *hierarchy, const CgroupEntry *image)
{
	for (size_t i = 0; i < image->n_controllers; i++)
		add_tops_of(hierarchy, image->controllers[i]);
	for (size_t i = 0; i < image->n_sets; i++)
		for (size_t j = 0; j < image->sets[i]->n_ctls; j++)
			if (cgroup_is_related(hierarchy->name, image->sets[i]->ctls[j]->name))
				add_top(hierarchy, copy_text(image->sets[i]->ctls[j]->path));
	cgroup_tops_sort(hierarchy->tops, hierarchy->top_count);
}

static int find_hierarchies(struct cgroups *cgroups, const struct texts *roots)
{
	autofree char *text = NULL;
	int result = cgroup_roots_check(roots);
	ssize_t length;

	if (result)
		return result;
	length = read_text_at(-1, "/proc/self/cgroup", &text);
	if (length == -ENOENT)
		text = copy_text(""); /* the kernel has no cgroups */
	else if (length < 0)
		return fail(-length, "cannot read /proc/self/cgroup");
	result = cgroups_parse(text, &cgroups->places);
	if (result)
		return result;
	cgroups->count = cgroups->places.count;
	cgroups->hierarchies = allocate_array(cgroups->count, sizeof(*cgroups->hierarchies));
	for (size_t i = 0; i < cgroups->count; i++) {
		struct hierarchy *hierarchy = &cgroups->hierarchies[i];

		*hierarchy = (struct hierarchy){
			.name = cgroups->places.items[i].hierarchy,
			.own = cgroups->places.items[i].path,
			.new_root = cgroup_given_root(roots, cgroups->places.items[i].hierarchy),
			.root = -1,
		};
		if (hierarchy->new_root && cgroups->image)
			find_tops(hierarchy, cgroups->image);
	}
	return 0;
}

int restore_load_cgroups(struct restore *restore, const InventoryEntry *inventory)
{
	struct cgroups *cgroups = restore->cgroups = allocate(sizeof(*cgroups));
	bool is_unsaid = !inventory->has_root_cg_set;
	struct task *task;
	int result = image_read_single(restore->snapshot.images, IMAGE_CGROUP, 0,
				       (ProtobufCMessage **)&cgroups->image);

	if (result == -ENOENT)
		result = 0;
	result = result ?: find_hierarchies(cgroups, &restore->request->cgroup_roots);
	if (result)
		return result;
	for (size_t i = 0; cgroups->image && i < cgroups->image->n_sets; i++)
		index_set(&cgroups->entries_by_id, cgroups->image->sets[i]->id, cgroups->image->sets[i]);
	cgroups->own = add_set(cgroups, inventory->root_cg_set);
	complete_set(cgroups, cgroups->own);
	for_each_task (task, &restore->snapshot) {
		/* Images without any cgroups are from a criu that ignored them. */
		task->newborn->cgroups = cgroups->own;
		if (restore->request->ignores_cgroups || (is_unsaid && !cgroups->image))
			continue;
		result = find_sets(cgroups, task);
		if (result)
			return fail_in(result, "process %d (%s)", task->pid, task->name);
	}
	return 0;
}

void restore_close_cgroups(struct restore *restore)
{
	struct cgroups *cgroups = steal_pointer(&restore->cgroups);

	if (!cgroups)
		return;
	for (size_t i = 0; i < cgroups->count; i++) {
		struct hierarchy *hierarchy = &cgroups->hierarchies[i];

		if (hierarchy->root >= 0)
			close(hierarchy->root);
		for (size_t top = 0; top < hierarchy->top_count; top++)
			free(hierarchy->tops[top]);
		free(hierarchy->tops);
		free(hierarchy->new_root);
	}
	for (size_t i = 0; i < cgroups->set_count; i++) {
		for (size_t path = 0; path < cgroups->count; path++)
			free(cgroups->sets[i]->paths[path]);
		free(cgroups->sets[i]->paths);
		free(cgroups->sets[i]->cpus);
		free(cgroups->sets[i]);
	}
	free(cgroups->sets);
	free(cgroups->hierarchies);
	cgroup_places_free(&cgroups->places);
	image_free(cgroups->image);
	index_free(&cgroups->sets_by_id);
	index_free(&cgroups->entries_by_id);
	free(cgroups);
}

/* ---- before any task exists ---- */

static int check_path(const struct hierarchy *hierarchy, const char *path)
{
	autoclose int directory = cgroup_open(hierarchy->root, path), procs = -1;

	if (directory == -ENOENT) {
		fail_advice(
			"create it with its limits first; or --manage-cgroups=ignore, to restore the processes in the "
			"cgroups that criu is in");
		return fail(0, "cgroup %s (%s) does not exist", path, cgroup_title(hierarchy->name));
	}
	if (cgroup_is_frozen(hierarchy->root, hierarchy->name, path)) {
		fail_advice("thaw it: the processes would stop as soon as they enter it");
		return fail(0, "cgroup %s (%s) is frozen", path, cgroup_title(hierarchy->name));
	}
	procs = directory < 0 ? directory : cgroup_open_file(hierarchy->root, path, "cgroup.procs", O_WRONLY);
	if (procs < 0)
		return fail(-procs, "processes cannot be moved to cgroup %s (%s)", path,
			    cgroup_title(hierarchy->name));
	return 0;
}

static int check_paths(const struct cgroups *cgroups)
{
	for (size_t i = 0; i < cgroups->count; i++) {
		struct hierarchy *hierarchy = &cgroups->hierarchies[i];
		const char *checked = hierarchy->own; /* criu is in it */

		for (size_t j = 0; j < cgroups->set_count; j++) {
			const char *path = cgroups->sets[j]->paths[i];

			if (!strcmp(path, checked) || !strcmp(path, hierarchy->own))
				continue;
			if (hierarchy->root < 0)
				hierarchy->root = cgroup_open_root(hierarchy->name);
			if (hierarchy->root < 0 || check_path(hierarchy, path))
				return -EINVAL;
			checked = path; /* many sets differ only in other hierarchies */
		}
	}
	return 0;
}

static void read_cpus(const struct cgroups *cgroups, struct cgroup_set *set)
{
	const struct cgroup_place *place = cgroup_cpuset_place(&cgroups->places);
	const struct hierarchy *hierarchy = place ? &cgroups->hierarchies[place - cgroups->places.items] :
						    NULL;

	set->cpus = allocate(sizeof(*set->cpus));
	if (hierarchy && hierarchy->root >= 0 &&
	    cgroup_read_cpus(hierarchy->root, hierarchy->name, set->paths[place - cgroups->places.items],
			     set->cpus))
		return;
	cpus_fill(set->cpus); /* if no task is moved, the cpuset is criu's own */
	cpus_restrict(set->cpus);
}

static void warn_of_cpus(const struct cgroups *cgroups, const struct task *task)
{
	for (size_t i = 0; task->state != TASK_DEAD && i < task->thread_count; i++) {
		const struct newborn *newborn = task->newborn;
		struct cgroup_set *set = newborn->cgroups;

		if (newborn->thread_cgroups && newborn->thread_cgroups[i])
			set = newborn->thread_cgroups[i];
		if (!task->cores[i]->thread_core->cpu_affinity.len)
			continue;
		if (!set->cpus)
			read_cpus(cgroups, set);
		scheduling_warn_of_cpus(task, i, set->cpus);
	}
}

int restore_check_cgroups(struct restore *restore)
{
	const struct task *task;
	int result = check_paths(restore->cgroups);

	for_each_task (task, &restore->snapshot)
		if (!result)
			warn_of_cpus(restore->cgroups, task);
	return result;
}

/* ---- moving ---- */

static int explain(int error, const char *what, pid_t id, const struct hierarchy *hierarchy, const char *path)
{
	if (error == ENOSPC)
		fail_advice("give the cgroup CPUs and memory nodes (cpuset.cpus, cpuset.mems)");
	else if (error == EBUSY)
		fail_advice(
			"the cgroup enables controllers for its children (cgroup.subtree_control), so it cannot contain processes");
	return fail(error, "cannot %s %d in cgroup %s (%s)", what, id, path, cgroup_title(hierarchy->name));
}

/* Version 2, in the process that creates the task. */
int cgroups_open_birthplace(const struct restore *restore, const struct task *task, int *directory)
{
	const struct cgroups *cgroups = restore->cgroups;
	const struct cgroup_set *from = set_of_parent(cgroups, task), *to = task->newborn->cgroups;

	*directory = -1;
	for (size_t i = 0; i < cgroups->count && from != to; i++) {
		const struct hierarchy *hierarchy = &cgroups->hierarchies[i];

		if (*hierarchy->name || !strcmp(from->paths[i], to->paths[i]))
			continue;
		*directory = cgroup_open(hierarchy->root, to->paths[i]);
		if (*directory < 0)
			return explain(-*directory, "create process", task->pid, hierarchy, to->paths[i]);
	}
	return 0;
}

int cgroups_explain_birth(const struct restore *restore, const struct task *task, int error)
{
	const struct cgroups *cgroups = restore->cgroups;

	for (size_t i = 0; i < cgroups->count; i++)
		if (!*cgroups->hierarchies[i].name)
			return explain(error, "create process", task->pid, &cgroups->hierarchies[i],
				       task->newborn->cgroups->paths[i]);
	return fail(error, "cannot create process %d", task->pid);
}

static int move(const struct hierarchy *hierarchy, const char *path, const char *file, pid_t id)
{
	autoclose int fd = cgroup_open_file(hierarchy->root, path, file, O_WRONLY);
	char text[16];
	int result;

	snprintf(text, sizeof(text), "%d", id);
	result = fd < 0 ? fd : write_all(fd, text, strlen(text));
	return result;
}

/* Version 1, in the newborn. */
int cgroups_join(const struct restore *restore, const struct task *task)
{
	const struct cgroups *cgroups = restore->cgroups;
	const struct cgroup_set *from = set_of_parent(cgroups, task), *to = task->newborn->cgroups;

	for (size_t i = 0; i < cgroups->count && from != to; i++) {
		const struct hierarchy *hierarchy = &cgroups->hierarchies[i];
		int result = *hierarchy->name && strcmp(from->paths[i], to->paths[i]) ?
				     move(hierarchy, to->paths[i], "cgroup.procs", 0) :
				     0;

		if (result)
			return explain(-result, "put process", task->pid, hierarchy, to->paths[i]);
	}
	return 0;
}

static int move_thread(const struct cgroups *cgroups, const struct task *task, size_t thread)
{
	const struct cgroup_set *from = task->newborn->cgroups, *to = task->newborn->thread_cgroups[thread];

	for (size_t i = 0; i < cgroups->count && to; i++) {
		const struct hierarchy *hierarchy = &cgroups->hierarchies[i];
		const char *file = *hierarchy->name ? "tasks" : "cgroup.threads";
		int result = strcmp(from->paths[i], to->paths[i]) ?
				     move(hierarchy, to->paths[i], file, task->threads[thread].here) :
				     0;

		if (result)
			return explain(-result, "put thread", task->threads[thread].tid, hierarchy,
				       to->paths[i]);
	}
	return to ? scheduling_set_affinity(task, thread) : 0;
}

int restore_move_threads(void *context)
{
	struct restore *restore = context;
	const struct task *task;
	int result = 0;

	for_each_task (task, &restore->snapshot) {
		for (size_t i = 1; !result && task->newborn->thread_cgroups && i < task->thread_count; i++)
			result = move_thread(restore->cgroups, task, i);
		if (result)
			return fail_in(result, "process %d (%s)", task->pid, task->name);
	}
	return 0;
}
