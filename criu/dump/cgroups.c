/*
 * cgroups.c - the cgroups of tasks and threads. Each distinct combination (a set) is stored once, and its number is in
 * the cores of its members (cg_set); cgroup.img lists the sets.
 *
 * Set 1 is criu's own set, inventory_entry.root_cg_set. In this format it stands for the set of the criu that restores.
 * So, as with 4.2.1, it is not in cgroup.img, unless the root of the tree is in another set: then 4.2.1 looks it up
 * there. If the whole tree is in set 1, there is no cgroup.img.
 *
 * The settings of a cgroup (limits and the like) are not saved yet. Therefore `dirs` stay empty: from `dirs`, 4.2.1
 * would create missing cgroups without any limit; without `dirs` it reports them as missing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "cgroup.pb-c.h"
#include "dump/dump.h"
#include "image/message.h"
#include "kernel/cgroups.h"
#include "kernel/cpus.h"
#include "task/cgroup_roots.h"

struct seen_set {
	struct seen_set *next; /* with the same hash */
	uint32_t id;
	struct cgroup_places places;
	char *text; /* of /proc/PID/cgroup */
	bool is_used;
	bool is_threaded; /* in version 2, other than its root */
	bool may_split;	  /* threads of a process may be in other cgroups than its leader */
	bool cpus_are_known;
	struct cpus cpus; /* those of its cpuset, if known */
};

struct cgroup_sets {
	struct seen_set **items;
	size_t count;
	struct index by_hash;
	char **roots; /* mount points of the hierarchies, in the order of criu's own cgroups; NULL: not mounted */
	int cpuset_root; /* a directory of the hierarchy that has the cpusets; -1: none, or it cannot be mounted */
};

static uint64_t hash_text(const char *text)
{
	uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */

	while (*text)
		hash = (hash ^ (unsigned char)*text++) * 0x100000001b3;
	return hash;
}

static int add_seen_set(struct cgroup_sets *sets, const char *text, uint64_t hash, struct seen_set **added)
{
	struct seen_set *set = allocate(sizeof(*set));
	int result = cgroups_parse(text, &set->places);

	if (result) {
		free(set);
		return result;
	}
	set->text = copy_text(text);
	set->next = index_find(&sets->by_hash, hash);
	index_set(&sets->by_hash, hash, set);
	*grow(&sets->items, &sets->count) = *added = set;
	set->id = sets->count;
	return 0;
}

/* The threads of a process can be in different cgroups of a hierarchy of version 1 if it has more than one cgroup. */
static bool has_several(const char *root)
{
	struct stat found;

	return !root || stat(root, &found) < 0 || found.st_nlink > 2; /* 2, plus one for each subdirectory */
}

