/*
 * namespaces.c - what all kinds of namespaces have in common: which there are, their ids and images, making and
 * joining them.
 *
 * The root is created in new namespaces of its own; all others are made by a child of criu that shares its descriptors
 * (run_in()). From then on a descriptor of criu keeps each, and it is filled from inside. A newborn is created in the
 * namespaces of its creator and joins its own by the inherited descriptor, first of all.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/place.h"
#include "kernel/proc.h"
#include "namespaces/kind.h"

#define FIRST_ID 9 /* smaller ones are of criu's own */

static const struct namespace_facts *facts_of(int clone_flag)
{
	const struct namespace_facts *facts = all_namespaces;

	while (facts->clone_flag != clone_flag)
		facts++;
	return facts;
}

static uint32_t *id_in(TaskKobjIdsEntry *ids, const struct namespace_facts *facts)
{
	return (uint32_t *)((char *)ids + facts->id);
}

/* The kind of this type, if it is saved; NAMESPACE_TYPES: it is not. */
static enum namespace_type type_of(int clone_flag)
{
	enum namespace_type type = 0;

	while (type < NAMESPACE_TYPES && namespace_kinds[type]->clone_flag != clone_flag)
		type++;
	return type;
}

static struct namespace *add_namespace(struct snapshot *snapshot, enum namespace_type type, uint32_t id)
{
	struct namespace *namespace = allocate(sizeof(*namespace));

	*grow(&snapshot->namespaces, &snapshot->namespace_count) = namespace;
	namespace->type = type;
	namespace->id = id;
	namespace->fd = -1;
	return namespace;
}

/* ---- dump ---- */

static int read_inode(int proc, const struct namespace_kind *kind, uint64_t *inode)
{
	struct stat stat;
	char path[32];

	snprintf(path, sizeof(path), "ns/%s", kind->name);
	if (fstatat(proc, path, &stat, 0) < 0)
		return fail(errno, "cannot stat /proc/PID/%s", path);
	*inode = stat.st_ino;
	return 0;
}

static int describe_inside(void *namespace)
{
	return namespace_kinds[((struct namespace *)namespace)->type]->describe(namespace);
}

