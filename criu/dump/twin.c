/*
 * twin.c - copies of processes keep their memory as it was, while the tree runs on and criu writes it.
 *
 * fork() copies the page tables: 20 us for each MiB in pages of 4 KiB (Linux 6.18). To read the memory and to write it
 * takes twenty times as long, so the tree is frozen for a twentieth of that time. The price is paid afterwards: as long
 * as the twin lives, each page that the process writes is copied first.
 *
 * The twin must be a child neither of the process nor of its parent. It becomes one of criu, in a pid namespace
 * that criu makes (twin_space.h): see blobs/parasite/twin.c.
 *
 * Not all memory is in the copy: mappings that are shared, or have MADV_DONTFORK or MADV_WIPEONFORK. Private huge pages
 * of hugetlbfs are taken away from a copy if there are no free ones. And the kernel writes to AIO rings. All of this is
 * read while the tree is frozen.
 *
 * If memory becomes scarce, the kernel kills a twin first: then the dump fails, and the tree is not hurt.
 */
#include "dump/twin.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "compel.h"
#include "core.pb-c.h"
#include "dump/listed.h"
#include "dump/twin_space.h"
#include "files/kinds/io_uring.h"
#include "kernel/memory_room.h"
#include "kernel/proc.h"
#include "memory/saving.h"
#include "memory/stream.h"
#include "memory/twin_pages.h"

/* Less is read faster than it is copied, and fits into buffers (reserve.c). */
#define WORTH_A_TWIN (32UL << 20)
/* What is read before the tree runs, of one process. */
#define MOST_READ_NOW (32UL << 20)
/* Reading a page takes this many times as long as copying its entry in the page table. */
#define READING_TO_FORKING 16

struct twin {
	struct task *task;
	struct listed_memory listed;
	struct twin_pages pages;
	struct page_writer *writer;
	bool is_possible;
	size_t space; /* its index */
	pid_t here;   /* 0: there is none */
};

struct twins {
	struct twin **items;
	size_t count;
	struct twin_spaces spaces;
	struct memory_room room;
	uint64_t promised; /* of the room, to those that are possible */
};

/* ---- which processes ---- */

static bool is_saved_here(const struct dump *dump unused, const struct vma *vma)
{
	enum vma_pages pages = vma_how_saved(vma)->pages;

	return pages == SAVE_OWN || pages == SAVE_ALL;
}

static bool is_read_now(const struct vma *vma)
{
	const uint64_t not_copied = 1ULL << MADV_DONTFORK | 1ULL << MADV_WIPEONFORK;

	return vma_how_saved(vma)->pages == SAVE_ALL || vma->flags & MAP_HUGETLB || vma->advice & not_copied;
}

static uint64_t count_copied(const struct task *task)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < task->space->vmas.count; i++) {
		const struct vma *vma = &task->space->vmas.items[i];

		if (vma_how_saved(vma)->pages == SAVE_OWN && !is_read_now(vma))
			bytes += vma->resident;
	}
	return bytes;
}

/* Half of the memory may be written until the twin has been read: more than any program writes in that time. */
static uint64_t count_needed(uint64_t copied)
{
	return copied / 2;
}

/* All twins are supposed to share the room, which is right for a tree in one cgroup, and careful for others. */
static bool has_room(struct twins *twins, const struct task *task, uint64_t copied)
{
	uint64_t room = memory_room_read(&twins->room, task->proc);
	uint64_t left = room - min(room, twins->promised);

	if (left >= count_needed(copied))
		return true;
	log_info("process %d: no twin, because only %llu MiB of memory are free", task->here,
		 (unsigned long long)left >> 20);
	return false;
}

/*
 * After a parent snapshot only what was written since is read. That is known (reserve.c) only of the process that has
 * written most.
 */
static uint64_t count_to_read(const struct dump *dump, const struct task *task, uint64_t copied)
{
	const struct page_reserve *reserve = &dump->memory.reserve;
	const struct tracker *tracker = dump->memory.increment.parent_tracker;

	if (!tracker || tracker == &tracker_content)
		return copied;
	return task->here == reserve->here ? reserve->pages * PAGE_SIZE : 0;
}

static bool is_wanted(const struct dump *dump, struct twins *twins, const struct task *task, uint64_t copied)
{
	enum twin_use use = dump->request->twin;
	uint64_t read = count_to_read(dump, task, copied);

	if (use == TWIN_ALWAYS)
		return true;
	return read >= WORTH_A_TWIN && read >= copied / READING_TO_FORKING && has_room(twins, task, copied);
}