/* In version 2 they can if the cgroup is threaded, or has threaded children. (The root has no cgroup.type.) */
static bool is_threaded(const char *point, const char *path)
{
	autoclose int root = point ? open(point, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	autoclose int fd = root < 0 ? -1 : cgroup_open_file(root, path, "cgroup.type", O_RDONLY);
	char type[16] = "";

	return fd < 0 || read(fd, type, sizeof(type) - 1) < 0 || strcmp(type, "domain\n") != 0;
}

static void look_at_set(const struct cgroup_sets *sets, struct seen_set *set)
{
	const struct cgroup_places *own = &sets->items[0]->places;

	/* If the numbers differ, a hierarchy has just been mounted or unmounted. */
	set->may_split = set->places.count != own->count;
	for (size_t i = 0; i < own->count && !set->may_split; i++) {
		const struct cgroup_place *place = &set->places.items[i];

		if (!*place->hierarchy && strcmp(place->path, "/") != 0)
			set->may_split = set->is_threaded = is_threaded(sets->roots[i], place->path);
		else
			set->may_split = has_several(sets->roots[i]);
	}
}

static void read_set_cpus(const struct cgroup_sets *sets, struct seen_set *set)
{
	const struct cgroup_place *place = cgroup_cpuset_place(&set->places);

	set->cpus_are_known = place && sets->cpuset_root >= 0 &&
			      cgroup_read_cpus(sets->cpuset_root, place->hierarchy, place->path, &set->cpus);
}

int cgroup_sets_find(struct cgroup_sets *sets, const char *text, uint32_t *id, bool *threads_may_differ)
{
	uint64_t hash = hash_text(text);
	struct seen_set *set = index_find(&sets->by_hash, hash);
	int result;

	while (set && strcmp(set->text, text) != 0)
		set = set->next;
	if (!set) {
		result = add_seen_set(sets, text, hash, &set);
		if (result)
			return result;
	}
	if (!set->is_used) {
		look_at_set(sets, set);
		read_set_cpus(sets, set);
	}
	set->is_used = true;
	*id = set->id;
	*threads_may_differ = set->may_split;
	return 0;
}

const struct cpus *cgroup_sets_cpus(const struct cgroup_sets *sets, uint32_t id)
{
	const struct seen_set *set = sets->items[id - 1];

	return set->cpus_are_known ? &set->cpus : NULL;
}

static bool is_frozen(const char *point, const struct cgroup_place *place)
{
	autoclose int root = point ? open(point, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;

	return root >= 0 && cgroup_is_frozen(root, place->hierarchy, place->path);
}

/*
 * A task in a frozen cgroup does not stop for ptrace (version 1), or cannot make a call (version 2). Checking this
 * first avoids waiting for it.
 */
static int check_frozen(const struct dump *dump)
{
	const struct cgroup_sets *sets = dump->cgroups;
	autofree char *path = format_text("/proc/%d/cgroup", dump->request->root), *text = NULL;
	ssize_t length = read_text_at(-1, path, &text);
	struct cgroup_places places;
	int result;

	if (length < 0)
		return fail(-length, "cannot read %s", path);
	result = cgroups_parse(text, &places);
	for (size_t i = 0; i < places.count && places.count == sets->items[0]->places.count && !result; i++)
		if (is_frozen(sets->roots[i], &places.items[i])) {
			fail_advice("thaw the cgroup");
			result = fail(0, "process %d is in cgroup %s (%s), which is frozen",
				      dump->request->root, places.items[i].path,
				      cgroup_title(places.items[i].hierarchy));
		}
	cgroup_places_free(&places);
	return result;
}

/* If a hierarchy is not mounted, every thread has to be read. */
static int find_roots(struct cgroup_sets *sets)
{
	const struct cgroup_places *own = &sets->items[0]->places;
	autofree char *mounts = NULL;
	ssize_t length = read_text_at(-1, "/proc/self/mountinfo", &mounts);

	if (length < 0)
		return fail(-length, "cannot read /proc/self/mountinfo");
	sets->roots = allocate_array(own->count, sizeof(*sets->roots));
	for (size_t i = 0; i < own->count; i++)
		sets->roots[i] = cgroup_find_root(mounts, own->items[i].hierarchy);
	return 0;
}

static void open_cpusets(struct cgroup_sets *sets)
{
	const struct cgroup_place *place = cgroup_cpuset_place(&sets->items[0]->places);

	sets->cpuset_root = place ? attempted(cgroup_open_root(place->hierarchy)) : -1;
}

static int open_sets(struct dump *dump)
{
	struct cgroup_sets *sets = dump->cgroups;
	autofree char *text = NULL;
	struct seen_set *own;
	ssize_t length = read_text_at(-1, "/proc/self/cgroup", &text);
	int result;

	if (length < 0)
		return fail(-length, "cannot read /proc/self/cgroup");
	result = add_seen_set(sets, text, hash_text(text), &own) ?: find_roots(sets);
	if (result)
		return result;
	open_cpusets(sets);
	return dump->request->ignores_cgroups ? 0 : check_frozen(dump);
}

/* Before the freeze. */
int dump_open_cgroups(void *context)
{
	struct dump *dump = context;
	int result = cgroup_roots_check(&dump->request->cgroup_roots);

	if (result || access("/proc/self/cgroup", F_OK) < 0) /* the kernel has no cgroups */
		return result;
	dump->cgroups = allocate(sizeof(*dump->cgroups));
	dump->cgroups->cpuset_root = -1;
	if (!dump->request->ignores_cgroups)
		return open_sets(dump);
	if (attempted(open_sets(dump)))
		dump_close_cgroups(dump);
	return 0;
}

void dump_close_cgroups(struct dump *dump)
{
	struct cgroup_sets *sets = steal_pointer(&dump->cgroups);

	if (!sets)
		return;
	if (sets->cpuset_root >= 0)
		close(sets->cpuset_root);
	for (size_t i = 0; sets->roots && i < sets->items[0]->places.count; i++)
		free(sets->roots[i]);
	for (size_t i = 0; i < sets->count; i++) {
		cgroup_places_free(&sets->items[i]->places);
		free(sets->items[i]->text);
		free(sets->items[i]);
	}
	free(sets->items);
	free(sets->roots);
	index_free(&sets->by_hash);
	free(sets);
}

/* ---- cgroup.img ---- */

static CgSetEntry *describe_set(const struct seen_set *set)
{
	CgSetEntry *entry = message_new(CgSetEntry, cg_set_entry);

	entry->id = set->id;
	message_array(entry, ctls, set->places.count);
	for (size_t i = 0; i < set->places.count; i++) {
		CgMemberEntry *member = entry->ctls[i] = message_new(CgMemberEntry, cg_member_entry);

		member->name = copy_text(set->places.items[i].hierarchy);
		member->path = copy_text(set->places.items[i].path);
	}
	return entry;
}

static CgControllerEntry *describe_hierarchy(const struct cgroup_sets *sets, const char *hierarchy,
					     const struct texts *roots)
{
	CgControllerEntry *entry = message_new(CgControllerEntry, cg_controller_entry);
	autofree char *names = copy_text(hierarchy);
	char *rest = names;

	while (rest)
		*grow(&entry->cnames, &entry->n_cnames) = copy_text(strsep(&rest, ","));
	message_set(entry, is_threaded, *hierarchy != '\0');
	for (size_t i = 0; i < sets->count; i++)
		entry->is_threaded |= sets->items[i]->is_threaded;
	entry->root = cgroup_given_root(roots, hierarchy);
	return entry;
}

static bool needs_image(const struct cgroup_sets *sets)
{
	for (size_t i = 1; i < sets->count; i++)
		if (sets->items[i]->is_used)
			return true;
	return false;
}

int dump_save_cgroups(struct dump *dump)
{
	const struct cgroup_sets *sets = dump->cgroups;
	const struct cgroup_places *own;
	CgroupEntry *entry;
	bool roots_set;
	int result;

	if (!sets || dump->request->ignores_cgroups || !needs_image(sets))
		return 0;
	own = &sets->items[0]->places;
	roots_set = dump->snapshot.root->cores[0]->thread_core->cg_set == DUMP_OWN_CGROUPS;
	entry = message_new(CgroupEntry, cgroup_entry);
	for (size_t i = 0; i < sets->count; i++)
		if (sets->items[i]->is_used && (i || !roots_set))
			*grow(&entry->sets, &entry->n_sets) = describe_set(sets->items[i]);
	for (size_t i = 0; i < own->count; i++)
		*grow(&entry->controllers, &entry->n_controllers) =
			describe_hierarchy(sets, own->items[i].hierarchy, &dump->request->cgroup_roots);
	result = image_write_single(dump->snapshot.images, IMAGE_CGROUP, 0, &entry->base);
	image_free(entry);
	return result;
}
