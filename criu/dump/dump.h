/*
 * dump.h - the state of one dump, and its steps. The table is in dump.c; each step is in the file named here.
 */
#ifndef CRIU_DUMP_DUMP_H
#define CRIU_DUMP_DUMP_H

#include "base/steps.h"
#include "base/time.h"
#include "compiler.h"
#include "memory/aio.h"
#include "memory/delta.h"
#include "memory/held.h"
#include "memory/stream.h"
#include "model/request.h"
#include "model/snapshot.h"

/* criu's own set of cgroups (inventory.img: root_cg_set), see cgroups.c. */
#define DUMP_OWN_CGROUPS 1
/* In inventory.img, the id of each object that is criu's own. */
#define DUMP_OWN_ID 1

struct apart_look;  /* apart.c */
struct areas_look;  /* areas.c */
struct cgroup_sets; /* cgroups.c */

/*
 * reserve.c: buffers for the pages of one process, which are written to the images after the processes continue. All
 * zero: there are none, and pages are written while others are read.
 */
struct page_reserve {
	pid_t here;	/* … of this process */
	uint64_t pages; /* that it has to save, as far as they were known before the freeze */
	struct stream_reserve buffers;
	struct helper_thread *reader; /* reads half of the pages; NULL: none */
};

/* State that the steps that save memory share. */
struct dump_memory {
	struct increment increment;
	struct page_reserve reserve;
	struct held_writers held;
	struct pre_dump *pre_dump; /* pre_dump.c; NULL: this is none, or all is written */
	struct twins *twins;	   /* twin.c; NULL: there are none, or all is written */
	uint32_t next_pages_id;
	struct aio_lengths
		ring_lengths; /* rings.c; freed when the tasks run again, or are gone, because that takes a while */
	struct page_statistics pages, shared_pages;
	uint64_t began, ended; /* CLOCK_MONOTONIC, ns */
};

struct dump {
	const struct request *request;
	struct snapshot snapshot;
	struct dump_memory memory;
	struct step_times times;
	size_t own_descriptors;	     /* number of descriptors before any was opened for the tree */
	bool is_pre_dump;	     /* only memory, and the tree continues */
	struct cgroup_sets *cgroups; /* cgroups.c; NULL: the kernel has none */
	struct ahead *ahead;	     /* NULL: nothing was read ahead */
	struct apart_look *apart;    /* NULL: it has not begun, or has ended */
	struct areas_look *areas;    /* the same */
	uint64_t freeze_began, freeze_ended, thawed; /* CLOCK_MONOTONIC, ns */
	uint64_t sync_time;			     /* ns */
	/* kill.c: a process that watches over criu's last steps; 0: there is none */
	pid_t second;
	struct verdict *verdict;
	bool has_priority; /* priority.c: criu has the highest one */
	bool released;	   /* the tree runs, is stopped, or is gone: there is nothing left to thaw */
};

/* Each runs a whole dump or pre-dump. 0 or -errno, recorded. */
int dump_run(const struct request *request) must_check;
int pre_dump_run(const struct request *request) must_check;

/* Opens the directory of the previous snapshot, if there is one. 0 or -errno, recorded. */
int dump_open_previous(struct request *request) must_check;

/* A pre-dump that another one, or the dump, follows at once. */
struct round {
	uint64_t pages; /* that were saved */
	int keeping; /* what was written since then is known as long as this is open; -1: it is not tracked, or without it */
};
int pre_dump_round(const struct request *request, struct round *round) must_check;
/* precopy.c: --pre-rounds, then dump_once() */
int dump_after_rounds(const struct request *request) must_check;
int dump_once(const struct request *request) must_check;

/* freeze.c */
int dump_look_ahead(void *dump) must_check;
int dump_freeze(void *dump) must_check;
int dump_name_tasks(struct snapshot *snapshot) must_check; /* names.c */
void dump_thaw(void *dump);
int dump_release(void *dump) must_check;
int dump_release_early(void *dump) must_check;
/* priority.c: criu comes before other programs while the processes are frozen */
void dump_raise_priority(struct dump *dump);
void dump_restore_priority(struct dump *dump);
/* Does the tree run on as soon as its memory has been read? */
bool dump_tree_runs_on(const struct dump *dump);
/* Lists the victims of all traced tasks, and returns their number. `victims` has room for all tasks. */
size_t dump_list_victims(const struct dump *dump, struct victim **victims);
/* kill.c: prepares to kill all processes of the tree; undoes that; kills them. */
int dump_prepare_kill(struct dump *dump) must_check;
void dump_abandon_kill(struct dump *dump);
int dump_kill(struct dump *dump) must_check;

/* end.c: effects of the kernel on a dying process must not be visible */
int dump_prepare_end(void *dump) must_check;
void dump_withdraw_end(void *dump);
/* look.c: what is visible from outside */
int dump_look(void *dump) must_check;
void dump_end_look(void *dump);
TaskKobjIdsEntry *dump_make_ids(const struct task *task); /* NULL: criu's own */
/* sharing.c: what processes have in common */
int dump_find_shared(struct dump *dump) must_check;
int dump_check_sharing(struct dump *dump) must_check;
/*
 * apart.c: state that a process or thread does not share, looked for in parallel with what follows.
 */
