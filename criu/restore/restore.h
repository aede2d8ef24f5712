/*
 * restore.h - the state of one restore, and its steps. The table is in restore.c; each step is in the file named here.
 */
#ifndef CRIU_RESTORE_RESTORE_H
#define CRIU_RESTORE_RESTORE_H

#include "base/steps.h"
#include "blobs/restorer/restorer.h"
#include "calls.h"
#include "compiler.h"
#include "inventory.pb-c.h"
#include "memory/pages.h"
#include "memory/stack.h"
#include "model/request.h"
#include "model/snapshot.h"

#define REGION_ROOM \
	0x40000000ULL /* at the start of the refuge, for the restorer: 1 GiB of addresses, little of it used */
#define REFUGE_GAP \
	0x200000 /* between mappings that wait in the refuge: more than the kernel's stack guard gap */

#define VDSO_ROOM 0x200000 /* … behind it, for the vdso */

/* Newborns wait for each other: criu opens a stage when all have reached the end of the one before. */
enum stage {
	STAGE_BIRTH,  /* tasks are created, with their memory, sessions and groups */
	STAGE_SETTLE, /* all pids exist: tasks join groups, descriptors get their owners */
	STAGE_BURY,   /* zombies die, and stand-ins for dead group leaders end */
	STAGE_LEAVE,  /* each leaves criu's code for its own address space (leave.c); threads are created */
};

/* The kernel's own parts of an address space: [vvar], [vvar_vclock] (Linux 6.13), [vdso], adjacent in this order. */
struct vdso {
	uint64_t start, vdso, end; /* all of it; start of [vdso]. 0: none */
	uint64_t pieces[8];	   /* start of each */
	size_t piece_count;
};

/* State of a task while it is being restored: task->newborn. */
struct newborn {
	struct page_stack memory;
	unsigned generation;	    /* number of ancestors in the tree */
	unsigned generations_below; /* 0: it has no children */
	pid_t initial_session;	    /* the session it has to be created in; 0: any */
	pid_t stand_in;		    /* group for whose dead leader it creates a stand-in; 0: none */
	uint64_t refuge_used;	    /* bytes of the refuge that mappings of this task use so far */
	struct vdso vdso;	    /* where the kernel has mapped it in the newborn */
	uint64_t vdso_park;	    /* its place while criu is unmapped */
	uint64_t vdso_place;	    /* its final place; 0: the task has none */
	uint64_t old_vdso;	    /* vdso of another kernel, now ordinary memory; 0: it is this kernel's */
	const struct file *mapped;  /* the file that was opened last to be mapped; NULL: none */
	bool is_mapped_shared;
	int mapped_fd;
	struct life *life, *stand_in_life; /* lives.h: shared by all */
	struct gate *gates[OBJECT_KINDS]; /* gates.h: shared by all; NULL: it shares no object of this kind */
	size_t user_number[OBJECT_KINDS]; /* its index among the users of the object */
	size_t users_known[OBJECT_KINDS]; /* in the leader, while users are numbered: how many there are so far */
	uint32_t baton;			  /* see baton.h; used in the leader of shared memory */
	struct cgroup_set *cgroups,
		**thread_cgroups; /* cgroups.c; of a thread: NULL if it is in those of its process */
	struct call_list space;
	struct call_list *self; /* for each thread */
	uint64_t region;
	bool waits; /* its last calls are made at the very end: hand_over.c */
};

/* While the root waits (root.c): descriptors that it shares with criu; -1: none. */
struct wait {
	int letter;
	int awake;  /* an eventfd: the letter is written, or there is an errand (enum wake) */
	int answer; /* an eventfd: the errand is done */
	int criu;   /* a pidfd */
};

/* What all newborns have done so far; each adds its own part. */
struct newborn_work {
	uint64_t pages; /* of private memory, restored */
	uint64_t time;	/* ns that this took; many may do it at the same time */
};