/* ---- listing ---- */

/* A source: the pages that read_area() has read. */
static int pages_read_now(void *from, struct page_run *runs, size_t count, char *buffer)
{
	const struct listed_area *area = from;

	for (size_t i = 0; i < count; i++) {
		const struct page_run *read = &area->plan.items[page_runs_find(&area->plan, runs[i].start)];
		size_t size = runs[i].count * PAGE_SIZE;

		memcpy(buffer, (char *)area->bytes + read->offset + (runs[i].start - read->start), size);
		buffer += size;
	}
	return 0;
}

/* Gives each run that is saved its place in the bytes, and returns the size of all. */
static uint64_t place_runs(struct page_runs *plan)
{
	uint64_t size = 0;

	for (size_t i = 0; i < plan->count; i++) {
		struct page_run *run = &plan->items[i];

		if (run->layer)
			continue;
		run->offset = size;
		size += run->count * PAGE_SIZE;
	}
	return size;
}

/* 1: there is too much of it. */
static int read_area(const struct dump *dump, struct listed_memory *listed, struct listed_area *area,
		     uint64_t *budget)
{
	int result = listed_scan(dump, listed, area) ?: listed_plan(listed, area);
	uint64_t size = place_runs(&area->plan);

	area->source = pages_of_task;
	area->from = &listed->delta.memory;
	if (result || size > *budget)
		return result ?: 1;
	*budget -= size;
	area->bytes = allocate_array(size ?: 1, 1);
	for (size_t i = 0; i < area->plan.count && !result; i++) {
		struct page_run run = area->plan.items[i];

		if (!run.layer)
			result = pages_of_task(&listed->delta.memory, &run, 1,
					       (char *)area->bytes + run.offset);
	}
	area->source = pages_read_now;
	area->from = area;
	return result;
}

static int read_areas(const struct dump *dump, struct listed_memory *listed)
{
	uint64_t budget = MOST_READ_NOW;
	int result = 0;

	for (size_t i = 0; i < listed->count && !result; i++)
		if (is_read_now(listed->areas[i].vma))
			result = read_area(dump, listed, &listed->areas[i], &budget);
	return result;
}

/* Only the process itself knows which pages were written since the parent snapshot. Its twin has the same pages. */
static bool is_listed_now(const struct dump *dump)
{
	const struct increment *increment = &dump->memory.increment;

	return increment->parent_tracker || increment->tracker == &tracker_soft_dirty;
}

static void tell_why(const struct task *task, const char *reason)
{
	log_info("process %d: no twin: %s", task->here, reason);
}

/* NULL: the process cannot have one. */
static struct twin *new_twin(struct task *task)
{
	struct twin *twin = allocate(sizeof(*twin));
	struct attempt attempt;
	int result;

	twin->task = task;
	attempt_begin(&attempt);
	result = twin_pages_open(&twin->pages, STREAM_MEMORY);
	if (result) {
		tell_why(task, failure_text());
		twin_pages_close(&twin->pages);
		free(steal_pointer(&twin));
	}
	attempt_forget(&attempt);
	return twin;
}

/* How much is known of its memory decides whether it may have a twin; its pages are listed in any case. */
static int list(struct dump *dump, struct twin *twin)
{
	struct task *task = twin->task;
	struct page_buffers buffers;
	int result = listed_open(&twin->listed, dump, task, is_saved_here);

	if (!result) {
		buffers.memory = twin_pages_buffers(&twin->pages, &buffers.size);
		result = dump_open_writer(dump, task, &buffers, &twin->writer);
	}
	if (!result)
		result = read_areas(dump, &twin->listed);
	if (result > 0)
		log_info("process %d: no twin, because it would lack more than %lu MiB", task->here,
			 MOST_READ_NOW >> 20);
	twin->is_possible = !result;
	if (result >= 0 && is_listed_now(dump))
		result = listed_scan_all(dump, &twin->listed);
	twin->listed.delta.is_busy = io_uring_writes_to(&dump->snapshot, task);
	return result < 0 ? result : increment_begin_notes(&dump->memory.increment, &twin->listed.delta);
}

