/*
 * snapshot.h - a tree of processes as a dump saw it, or as images describe it. An object that several tasks share is in
 * it once.
 *
 * Most of the state of a task is kept in the messages of the image format: dump fills them, restore reads them. What
 * both journeys compute with (the tree, mappings, open files) has structs of its own.
 */
#ifndef CRIU_MODEL_SNAPSHOT_H
#define CRIU_MODEL_SNAPSHOT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/index.h"
#include "core.pb-c.h"
#include "fdinfo.pb-c.h"
#include "list.h"
#include "model/objects.h"
#include "model/pids.h"
#include "model/request.h"

struct image_store;
struct nameless; /* files/ghost.h */
struct newborn;	 /* restore/ */
struct victim;	 /* compel.h */

/* tc.task_state */
enum task_state { TASK_ALIVE = 1, TASK_DEAD = 2, TASK_STOPPED = 3 };

struct task {
	/* identity: set by freeze or by the reader, read-only after */
	struct list link;     /* in snapshot->tasks */
	struct list children; /* of `sibling` */
	struct list sibling;
	struct task *parent; /* NULL: the root */
	/* pids.h tells which id serves what */
	pid_t here;		   /* by which criu reaches it; restore: 0 until pids are planned */
	pid_t pid, group, session; /* what images tell; dump: pid is 0 until names.c has set it */
	struct thread *threads;	   /* [0] is the leader */
	size_t thread_count;
	enum task_state state;
	int stop_signal;
	uint64_t start_time; /* dump: clock ticks since boot; with the pid, identifies the process for ever */
	char name[16];	     /* comm of the leader */

	/* its state; a dead task has only cores[0] */
	CoreEntry **cores; /* one for each thread; [0] has tc */
	TaskKobjIdsEntry *ids;

	/* what it may share with others: objects.h; never NULL */
	struct address_space *space;
	struct descriptor_table *table;
	struct directories *directories;
	struct signal_actions *actions;
	struct namespace *namespaces[NAMESPACE_TYPES]; /* NULL: criu's own */
	/* births.h: who makes it at a restore, and whom it makes */
	struct task *creator; /* NULL: nobody in the tree */
	struct list created;  /* of `creation` */
	struct list creation;

	/* dump only */
	struct victim *victim;
	int proc; /* /proc/PID */
	int pidfd;

	/* restore only */
	struct newborn *newborn;
	int exe_fd; /* the executable: open in the newborn when it leaves criu's code */
};

/* An open file description, or a file that is only mapped, executed, or the directory of a task. */
struct file {
	uint32_t id;
	const struct file_kind *kind;
	FileEntry *entry;
	struct task *holder;	   /* the first task that has a descriptor of it; NULL: none */
	int holder_fd;		   /* its lowest descriptor of it */
	bool is_only_path;	   /* it holds the path of a file of another kind: files/descriptor_need.c */
	bool is_only_mapped;	   /* a regular file: opened to be mapped, and then closed */
	bool is_in_flight;	   /* an unread message of a socket has a descriptor of it: sockets/queue.h */
	struct external *external; /* the option that names it: external.h; NULL: none */
	struct nameless *nameless; /* its path does not lead to it: files/ghost.h; NULL: it does */
	struct seen_file *seen;	   /* dump only: files/seen.h */
	bool is_described;	   /* dump: it has been described, or refused */
	/* restore: open in every newborn until that has taken what it needs; -1: not open */
	int fd;
	int mapping_fd; /* for shared mappings that may become writable, if `fd` is not open for writing */
	bool needs_writable_mapping;
	bool is_changed_last; /* a regular file whose content release() changes */
	bool is_of_plugin;    /* restore: a device that is only mapped, and that criu itself would not open */
	bool is_shared_outside; /* `fd` is an open file description of criu's starter: it stays as it is */
};

/* Is it open, and not only mapped, executed, or a directory of a task? */
static inline bool file_is_open(const struct file *file)
{
	return file->holder || file->is_in_flight;
}