static int describe(struct namespace *namespace, const struct task *task)
{
	const struct namespace_kind *kind = namespace_kinds[namespace->type];
	struct place place = PLACE_HERE;
	autoclose int fd = -1;
	char path[32];

	snprintf(path, sizeof(path), "ns/%s", kind->name);
	fd = openat(task->proc, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return fail(errno, "cannot open /proc/PID/%s", path);
	*(int *)((char *)&place + kind->place) = fd;
	return run_in(&place, describe_inside, namespace);
}

static int note_user(struct snapshot *snapshot, struct task *task, enum namespace_type type, uint64_t own,
		     struct index *known)
{
	struct namespace *namespace;
	uint64_t inode;
	int result = read_inode(task->proc, namespace_kinds[type], &inode);

	if (result || inode == own)
		return result;
	namespace = index_find(known, inode);
	if (!namespace) {
		namespace = add_namespace(snapshot, type, FIRST_ID + snapshot->namespace_count);
		namespace->inode = inode;
		index_set(known, inode, namespace);
		result = describe(namespace, task);
	}
	task->namespaces[type] = namespace;
	return result;
}

int namespaces_collect(struct snapshot *snapshot)
{
	autoclose int self = proc_open(getpid());
	int result = self < 0 ? fail(-self, "cannot open /proc/self") : 0;

	for (enum namespace_type type = 0; !result && type < NAMESPACE_TYPES; type++) {
		struct index known = { 0 };
		struct task *task;
		uint64_t own = 0;

		result = read_inode(self, namespace_kinds[type], &own);
		for_each_task (task, snapshot) {
			if (result || task->state == TASK_DEAD)
				continue;
			result = note_user(snapshot, task, type, own, &known);
			if (result)
				fail_in(result, "process %d (%s): its %s namespace", task->here, task->name,
					namespace_kinds[type]->name);
		}
		index_free(&known);
	}
	return result;
}

void namespaces_add_ids(const struct task *task, TaskKobjIdsEntry *ids)
{
	for (size_t i = 0; i < all_namespace_count; i++) {
		const struct namespace_facts *facts = &all_namespaces[i];
		enum namespace_type type = type_of(facts->clone_flag);
		const struct namespace *namespace = task && type < NAMESPACE_TYPES ? task->namespaces[type] :
										     NULL;

		*(protobuf_c_boolean *)((char *)ids + facts->has_id) = true;
		*id_in(ids, facts) = namespace ? namespace->id : facts->own_id;
	}
}

struct namespace *namespaces_find_inode(const struct snapshot *snapshot, ino_t inode)
{
	for (size_t i = 0; i < snapshot->namespace_count; i++)
		if (snapshot->namespaces[i]->inode == inode)
			return snapshot->namespaces[i];
	return NULL;
}

int namespaces_save(struct snapshot *snapshot)
{
	int result = 0;

	for (size_t i = 0; !result && i < snapshot->namespace_count; i++) {
		const struct namespace *namespace = snapshot->namespaces[i];

		result = image_write_single(snapshot->images, namespace_kinds[namespace->type]->image,
					    namespace->id, namespace->entry);
	}
	return result;
}

/* ---- restore: load ---- */

static int load(struct snapshot *snapshot, struct namespace *namespace)
{
	const struct namespace_kind *kind = namespace_kinds[namespace->type];
	int result = image_read_single(snapshot->images, kind->image, namespace->id, &namespace->entry);

	if (result == -ENOENT)
		return fail(ENOENT, "the image of %s namespace %u is missing", kind->name, namespace->id);
	return result ?: kind->check(namespace);
}

static int load_type(struct snapshot *snapshot, enum namespace_type type, uint32_t own)
{
	const struct namespace_kind *kind = namespace_kinds[type];
	struct index known = { 0 };
	struct task *task;
	int result = 0;

	for_each_task (task, snapshot) {
		uint32_t id = task->ids ? *id_in(task->ids, facts_of(kind->clone_flag)) : own;
		struct namespace *namespace = index_find(&known, id);

		if (result || id == own)
			continue;
		if (!namespace) {
			namespace = add_namespace(snapshot, type, id);
			index_set(&known, id, namespace);
			result = load(snapshot, namespace);
		}
		task->namespaces[type] = namespace;
	}
	index_free(&known);
	return result;
}

static const struct state_type own_ids_type = { sizeof(TaskKobjIdsEntry), NULL };

int namespaces_load(struct snapshot *snapshot, TaskKobjIdsEntry *ours)
{
	TaskKobjIdsEntry *own = ours ?: snapshot->root->ids;
	int result = 0;

	if (own)
		*(TaskKobjIdsEntry *)snapshot_state(snapshot, &own_ids_type) = *own;
	for (enum namespace_type type = 0; own && !result && type < NAMESPACE_TYPES; type++)
		result = load_type(snapshot, type, *id_in(own, facts_of(namespace_kinds[type]->clone_flag)));
	return result;
}

uint32_t namespaces_own_id(const struct snapshot *snapshot, const struct namespace_facts *facts)
{
	return *id_in(snapshot_state(snapshot, &own_ids_type), facts);
}

struct namespace *namespaces_find_id(const struct snapshot *snapshot, uint32_t id, int clone_flag)
{
	for (size_t i = 0; i < snapshot->namespace_count; i++) {
		struct namespace *namespace = snapshot->namespaces[i];

		if (namespace->id == id && namespace_kinds[namespace->type]->clone_flag == clone_flag)
			return namespace;
	}
	return NULL;
}

/* ---- restore: make ---- */

static int open_own(const struct namespace_kind *kind)
{
	autofree char *path = format_text("/proc/self/ns/%s", kind->name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? fail(errno, "cannot open %s", path) : fd;
}

uint64_t namespaces_of_birth(const struct snapshot *snapshot)
{
	uint64_t flags = 0;

	for (enum namespace_type type = 0; type < NAMESPACE_TYPES; type++)
		if (snapshot->root->namespaces[type])
			flags |= namespace_kinds[type]->clone_flag;
	return flags;
}

static int make_inside(void *argument)
{
	struct namespace *namespace = argument;
	const struct namespace_kind *kind = namespace_kinds[namespace->type];

	if (unshare(kind->clone_flag) < 0)
		return fail(errno, "cannot create a %s namespace", kind->name);
	namespace->fd = open_own(kind);
	return namespace->fd < 0 ? namespace->fd : kind->fill(namespace);
}

static int fill_inside(void *namespace)
{
	return namespace_kinds[((struct namespace *)namespace)->type]->fill(namespace);
}

/* The one that the root was born in. */
static int fill_own(const struct snapshot *snapshot, struct namespace *namespace)
{
	const struct namespace_kind *kind = namespace_kinds[namespace->type];
	autofree char *path = format_text("/proc/%d/ns/%s", snapshot->root->here, kind->name);
	struct place place = PLACE_HERE;

	namespace->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (namespace->fd < 0)
		return fail(errno, "cannot open %s", path);
	*(int *)((char *)&place + kind->place) = namespace->fd;
	return run_in(&place, fill_inside, namespace);
}

static int make(struct snapshot *snapshot, struct namespace *namespace)
{
	const struct place here = PLACE_HERE;
	int *ours = &snapshot->own_namespaces[namespace->type];

	if (*ours < 0)
		*ours = open_own(namespace_kinds[namespace->type]);
	if (*ours < 0)
		return *ours;
	return namespace == snapshot->root->namespaces[namespace->type] ?
		       fill_own(snapshot, namespace) :
		       run_in(&here, make_inside, namespace);
}

int namespaces_make(struct snapshot *snapshot)
{
	int result = 0;

	for (size_t i = 0; !result && i < snapshot->namespace_count; i++) {
		struct namespace *namespace = snapshot->namespaces[i];

		result = make(snapshot, namespace);
		if (result)
			fail_in(result, "%s namespace %u", namespace_kinds[namespace->type]->name,
				namespace->id);
	}
	return result;
}

void namespaces_pass(struct snapshot *snapshot, struct letter *letter)
{
	for (size_t i = 0; i < snapshot->namespace_count; i++)
		letter_number(letter, &snapshot->namespaces[i]->fd);
	for (enum namespace_type type = 0; type < NAMESPACE_TYPES; type++)
		letter_number(letter, &snapshot->own_namespaces[type]);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void namespaces_close(struct snapshot *snapshot)
{
	for (size_t i = 0; i < snapshot->namespace_count; i++)
		close_fd(&snapshot->namespaces[i]->fd);
	for (enum namespace_type type = 0; type < NAMESPACE_TYPES; type++)
		close_fd(&snapshot->own_namespaces[type]);
}

int namespaces_join(const struct snapshot *snapshot, const struct task *task)
{
	for (enum namespace_type type = 0; type < NAMESPACE_TYPES; type++) {
		const struct namespace_kind *kind = namespace_kinds[type];
		const struct namespace *own = task->namespaces[type];
		const struct namespace *born_in = task->creator ? task->creator->namespaces[type] : own;

		if (own != born_in &&
		    setns(own ? own->fd : snapshot->own_namespaces[type], kind->clone_flag) < 0)
			return fail(errno, "cannot join its %s namespace", kind->name);
	}
	return 0;
}
