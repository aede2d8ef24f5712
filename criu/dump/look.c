/*
 * look.c - collects everything about a frozen tree that is visible from outside, before anything in it is changed.
 * Refusals happen here: everything that cannot be saved is reported at once, and the tree continues.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include "arch/arch.h"
#include "base/error.h"
#include "base/memory.h"
#include "compel.h"
#include "dump/dump.h"
#include "files/kind.h"
#include "image/message.h"
#include "ipc/ipc.h"
#include "namespaces/kind.h"
#include "task/part.h"

TaskKobjIdsEntry *dump_make_ids(const struct task *task)
{
	TaskKobjIdsEntry *ids = message_new(TaskKobjIdsEntry, task_kobj_ids_entry);

	for (enum object_kind kind = 0; kind < OBJECT_KINDS; kind++)
		*ids_object(ids, kind) = task ? task_object(task, kind)->id : DUMP_OWN_ID;
	namespaces_add_ids(task, ids);
	return ids;
}

static int look_at_thread(struct dump *dump, struct task *task, size_t index)
{
	const struct traced_thread *thread = &task->victim->threads[index];
	CoreEntry *core = task->cores[index] = message_new(CoreEntry, core_entry);
	struct thread_context settled = thread->context;
	struct thread_facts facts = { .context = &settled };
	int result;

	core->thread_core = message_new(ThreadCoreEntry, thread_core_entry);
	if (!index)
		core->tc = message_new(TaskCoreEntry, task_core_entry);
	result = trace_settle_context((struct traced_thread *)thread, &settled) ?:
			 proc_read_thread_status(task->proc, thread->tid, &facts.status);
	if (thread->remaining)
		message_set(core->thread_core, timeout_left, thread->remaining);
	result = result ?: unless_refused(arch_save_registers(thread->tid, &settled, core));
	for (size_t i = 0; !result && i < task_part_count; i++)
		if (task_parts[i]->look && part_concerns(task_parts[i], task, index))
			result = unless_refused(task_parts[i]->look(&dump->snapshot, task, index, &facts));
	proc_status_free(&facts.status);
	return result;
}

static int look_at_dead(struct task *task)
{
	CoreEntry *core = message_new(CoreEntry, core_entry);
	TaskCoreEntry *tc = core->tc = message_new(TaskCoreEntry, task_core_entry);
	struct proc_stat stat;

	task->cores = allocate(sizeof(*task->cores));
	task->cores[0] = core;
	core->mtype = arch_image_type;
	if (proc_read_stat(task->proc, &stat))
		return -EINVAL;
	tc->task_state = TASK_DEAD;
	tc->exit_code = stat.exit_code;
	tc->comm = copy_text(stat.comm);
	if (stat.exit_signal != SIGCHLD)
		message_set(tc, exit_signal, stat.exit_signal);
	return 0;
}

static int look_at_task(struct dump *dump, struct task *task)
{
	int result = 0;

	if (task->state == TASK_DEAD)
		return look_at_dead(task);
	task->ids = dump_make_ids(task);
	task->cores = allocate_array(task->thread_count, sizeof(*task->cores));
	for (size_t i = 0; !result && i < task->thread_count; i++)
		result = look_at_thread(dump, task, i);
	if (!result && task_leads(task, OBJECT_MEMORY))
		result = dump_end_areas(dump) ?: dump_describe_areas(dump, task);
	return result;
}

/* Sessions and groups of leaders outside of the tree cannot be recreated, except the shell's own (--shell-job). */
static int check_session(const struct dump *dump)
{
	const struct task *root = dump->snapshot.root;
	const struct task *task;

	for_each_task (task, &dump->snapshot) {
		if (task->session == root->pid || snapshot_find_task(&dump->snapshot, task->session))
			continue;
		if (task->session == root->session && dump->request->policy.shell_job)
			continue;
		if (task->session == root->session) {
			fail_advice("--shell-job (-j), to restore it in the session where criu restore runs");
			return refuse(
				"process %d (%s): its session %d was not created by a process of the tree",
				root->here, root->name, root->session);
		}
		refuse("process %d (%s): its session %d belongs to no process of the tree", task->here,
		       task->name, task->session);
	}
	return 0;
}

static int look_at_tasks(struct dump *dump)
{
	struct task *task;

	for_each_task (task, &dump->snapshot) {
		int result = look_at_task(dump, task);

		if (result)
			return fail_in(result, "process %d (%s)", task->here, task->name);
	}
	return 0;
}

/* The threads are looked at while their mappings are read. */
static int look_inside(struct dump *dump)
{
	int result, read;

	dump_begin_areas(dump);
	result = namespaces_collect(&dump->snapshot) ?: ipc_collect(&dump->snapshot) ?: look_at_tasks(dump);
	read = dump_end_areas(dump);
	dump_forget_ahead(dump);
	return result ?: read;
}

int dump_look(void *context)
{
	struct dump *dump = context;
	int result = dump_begin_apart(dump);

	check_session(dump);
	result = result ?: dump_find_shared(dump) ?: look_inside(dump);
	result = result ?: dump_check_sharing(dump);
	result = result ?: dump_complete_requests(dump) ?: files_collect(&dump->snapshot);
	result = result ?: dump_describe_opened_areas(dump) ?: dump_describe_ring_areas(dump);
	result = result ?: ipc_look(&dump->snapshot);
	if (result || refusals() || dump_processes_are_apart(dump))
		result = dump_end_apart(dump, result); /* else when the threads have been asked */
	if (!result && !refusals())
		dump_foresee_limits(dump);
	if (!result && refusals())
		return -REFUSED;
	return result;
}

void dump_end_look(void *context)
{
	struct dump *dump = context;

	ignore(dump_end_apart(dump, -ECANCELED));
	files_let_go(&dump->snapshot, DUMP_FAILED);
}