struct restore {
	const struct request *request;
	struct snapshot snapshot;
	struct page_chain *chain; /* snapshot.images and its parents */
	struct cgroups *cgroups;
	struct index ids; /* all ids that the tree needs: pids.c */
	struct restorer_board *board;
	struct page_statistics pages;
	uint64_t pages_restored;	   /* of shared memory, restored by criu itself */
	struct newborn_work *newborns;	   /* behind the board */
	const struct held_memory *held;	   /* held.h: of these images; NULL: none is */
	uint64_t refuge_start, refuge_end; /* addresses where no task will have a mapping */
	uint64_t regions_size; /* at the start of the refuge: REGION_ROOM for each user of an address space */
	bool has_spawned, all_are_born, is_running;
	uint64_t began, forked;
	struct step_times times;
	pid_t criu;   /* criu; in the middle process and the root: the middle process */
	pid_t middle; /* parent.c; 0: none */
	struct life *middle_life;
	struct wait wait;
	int root;	/* a pidfd, if it is criu's sibling; -1 */
	pid_t watchdog; /* watchdog.c; 0: none */
};

/*
 * The distance between places where a mapping may wait, relative to its own place. For huge pages: the range that one
 * page table of them covers. mremap() skips missing tables, and with any other distance would lose what follows them
 * (seen on Linux 6.18).
 */
static inline uint64_t refuge_step(const struct vma *vma)
{
	return vma->flags & MAP_HUGETLB ? vma_page_size(vma) * 512 : PAGE_SIZE;
}

/*
 * Runs the whole restore. 0 or -errno, recorded; criu may then become the command of the request, or wait until the
 * root ends.
 */
int restore_run(const struct request *request) must_check;

/* For its first steps, by held.c. */
void restore_init(struct restore *restore, const struct request *request);

/*
 * The address of the task's region for the restorer. Tasks that share an address space have their regions side by side.
 */
static inline uint64_t region_of(const struct restore *restore, const struct task *task)
{
	return restore->refuge_start + task->newborn->user_number[OBJECT_MEMORY] * REGION_ROOM;
}

/*
 * The task whose memory a newborn has at first: the leader of its creator's address space. NULL: it has criu's memory.
 */
static inline const struct task *memory_origin(const struct task *task)
{
	return task->creator && task->creator->state != TASK_DEAD ? task->creator->space->object.leader :
								    NULL;
}

/* load.c: reads everything; check.c: can everything be restored here? */
int restore_load(void *restore) must_check;
int restore_check(void *restore) must_check;
/* check.c: addresses that are free in every task and in criu itself */
int restore_find_room(const struct restore *restore, uint64_t size, uint64_t *start) must_check;
/* pids.c: checks that the pids are free, and plans sessions and groups; explains why an id is not available */
int restore_check_pids(struct restore *restore) must_check;
int fail_for_taken_id(const char *what, pid_t id) must_check;
/* Does the tree need it? Then no process or thread of criu's own may keep it. */
bool restore_needs_id(const struct restore *restore, pid_t id);
/* huge.c: does this host have the huge pages (hugetlb) that they need? */
int restore_check_huge_pages(const struct snapshot *snapshot, struct page_chain *chain) must_check;
/* cgroups.c */
int restore_load_cgroups(struct restore *restore, const InventoryEntry *inventory) must_check;
int restore_check_cgroups(struct restore *restore) must_check;
void restore_close_cgroups(struct restore *restore);
/*
 * The cgroup that the task is created in (version 2): a directory, or -1: the parent's. The second function explains
 * why that failed.
 */
int cgroups_open_birthplace(const struct restore *restore, const struct task *task, int *directory)
	must_check;