int twins_list(struct dump *dump, struct task *task)
{
	uint64_t copied;
	struct twins *twins;
	struct twin *twin;
	int result;

	if (dump->request->twin == TWIN_NEVER || !dump_tree_runs_on(dump))
		return 1;
	if (!dump->memory.twins)
		dump->memory.twins = allocate(sizeof(*dump->memory.twins));
	twins = dump->memory.twins;
	copied = count_copied(task);
	twin = is_wanted(dump, twins, task, copied) ? new_twin(task) : NULL;
	if (!twin)
		return 1;
	*grow(&twins->items, &twins->count) = twin;
	result = list(dump, twin);
	if (twin->is_possible)
		twins->promised += count_needed(copied);
	return result;
}

/* ---- making them ---- */

static bool is_in_own_namespace(const struct task *task, const char *name)
{
	autofree char *path = format_text("/proc/self/%s", name);
	struct stat own, its;

	return !stat(path, &own) && !fstatat(task->proc, name, &its, 0) && own.st_ino == its.st_ino;
}

static bool has_child_signal(const struct task *task)
{
	for (size_t i = 0; i < task->thread_count; i++) {
		const SignalQueueEntry *queue = task->cores[i]->thread_core->signals_p;

		for (size_t j = 0; queue && j < queue->n_signals; j++)
			if (((const siginfo_t *)queue->signals[j]->siginfo.data)->si_signo == SIGCHLD)
				return true;
	}
	return false;
}

/* Where the twin will be. An error: it cannot have one; recorded. */
static int prepare(struct twins *twins, struct twin *twin)
{
	struct proc_status status;
	int result = proc_read_status(twin->task->proc, &status);

	if (result)
		return result;
	if (status.seccomp)
		result = fail(EPERM, "it has a seccomp filter");
	else if (has_child_signal(twin->task))
		result = fail(EBUSY, "a thread has a pending SIGCHLD");
	else if (!is_in_own_namespace(twin->task, "ns/user") || !is_in_own_namespace(twin->task, "ns/pid"))
		result = fail(EPERM, "it is in another user or pid namespace than criu");
	else
		result = twin_spaces_find(&twins->spaces, &status, &twin->space);
	proc_status_free(&status);
	return result;
}

static void try_prepare(struct twins *twins, struct twin *twin)
{
	struct attempt attempt;

	attempt_begin(&attempt);
	twin->is_possible = !prepare(twins, twin);
	if (!twin->is_possible)
		tell_why(twin->task, failure_text());
	attempt_forget(&attempt);
}

/* As criu sees it, the pid of the twin that has the pid `inner` in its namespace. 0: it is not there. */
static pid_t find_child(const struct twin_space *space, pid_t inner)
{
	autoclose int proc = proc_open(space->first);
	autofree pid_t *children = NULL;
	size_t count = 0;

	if (proc < 0 || attempted(proc_read_children(proc, &children, &count)))
		return 0;
	for (size_t i = 0; i < count; i++) {
		autofree char *path = format_text("/proc/%d/status", children[i]), *text = NULL;
		struct pid_levels levels;

		if (read_record_at(-1, path, &text) >= 0 &&
		    !attempted(proc_parse_levels(text, "NSpid", &levels)) && levels.count &&
		    levels.ids[levels.count - 1] == inner)
			return children[i];
	}
	return 0;
}

/* From now on its memory is read instead of the task's. If memory becomes scarce, the kernel kills it first. */
static int use(struct twin *twin)
{
	autoclose int proc = proc_open(twin->here);
	struct task_delta *delta = &twin->listed.delta;
	struct task_memory memory;
	struct scanner *scanner;
	int result;

	if (proc < 0)
		return fail(-proc, "it has ended");
	result = twin_pages_begin(&twin->pages, twin->here);
	if (!result)
		result = task_memory_open(&memory, twin->here, -1, proc);
	if (result)
		return result;
	result = scanner_open(&scanner, proc);
	if (result) {
		task_memory_close(&memory);
		return result;
	}
	memory.twin = &twin->pages;
	if (write_text_at(proc, "oom_score_adj", "1000") < 0)
		log_debug("cannot have the kernel kill twin %d before others", twin->here);
	scanner_close(delta->scanner);
	delta->scanner = scanner;
	task_memory_close(&delta->memory);
	delta->memory = memory;
	return 0;
}

