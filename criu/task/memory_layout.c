/*
 * memory_layout.c - the kernel's record of where code, data, heap, stack, arguments, environment and auxv of a process
 * are; its executable (set by the restorer with the same call); dumpable, and transparent huge pages for the whole
 * process.
 *
 * prctl(PR_SET_MM, PR_SET_MM_MAP) sets all of it at once (Linux 3.18) and needs no CAP_SYS_RESOURCE, unlike its
 * variants that set one field. Changing the executable needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
 */
#include <errno.h>
#include <linux/prctl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include "base/error.h"
#include "base/io.h"
#include "image/message.h"
#include "kernel_constants.h"
#include "task/part.h"

struct asked {
	call_handle heap_end, dumpable, huge_pages, denial, merging;
};

static int memory_layout_look(struct snapshot *snapshot unused, struct task *task, size_t thread unused,
			      const struct thread_facts *facts unused)
{
	autofree char *auxv = NULL;
	struct proc_stat stat;
	ssize_t length;
	MmEntry *mm;

	if (proc_read_stat(task->proc, &stat))
		return -EINVAL;
	mm = task->space->mm = message_new(MmEntry, mm_entry);
	mm->mm_start_code = stat.start_code;
	mm->mm_end_code = stat.end_code;
	mm->mm_start_data = stat.start_data;
	mm->mm_end_data = stat.end_data;
	mm->mm_start_stack = stat.start_stack;
	mm->mm_start_brk = stat.start_brk;
	mm->mm_arg_start = stat.arg_start;
	mm->mm_arg_end = stat.arg_end;
	mm->mm_env_start = stat.env_start;
	mm->mm_env_end = stat.env_end;
	length = read_text_at(task->proc, "auxv", &auxv);
	if (length < 0)
		return fail(-length, "cannot read /proc/PID/auxv");
	/* The kernel adds the pair AT_NULL at the end; criu 4.2 takes an image that contains it for corrupt. */
	mm->n_mm_saved_auxv = length / sizeof(uint64_t);
	while (mm->n_mm_saved_auxv >= 2 && !((uint64_t *)(void *)auxv)[mm->n_mm_saved_auxv - 2])
		mm->n_mm_saved_auxv -= 2;
	mm->mm_saved_auxv = copy_bytes(auxv, mm->n_mm_saved_auxv * sizeof(uint64_t));
	return 0;
}

static void *memory_layout_ask(const struct snapshot *snapshot unused, const struct task *task unused,
			       size_t thread unused, struct call_list *calls)
{
	struct asked *asked;

	asked = allocate(sizeof(*asked));
	asked->heap_end = add_call(calls, "ask for the end of the heap", SYS_brk, 0);
	asked->dumpable = add_call(calls, "ask whether it is dumpable", SYS_prctl, PR_GET_DUMPABLE);
	asked->huge_pages = add_call(calls, "ask whether huge pages are off", SYS_prctl, PR_GET_THP_DISABLE);
	asked->denial = add_call(calls, "ask whether memory may be writable and executable", SYS_prctl,
				 PR_GET_MDWE);
	asked->merging = add_call(calls, "ask whether all its memory may be merged", SYS_prctl,
				  PR_GET_MEMORY_MERGE);
	return asked;
}

static int memory_layout_hear(const struct snapshot *snapshot unused, struct task *task, size_t thread,
			      const struct call_list *calls, const void *state)
{
	TaskCoreEntry *core = task->cores[thread]->tc;
	const struct asked *asked = state;
	long disabled, denial;

	disabled = calls_result(calls, asked->huge_pages);
	if (disabled > 1)
		message_set(core, thp_disable, disabled);
	denial = calls_result(calls, asked->denial);
	if (denial > 0)
		message_set(core, deny_write_exec, denial);
	if (calls_result(calls, asked->merging) > 0)
		message_set(core, merges_memory, true);
	task->space->mm->mm_brk = calls_result(calls, asked->heap_end);
	message_set(task->space->mm, dumpable, calls_result(calls, asked->dumpable));
	message_set(task->space->mm, thp_disabled, disabled > 0);
	return 0;
}

static int memory_layout_check(const struct snapshot *snapshot unused, const struct task *task,
			       size_t thread unused)
{
	if (task->space->mm->n_mm_saved_auxv > 64)
		return fail(EINVAL, "the mm image has %zu words of auxv, more than any kernel has",
			    task->space->mm->n_mm_saved_auxv);
	return 0;
}

