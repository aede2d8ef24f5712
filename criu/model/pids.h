/*
 * pids.h - the ids of a thread, and so of a process, whose ids are those of its first thread.
 *
 * A thread has an id in each pid namespace that it is in. Two of them must not be confused:
 *
 *	here      in criu's own pid namespace. The only one for system calls of criu (ptrace, kill, wait, pidfd_open,
 *	          kcmp, sched_*, …), for /proc, and for a person who looks from outside.
 *	tid       its name in the pid namespace of the root of the tree. Images, and the names of their files, tell
 *	          this one …
 *	nested    … and its names in the pid namespaces below, if there are any, the outermost first. With these
 *	          ids it is made again, and these are what the tree itself knows.
 *
 * Who is in criu's own pid namespace has the same id twice. An example, seen by a criu outside of a container:
 *
 *	NSpid of the root:     4711  1           here 4711, tid 1
 *	of another process:    4722  9  1        here 4722, tid 9, nested { 1 }
 *
 * Sessions and groups are names, too: those of their leaders in the pid namespace of the root.
 *
 * Messages of a dump show `here`. A restore shows the name, because images have no other, and a process that could
 * not be restored has no other.
 */
#ifndef CRIU_MODEL_PIDS_H
#define CRIU_MODEL_PIDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "compiler.h"

#define PID_LEVELS_MOST 32 /* for clone3(); MAX_PID_NS_LEVEL of Linux */

struct pid_levels;
struct task;

struct thread {
	pid_t here; /* restore: 0 until pids are planned */
	pid_t tid;
	pid_t *nested; /* NULL: it is in no nested namespace */
	size_t nested_count;
};

/* The id that the thread itself sees. */
pid_t thread_own_id(const struct thread *thread);
/* The id that a task sees. 0: the thread is not in its namespace, but in one above. */
pid_t thread_id_seen_by(const struct thread *thread, const struct task *observer);
/*
 * Takes over what NSpid tells. `outside` of its numbers, the first ones, are of namespaces above that of the root. -1:
 * it has not more than these, or too many.
 */
int thread_set_names(struct thread *thread, const struct pid_levels *told, size_t outside) must_check;
/* The ids to ask clone3() for: the innermost first. Returns how many. */
size_t thread_wanted_ids(const struct thread *thread, pid_t ids[PID_LEVELS_MOST]);

/* For messages of code that both journeys use. */
static inline pid_t thread_shown_id(const struct thread *thread)
{
	return thread->here ?: thread->tid;
}

/* The threads of a process; [0] is set to the process itself. */
void task_make_threads(struct task *task, size_t count);
void task_forget_threads(struct task *task); /* all but the first: a zombie has no others */
void task_free_threads(struct task *task);
/* Has the process a thread that it knows by this id? */
bool task_has_thread(const struct task *task, pid_t own_id);
/* NULL: none of its threads has this id here. */
const struct thread *task_find_thread_here(const struct task *task, pid_t here);

/*
 * As images hold the nested ids: those of each thread in turn. All threads of a process have equally many. Returns
 * their number; 0: there are none, and *ids is NULL. The caller frees them.
 */
size_t task_nested_ids(const struct task *task, uint32_t **ids);
/* Why the ids of an image are invalid, or NULL: they have been taken over. */
const char *task_take_nested_ids(struct task *task, const uint32_t *ids, size_t count) must_check;

#endif