int dump_begin_apart(struct dump *dump) must_check;
/* Waits until all processes have been looked at. True: the dump will be refused, before anything is touched. */
bool dump_processes_are_apart(const struct dump *dump);
/* `result`: of what was done meanwhile; refusals are reported if it is 0. Does nothing if it has ended already. */
int dump_end_apart(struct dump *dump, int result) must_check;
/* cgroups.c */
int dump_open_cgroups(void *dump) must_check;
void dump_close_cgroups(struct dump *dump);
/* The id of the set for a text of /proc/PID/cgroup; and can a process in it have threads in other cgroups? */
int cgroup_sets_find(struct cgroup_sets *sets, const char *text, uint32_t *id, bool *threads_may_differ)
	must_check;
/* The CPUs that threads in the set may run on. NULL: not known. */
const struct cpus *cgroup_sets_cpus(const struct cgroup_sets *sets, uint32_t id);
int dump_save_cgroups(struct dump *dump) must_check;
/* ahead.c: reads the mappings of large processes before the freeze, and checks afterwards that they have not changed */
int dump_read_ahead(void *dump) must_check;
/* The processes of the running tree at this moment; some may be missing. */
void dump_list_tree(pid_t root, pid_t **pids, size_t *count);
bool dump_take_areas_ahead(struct dump *dump, struct task *task,
			   struct page_runs *guards); /* into task->space->vmas */
void dump_forget_ahead(void *dump);
/* areas.c: describes the mappings */
int dump_read_areas(int proc, struct vmas *vmas, struct page_runs *guards) must_check;
int dump_read_all_areas(struct dump *dump) must_check; /* task->space->vmas of all tasks, not described yet */
/* The same, in parallel with what is between the two. */
void dump_begin_areas(struct dump *dump);
int dump_end_areas(struct dump *dump) must_check; /* the result; nothing, if it has been called already */
int dump_describe_areas(struct dump *dump, struct task *task) must_check;
int dump_describe_opened_areas(struct dump *dump) must_check; /* when all open files are known */
void dump_area_entries(struct task *task);		      /* into task->space->mm */
/* foresee.c: could it be restored here? Refuses if the processes are going to end */
void dump_foresee_limits(struct dump *dump);
int dump_foresee(void *dump) must_check;
/* ask.c: what only the tasks themselves can tell */
int dump_ask(void *dump) must_check;
void dump_leave(void *dump);
/* undo.c: semaphores that the kernel would change at their end */
int dump_look_for_undo(void *dump) must_check;
/* rings.c: AIO rings; mappings of an io_uring, and of the rings of packet sockets */
bool dump_is_of_io_uring(const struct vma *vma);
int dump_complete_requests(struct dump *dump) must_check;   /* of an io_uring: before files are looked at */
int dump_describe_ring_areas(struct dump *dump) must_check; /* when all open files are known */
int dump_describe_ring(const struct dump *dump, const struct task *task, struct vma *vma) must_check;
int dump_settle_rings(void *dump) must_check;
bool dump_is_quiet(struct dump *dump, struct task *task); /* for a pre-dump */
void dump_ring_entries(struct task *task);
/* reserve.c */
int dump_reserve_pages(void *dump) must_check;
void dump_drop_reserve(void *dump);
/* memory.c */
int dump_memory(void *dump) must_check;
int dump_memory_of_twins(void *dump) must_check; /* the rest, when the processes run */
int dump_shared_memory(struct dump *dump) must_check;
/* `later`: the processes run when the pages are written; NULL: they are frozen. */
struct page_buffers {
	char *memory; /* see struct stream_file; NULL: the writer's own */
	size_t size;
};
int dump_open_writer(struct dump *dump, const struct task *task, const struct page_buffers *later,
		     struct page_writer **writer) must_check;
/* Writes the pages of a mapping that a plan (page_runs_plan()) does not leave to the parent … */
int dump_save_plan(const struct dump *dump, struct page_writer *writer, const struct page_runs *plan,
		   const struct vma *vma, page_source *source, void *from) must_check;
/* … and those that a scan has found; both lists are used up. */
int dump_area_pages(const struct dump *dump, struct page_writer *writer, struct task_delta *delta,
		    const struct vma *vma, struct page_runs *changed, struct page_runs *unchanged) must_check;
/* pre_dump.c: in two parts, during the freeze and after it */
bool dump_splices(const struct dump *dump); /* --pre-dump-mode */
int pre_dump_look(void *dump) must_check;
int pre_dump_scan(void *dump) must_check;
void pre_dump_forget(void *dump);
int pre_dump_save(void *dump) must_check;
/* save.c */
int dump_save_files(void *dump) must_check;
int dump_save_tasks(void *dump) must_check;
int dump_complete(void *dump) must_check;
/* stats-dump in the work directory; also on standard output with --display-stats */
int dump_save_statistics(struct dump *dump) must_check;

#endif