/*
 * A newborn may have inherited from criu that all its memory may be merged (KSM). Undoing that changes the advice of
 * each mapping. So it happens before the mappings get their own advice, which is in the list of calls for the address
 * space.
 */
static int memory_layout_prepare(const struct snapshot *snapshot unused, const struct task *task)
{
	if (!task->cores[0]->tc->merges_memory && prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) > 0 &&
	    prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0) < 0)
		return fail(errno, "cannot stop merging its memory");
	return 0;
}

/*
 * KSM for all present and future mappings. This changes the advice of each mapping, so mappings that were excluded are
 * excluded again.
 */
static void make_merging(const struct task *task, struct call_list *calls)
{
	add_call(calls, "merge its memory", SYS_prctl, PR_SET_MEMORY_MERGE, 1);
	for (size_t i = 0; i < task->space->vmas.count; i++) {
		const struct vma *vma = &task->space->vmas.items[i];

		if (vma->status & (VMA_ANON_PRIVATE | VMA_FILE_PRIVATE) &&
		    !(vma->status & (VMA_VSYSCALL | VMA_VDSO | VMA_VVAR | VMA_GUARD_RANGE)) &&
		    !(vma->flags & MAP_HUGETLB) && !(vma->advice >> MADV_MERGEABLE & 1))
			add_call(calls, "do not merge a mapping", SYS_madvise, vma->start, vma_length(vma),
				 MADV_UNMERGEABLE);
	}
}

static void memory_layout_make(const struct snapshot *snapshot unused, const struct task *task, size_t thread,
			       struct call_list *calls)
{
	const TaskCoreEntry *core = task->cores[thread]->tc;
	const MmEntry *mm = task->space->mm;
	struct prctl_mm_map map;

	map = (struct prctl_mm_map){
		.start_code = mm->mm_start_code,
		.end_code = mm->mm_end_code,
		.start_data = mm->mm_start_data,
		.end_data = mm->mm_end_data,
		.start_brk = mm->mm_start_brk,
		.brk = mm->mm_brk,
		.start_stack = mm->mm_start_stack,
		.arg_start = mm->mm_arg_start,
		.arg_end = mm->mm_arg_end,
		.env_start = mm->mm_env_start,
		.env_end = mm->mm_env_end,
		.auxv_size = mm->n_mm_saved_auxv * sizeof(uint64_t),
		.exe_fd = task->exe_fd,
	};
	map.auxv = (void *)calls_bytes(calls, mm->mm_saved_auxv, map.auxv_size);
	add_call(calls, "set the memory layout and the executable", SYS_prctl, PR_SET_MM, PR_SET_MM_MAP,
		 calls_bytes(calls, &map, sizeof(map)), sizeof(map));
	if (mm->thp_disabled) /* the bits above the first are flags */
		add_call(calls, "turn huge pages off", SYS_prctl, PR_SET_THP_DISABLE, 1,
			 core->thp_disable & ~1u);
	else if (mm->has_thp_disabled &&
		 prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) > 0) /* criu's own, inherited */
		add_call(calls, "turn huge pages on", SYS_prctl, PR_SET_THP_DISABLE, 0);
	if (core->merges_memory)
		make_merging(task, calls);
	if (core->has_deny_write_exec) /* irrevocable; existing mappings do not change */
		add_call(calls, "forbid memory that is writable and executable", SYS_prctl, PR_SET_MDWE,
			 core->deny_write_exec);
}

/*
 * A change of ids has cleared it. 2 comes from a kernel with fs.suid_dumpable=2 and cannot be set: 0 protects as much.
 */
static void memory_layout_finish(const struct snapshot *snapshot unused, const struct task *task,
				 size_t thread unused, struct call_list *calls)
{
	add_call(calls, "set dumpable", SYS_prctl, PR_SET_DUMPABLE,
		 !task->space->mm->has_dumpable || task->space->mm->dumpable == 1);
}

const struct task_part part_memory_layout = {
	.name = "memory layout",
	.is_of_object = true,
	.object = OBJECT_MEMORY,
	.look = memory_layout_look,
	.ask = memory_layout_ask,
	.hear = memory_layout_hear,
	.check = memory_layout_check,
	.prepare = memory_layout_prepare,
	.make = memory_layout_make,
	.finish = memory_layout_finish,
};