int cgroups_explain_birth(const struct restore *restore, const struct task *task, int error) must_check;
int cgroups_join(const struct restore *restore, const struct task *task) must_check; /* in the newborn */
int restore_move_threads(void *restore) must_check;
/* files and shared memory, in criu itself */
void restore_close_files(void *restore);
/* root.c: the root is born first, and waits while criu makes namespaces and opens files */
int restore_create_root(void *restore) must_check;
uint64_t root_birth_flags(const struct restore *restore);
/* Meanwhile: does a part of that work. If the root has died, its death is the failure. */
int root_work_for(struct restore *restore, int (*work)(struct restore *)) must_check;
/* Meanwhile, through snapshot->ask_root. */
int root_ask(struct snapshot *snapshot, int (*work)(void *bytes), void *bytes, size_t size) must_check;
int root_wake(struct restore *restore) must_check;
void root_forget_wait(struct restore *restore);	    /* it is over */
int root_await(struct restore *restore) must_check; /* in the root */
/* spawn.c: creates the tree and drives it through the stages */
int restore_spawn(void *restore) must_check;
void restore_kill(void *restore);
int restore_settle(void *restore) must_check;
int restore_rebuild(void *restore) must_check;
pid_t spawn_task(struct restore *restore, struct task *task) must_check;
void die_with_parent(const struct restore *restore, const struct task *task);
/* The arguments of clone3(). */
struct clone_plan {
	const pid_t *pids; /* its pids, one for each pid namespace, the innermost first … */
	size_t levels;	   /* … and how many of these criu chooses */
	uint64_t flags;
	int exit_signal; /* must be 0 with CLONE_PARENT: it is that of the creator */
	int cgroup;	 /* a directory of version 2, or -1 */
	int *pidfd;	 /* for CLONE_PIDFD */
	/*
	 * With CLONE_VM: the child calls this on the given stack (`stack` is its lowest address), and does not return.
	 */
	void (*live)(void *);
	void *argument, *stack;
	size_t stack_size;
};
/* A raw clone3(): 0 in the child. -1 and errno. If one of the pids is in use, it waits for a moment. */
long clone_with_pids(const struct clone_plan *plan) must_check;
/* A process of criu's own. Its id is not one that the tree needs. Returns as clone_with_pids(). */
pid_t spawn_own(const struct restore *restore, uint64_t flags) must_check;
/* watchdog.c: kills the root if criu dies, where the kernel would not */
int watchdog_begin(struct restore *restore) must_check; /* if the root is criu's sibling */
void watchdog_end(struct restore *restore);
/* parent.c: the root gets another parent than criu, if the end of criu would have effects on it */
bool parent_is_needed(const struct restore *restore);
int parent_spawn(struct restore *restore) must_check; /* the root */
void parent_leave(struct restore *restore);	      /* leaves the root to be adopted, but not by criu */
void parent_end(struct restore *restore);
/* uring_threads.c: the rings that the process makes itself */
int uring_threads_make(struct restore *restore, struct task *task) must_check;
/* stop.c: tasks that were stopped, and what their parents are told */
int stop_again(struct task *task) must_check;
void stop_hush(const struct task *task, struct call_list *calls); /* of the parent */
/* newborn.c: runs in the newborn */
void newborn_main(struct restore *restore, struct task *task) does_not_return;
/* Tells criu that a failure has been recorded, and ends. */
void newborn_give_up(struct restore *restore) does_not_return;
void newborn_leave(struct restore *restore, struct task *task); /* leave.c; returns only if it has failed */
/* space.c: a task's memory, in the newborn */
int space_build(struct restore *restore, struct task *task) must_check;
void space_renew(struct task *task); /* renew.c */
void space_plan(struct restore *restore, struct task *task, struct call_list *calls);
/* thread_files.c: files about threads, when all threads exist and are stopped */
int thread_files_place(const struct restore *restore, struct task *task) must_check;
/* hand_over.c: registers, and let go */
int restore_trace(void *restore) must_check;
int restore_hand_over(void *restore) must_check;
int restore_release(void *restore) must_check;

/* In criu: until so many have arrived. */
int board_wait_for(struct restore *restore, size_t count) must_check;
void board_arrive(struct restorer_board *board);
void board_wait_for_stage(struct restorer_board *board, enum stage stage);

#endif
