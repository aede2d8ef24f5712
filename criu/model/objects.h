/*
 * objects.h - what several processes may have in common without being threads of one process: clone(2) shares it,
 * unshare(2) ends that.
 *
 * Each is an object of the snapshot with its users. Every task has one of each kind; that of a dead task is empty.
 * The leader is the first of the users, in the order of snapshot->tasks: what is looked at, saved or made once is
 * done for the leader.
 */
#ifndef CRIU_MODEL_OBJECTS_H
#define CRIU_MODEL_OBJECTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "core.pb-c.h"
#include "fs.pb-c.h"
#include "mm.pb-c.h"
#include "model/vma.h"

struct task;

enum object_kind { OBJECT_MEMORY, OBJECT_DESCRIPTORS, OBJECT_DIRECTORIES, OBJECT_ACTIONS, OBJECT_KINDS };

struct object {
	uint32_t id; /* in ids-PID.img: equal ones are one object; 0: of a dead task */
	struct task *leader;
	size_t user_count;
};

struct address_space {
	struct object object;
	MmEntry *mm; /* without its vmas, which are here: */
	struct vmas vmas;
};

/* One number of a descriptor table. */
struct descriptor {
	int fd;
	bool closes_on_exec;
	struct file *file;
};

struct descriptor_table {
	struct object object;
	struct descriptor *items; /* sorted by number */
	size_t count;
};

/* Root, working directory and umask. */
struct directories {
	struct object object;
	FsEntry *fs;
};

/* What signals do. The actions themselves stand in the core of each user. */
struct signal_actions {
	struct object object;
};

/* A namespace that is not criu's own: criu/namespaces. */
enum namespace_type { NAMESPACE_UTS, NAMESPACE_TYPES };
struct namespace
{
	enum namespace_type type;
	uint32_t id; /* in ids-PID.img, and in the name of its image */
	ProtobufCMessage *entry;
	uint64_t inode; /* dump */
	int fd;		/* restore: keeps it until the processes have joined */
};

/* What is known of a kind of object, by enum object_kind. */
struct object_type {
	const char *name;    /* as in "processes share their NAME" */
	uint64_t clone_flag; /* shares it with a child */
	int kcmp_type;	     /* tells whether two tasks share it */
	size_t id;	     /* where its id is in TaskKobjIdsEntry */
};
extern const struct object_type object_types[OBJECT_KINDS];

/* A new task has an empty one of each kind for itself. */
void task_add_objects(struct task *task);
void task_drop_objects(struct task *task);
struct object *task_object(const struct task *task, enum object_kind kind);
/* From now on it uses that of `leader`, and no longer its own, of which nothing is known yet. */
void task_share_object(struct task *task, enum object_kind kind, const struct task *leader);
/* Is it the first of those that use it? */
bool task_leads(const struct task *task, enum object_kind kind);
bool tasks_share(const struct task *a, const struct task *b, enum object_kind kind);
uint32_t *ids_object(TaskKobjIdsEntry *ids, enum object_kind kind);

#endif
