/*
 * pre_dump.c - the memory of a pre-dump. While the tasks are frozen, their pages are only listed, and a tracker starts.
 * The pages are read when the tasks run again.
 *
 * With --pre-dump-mode splice, the tasks put their pages into pipes while they are frozen, and criu reads the pages
 * from the pipes.
 *
 * So a page may be written while it is read, or may be gone by then. Neither does harm: a pre-dump is never restored,
 * and the next snapshot leaves to it only pages that have not been written since the tasks ran again. Those were read
 * unchanged.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "dump/dump.h"
#include "dump/listed.h"
#include "ipc/ipc.h"
#include "memory/saving.h"
#include "memory/spliced.h"

/* The data for one task. */
struct pre_dumped {
	struct listed_memory listed;
	struct spliced spliced;
};

struct pre_dump {
	struct pre_dumped *tasks;
	size_t count;
	uint64_t splice_budget; /* pages that may still go into pipes */
};

int pre_dump_look(void *context)
{
	struct dump *dump = context;
	struct task *task;
	int result = dump_find_shared(dump) ?: ipc_collect(&dump->snapshot) ?: dump_read_all_areas(dump);

	if (result)
		return result;
	for_each_leader (task, &dump->snapshot, OBJECT_MEMORY) {
		if (!result && task->state != TASK_DEAD)
			result = dump_describe_areas(dump, task);
		if (result)
			return fail_in(result, "process %d (%s)", task->here, task->name);
	}
	dump_forget_ahead(dump);
	return result;
}

/*
 * The dump will save some mappings completely in any case (the vdso, AIO rings). Only another criu that continues the
 * chain needs them here: it expects every page that is not soft-dirty in the parent.
 */
static bool is_pre_dumped(const struct dump *dump, const struct vma *vma)
{
	enum vma_pages pages = vma_how_saved(vma)->pages;

	return pages == SAVE_OWN ||
	       (pages == SAVE_ALL && dump->memory.increment.tracker == &tracker_soft_dirty);
}

bool dump_splices(const struct dump *dump)
{
	return dump->request->splices;
}

/*
 * Only ordinary pages, of which none is swapped: vmsplice() would swap them in, and pages in a pipe cannot be swapped
 * out again.
 */
static bool can_be_spliced(const struct vma *vma)
{
	return vma_how_saved(vma)->is_noted && !vma->has_swapped;
}

/* Pages that have to be compared must be read first, because only then it is known which ones to save. */
static int splice_task(struct pre_dumped *pre_dumped, struct task *task, uint64_t *budget)
{
	struct listed_memory *listed = &pre_dumped->listed;
	struct page_runs wanted = { 0 };
	int result = 0;

	if (content_is_open(&listed->delta.content)) {
		log_info("process %d: its pages are not spliced but read, to compare them with the parent's",
			 task->here);
		return 0;
	}
	for (size_t i = 0; !result && i < listed->count; i++) {
		struct listed_area *area = &listed->areas[i];

		if (!can_be_spliced(area->vma))
			continue;
		area->source = pages_of_pipes;
		area->from = &pre_dumped->spliced;
		result = listed_plan(listed, area);
		for (size_t j = 0; j < area->plan.count; j++)
			if (!area->plan.items[j].layer)
				page_runs_add(&wanted, &area->plan.items[j]);
	}
	if (!result)
		result = spliced_take(&pre_dumped->spliced, task, &listed->delta.memory, &wanted, budget);
	page_runs_free(&wanted);
	return result;
}

static int scan_task(struct dump *dump, struct pre_dumped *pre_dumped, struct task *task)
{
	bool is_busy = !dump_is_quiet(dump, task);
	int result = listed_open(&pre_dumped->listed, dump, task, is_pre_dumped) ?:
			     listed_scan_all(dump, &pre_dumped->listed);

	pre_dumped->listed.delta.is_busy = is_busy;
	if (!result && dump_splices(dump))
		result = splice_task(pre_dumped, task, &dump->memory.pre_dump->splice_budget);
	return result ?: increment_begin_notes(&dump->memory.increment, &pre_dumped->listed.delta);
}

int pre_dump_scan(void *context)
{
	struct dump *dump = context;
	struct pre_dump *pre_dump = allocate(sizeof(*pre_dump));
	struct task *task;

	increment_look_again(&dump->memory.increment);
	pre_dump->tasks = allocate_array(dump->snapshot.task_count, sizeof(*pre_dump->tasks));
	if (dump_splices(dump))
		pre_dump->splice_budget = spliced_budget();
	dump->memory.pre_dump = pre_dump;
	for_each_leader (task, &dump->snapshot, OBJECT_MEMORY) {
		int result = 0;

		if (task->state != TASK_DEAD)
			result = scan_task(dump, &pre_dump->tasks[pre_dump->count++], task);
		if (result)
			return fail_in(result, "process %d (%s)", task->here, task->name);
	}
	return 0;
}

static int save_pre_dumped(struct dump *dump, struct pre_dumped *pre_dumped)
{
	const struct page_buffers own = { 0 };
	struct page_writer *writer;
	int result = dump_open_writer(dump, pre_dumped->listed.delta.task, &own, &writer);

	pre_dumped->listed.delta.memory.is_running = true;
	result = result ?: listed_save(dump, &pre_dumped->listed, writer);
	spliced_close(&pre_dumped->spliced);
	return page_writer_close(writer, result);
}

int pre_dump_save(void *context)
{
	struct dump *dump = context;
	struct pre_dump *pre_dump = dump->memory.pre_dump;
	int result = 0;

	dump->memory.began = monotonic_time();
	dump->memory.next_pages_id = 1;
	for (size_t i = 0; !result && i < pre_dump->count; i++) {
		const struct task *task = pre_dump->tasks[i].listed.delta.task;

		result = save_pre_dumped(dump, &pre_dump->tasks[i]);
		if (result)
			fail_in(result, "process %d (%s)", task->here, task->name);
	}
	result = result ?: dump_shared_memory(dump);
	dump->memory.ended = monotonic_time();
	return result;
}

static void forget_task(struct pre_dumped *pre_dumped)
{
	spliced_close(&pre_dumped->spliced);
	listed_free(&pre_dumped->listed);
}

void pre_dump_forget(void *context)
{
	struct dump *dump = context;
	struct pre_dump *pre_dump = steal_pointer(&dump->memory.pre_dump);

	if (!pre_dump)
		return;
	for (size_t i = 0; i < pre_dump->count; i++)
		forget_task(&pre_dump->tasks[i]);
	free(pre_dump->tasks);
	free(pre_dump);
}