struct snapshot {
	struct image_store *images;
	struct policy policy;
	struct externals *externals; /* those of the request; NULL: none */
	struct task *root;
	struct list tasks;		       /* parents before children */
	struct index tasks_by_pid, tasks_here; /* the latter only on dump */
	size_t levels_outside; /* dump: how many pid namespaces are above that of the root, from criu's own on */
	size_t task_count, thread_count;
	struct namespace **namespaces; /* criu/namespaces */
	size_t namespace_count;
	int own_namespaces[NAMESPACE_TYPES]; /* restore: criu's own, to join; -1: not needed */
	struct file **files;		     /* sorted by id, which begin at 1 */
	size_t file_count;
	struct index *states; /* snapshot_state() */
	char run_id[37];      /* names what the dump has left in the network for the restore; "": nothing */
	bool is_of_another;   /* restore: made by another criu, which leaves out empty images */
	bool lacks_tables;    /* restore: a task has no descriptor table in the images */
	/*
	 * Restore, while files are opened: the root, which waits, calls `work` with a copy of the bytes, which comes back.
	 * It returns the result of `work`. The root has criu's memory as it was at the birth of the root: restore/root.c.
	 */
	int (*ask_root)(struct snapshot *snapshot, int (*work)(void *bytes), void *bytes, size_t size);
};

void snapshot_init(struct snapshot *snapshot);
void snapshot_free(struct snapshot *snapshot);

/* The state that one module keeps for a snapshot, and that no other module knows. */
struct state_type {
	size_t size;
	void (*clear)(void *state); /* frees what the state points to; NULL: nothing */
};
/* Returns the state, which belongs to the snapshot. It is created zeroed at the first call. */
void *snapshot_state(const struct snapshot *snapshot, const struct state_type *type);

/*
 * A new task at the end of the list and among the children of `parent` (NULL: the root), by its name, or by the id that
 * it has here. The latter gets its name later.
 */
struct task *snapshot_add_task(struct snapshot *snapshot, struct task *parent, pid_t pid);
struct task *snapshot_add_task_here(struct snapshot *snapshot, struct task *parent, pid_t here);
void snapshot_name_task(struct snapshot *snapshot, struct task *task, pid_t pid);
/* The task has no children, and nothing of it has been read yet. */
void snapshot_forget_task(struct snapshot *snapshot, struct task *task);
struct task *snapshot_find_task(const struct snapshot *snapshot, pid_t pid);
struct task *snapshot_find_task_here(const struct snapshot *snapshot, pid_t here);
/* For messages of code that both journeys use: pids.h. */
static inline pid_t task_shown_id(const struct task *task)
{
	return task->here ?: task->pid;
}

/* The task of a thread; looks at all threads, if `tid` is no leader. */
struct task *snapshot_find_thread(const struct snapshot *snapshot, pid_t tid);
struct task *snapshot_find_thread_here(const struct snapshot *snapshot, pid_t here);
/* Dump: the name of a thread, process, group or session that the kernel tells to criu. 0: the tree has none for it. */
pid_t snapshot_name_of(const struct snapshot *snapshot, pid_t here);
void task_sort_descriptors(struct task *task); /* by number: task_find_descriptor() relies on it */
struct descriptor *task_find_descriptor(const struct task *task, int fd); /* NULL: there is none */
/* The first number in the table that is of this file; -1: there is none. Goes through the table. */
int task_number_of(const struct task *task, const struct file *file);
/* A new file with the next id and an empty entry. */
struct file *snapshot_add_file(struct snapshot *snapshot, uint32_t id);
struct file *snapshot_find_file(const struct snapshot *snapshot, uint32_t id);

/* Sets file->holder and holder_fd. To be called when all tasks have their descriptors. */
void snapshot_note_holders(struct snapshot *snapshot);

#define for_each_task(task, snapshot) list_for_each (task, &(snapshot)->tasks, link)
/* The leaders of objects of a kind: each address space, descriptor table, … once; also the empty ones of dead tasks. */
#define for_each_leader(task, snapshot, kind) \
	for_each_task (task, snapshot)        \
		if (!task_leads(task, kind))  \
			continue;             \
		else

#endif