static void take(const struct twins *twins, struct twin *twin, const struct twin_order *order)
{
	struct attempt attempt;

	if (order->twin < 0) {
		tell_why(twin->task, strerror(-(int)order->twin));
		return;
	}
	attempt_begin(&attempt);
	twin->here = find_child(&twins->spaces.items[twin->space], order->twin);
	if (twin->here && use(twin))
		twin->here = 0;
	if (twin->here)
		log_info("process %d has twin %d", twin->task->here, twin->here);
	else
		tell_why(twin->task, "it cannot be found");
	attempt_forget(&attempt);
}

/* The copy would be in use there, too: a System V segment notes who attaches it. */
static void list_shared(const struct task *task, struct twin_order *order)
{
	struct twin_range *ranges = NULL;

	for (size_t i = 0; i < task->space->vmas.count; i++) {
		const struct vma *vma = &task->space->vmas.items[i];

		if (vma->flags & MAP_SHARED && !(vma->advice >> MADV_DONTFORK & 1))
			*grow(&ranges, &order->range_count) = (struct twin_range){ .start = vma->start,
										   .size = vma_length(vma) };
	}
	order->ranges = ranges;
}

static int order_all(struct twins *twins)
{
	autofree struct twin_order *orders = allocate_array(twins->count + 1, sizeof(*orders));
	autofree struct twin **ordered = allocate_array(twins->count + 1, sizeof(*ordered));
	size_t count = 0;
	int result;

	for (size_t i = 0; i < twins->count; i++) {
		struct twin *twin = twins->items[i];

		if (twin->is_possible)
			try_prepare(twins, twin);
		if (twin->is_possible)
			ordered[count++] = twin;
	}
	/* Only now, because the list of spaces does not move any more. */
	for (size_t i = 0; i < count; i++) {
		const struct twin_space *space = &twins->spaces.items[ordered[i]->space];

		orders[i] = (struct twin_order){ .victim = ordered[i]->task->victim,
						 .room = ordered[i]->pages.room,
						 .room_size = ordered[i]->pages.size,
						 .user = space->user,
						 .pids = space->pids };
		list_shared(ordered[i]->task, &orders[i]);
	}
	result = victims_make_twins(orders, count);
	for (size_t i = 0; i < count && !result; i++)
		take(twins, ordered[i], &orders[i]);
	for (size_t i = 0; i < count; i++)
		free((struct twin_range *)orders[i].ranges);
	return result;
}

/* ---- reading them ---- */

static int save(struct dump *dump, struct twin *twin)
{
	const struct task *task = twin->task;
	int result = listed_save(dump, &twin->listed, twin->writer);

	result = page_writer_close(steal_pointer(&twin->writer), result);
	if (result && twin->here && twin_pages_is_dead(&twin->pages)) {
		result = fail_in(result,
				 "its twin (process %d) was killed, perhaps because memory was scarce",
				 twin->here);
		fail_advice("--twin=never");
	}
	if (result)
		return fail_in(result, "process %d (%s)", task->here, task->name);
	if (twin->here)
		kill(twin->here, SIGKILL); /* it stays a zombie: nobody else gets its pid */
	listed_free(&twin->listed);
	twin_pages_close(&twin->pages);
	return 0;
}

int twins_make(struct dump *dump)
{
	struct twins *twins = dump->memory.twins;
	int result = twins ? order_all(twins) : 0;

	for (size_t i = 0; twins && i < twins->count && !result; i++)
		if (!twins->items[i]->here)
			result = save(dump, twins->items[i]);
	return result;
}

int twins_save(void *context)
{
	struct dump *dump = context;
	struct twins *twins = dump->memory.twins;
	int result = 0;

	for (size_t i = 0; twins && i < twins->count && !result; i++)
		if (twins->items[i]->here)
			result = save(dump, twins->items[i]);
	twins_end(dump);
	return result;
}

void twins_end(void *context)
{
	struct dump *dump = context;
	struct twins *twins = steal_pointer(&dump->memory.twins);

	if (!twins)
		return;
	for (size_t i = 0; i < twins->count; i++) {
		ignore(page_writer_close(twins->items[i]->writer, -ECANCELED));
		listed_free(&twins->items[i]->listed);
		twin_pages_close(&twins->items[i]->pages);
		free(twins->items[i]);
	}
	twin_spaces_close(&twins->spaces);
	memory_room_free(&twins->room);
	free(twins->items);
	free(twins);
}
