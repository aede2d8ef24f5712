/*
 * kind.h - a kind of namespace: how one is saved and made again.
 *
 * Each namespace in which a process of the tree is, and criu is not, is one struct namespace (model/objects.h), however
 * many processes are in it. A new kind is one source here, one line in kinds.c and in enum namespace_type, and rows of
 * a live test. The core (namespaces.c) tells namespaces apart, gives them ids, writes and reads their images, makes
 * them, and has each process join its own.
 */
#ifndef CRIU_NAMESPACES_KIND_H
#define CRIU_NAMESPACES_KIND_H

#include "base/letter.h"
#include "compiler.h"
#include "image/image.h"
#include "model/snapshot.h"

/* A type of namespaces that Linux has, whether or not it can be saved. */
struct namespace_facts {
	const char *name; /* of the link in /proc/PID/ns, and for people: "uts" */
	int clone_flag;
	size_t has_id, id; /* where TaskKobjIdsEntry has it */
	uint32_t own_id;   /* of criu's own, in the images that it writes */
};

extern const struct namespace_facts all_namespaces[];
extern const size_t all_namespace_count;

struct namespace_kind {
	const char *name; /* as in struct namespace_facts */
	int clone_flag;
	size_t place; /* where struct place has it (kernel/place.h) */
	enum image_kind image;
	const ProtobufCMessageDescriptor *message; /* its only record */

	/*
	 * Dump. Runs inside the namespace (run_in()), with criu's memory, descriptors and privileges, once for each
	 * that is not criu's own; the tree is frozen. Makes namespace->entry. fail() or refuse() what is not
	 * possible.
	 */
	int (*describe)(struct namespace *namespace) must_check;
	/* Restore, in criu, before anything is made. Is namespace->entry possible? Changes nothing. */
	int (*check)(const struct namespace *namespace) must_check;
	/*
	 * Restore. Runs inside the new namespace, as describe() does, when only the root exists, which waits: makes it
	 * what the entry says. What it makes goes with the namespace if the restore fails.
	 */
	int (*fill)(const struct namespace *namespace) must_check;
};

extern const struct namespace_kind *const namespace_kinds[NAMESPACE_TYPES];
extern const struct namespace_kind namespace_kind_uts;

/* ---- dump ---- */

/* Finds the namespaces of the tree that are not criu's own, and describes them. */
int namespaces_collect(struct snapshot *snapshot) must_check;
/* NULL: criu's own ids. */
void namespaces_add_ids(const struct task *task, TaskKobjIdsEntry *ids);
int namespaces_save(struct snapshot *snapshot) must_check;
/* The one with this inode in which a process of the tree is, and criu is not; NULL: there is none. */
struct namespace *namespaces_find_inode(const struct snapshot *snapshot, ino_t inode);

/* ---- restore ---- */

/*
 * Reads and checks the namespaces of all tasks, whose ids have been read. `ours`: the ids of the criu that made the
 * dump; NULL: not known.
 */
int namespaces_load(struct snapshot *snapshot, TaskKobjIdsEntry *ours) must_check;
/* The id of the dumping criu's own namespace of this type. */
uint32_t namespaces_own_id(const struct snapshot *snapshot, const struct namespace_facts *facts);
/* NULL: the images have no namespace with this id and flag. */
struct namespace *namespaces_find_id(const struct snapshot *snapshot, uint32_t id, int clone_flag);
/* For clone3(): in which new namespaces the root is created. */
uint64_t namespaces_of_birth(const struct snapshot *snapshot);
/* When the root exists: creates each of the others, and fills all. Descriptors of criu keep them … */
int namespaces_make(struct snapshot *snapshot) must_check;
/* … which criu passes on to the root, and which all other newborns inherit. */
void namespaces_pass(struct snapshot *snapshot, struct letter *letter);
void namespaces_close(struct snapshot *snapshot);
/* In a newborn: leaves the namespaces of its creator, and joins its own. */
int namespaces_join(const struct snapshot *snapshot, const struct task *task) must_check;

#endif
