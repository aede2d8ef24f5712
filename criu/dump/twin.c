/*
 * twin.c - copies of processes keep their memory as it was, while the tree runs on and criu writes it.
 *
 * fork() copies the page tables: 20 us for each MiB in pages of 4 KiB (Linux 6.18). To read the memory and to write it
 * takes twenty times as long, so the tree is frozen for a twentieth of that time. The price is paid afterwards: as long
 * as the twin lives, each page that the process writes is copied first.
 *
 * The twin must be a child neither of the process nor of its parent. It becomes one of criu: see
 * blobs/parasite/twin.c. For that criu makes a pid namespace (struct twin_space), whose first process does nothing, and
 * ends with criu; with it, the kernel ends all twins. A process may enter a pid namespace only with CAP_SYS_ADMIN in the
 * user namespace that owns it. Most processes do not have that. So that namespace is in a new user namespace, which criu
 * makes with the process's user id: who has created a user namespace has all capabilities in it.
 *
 * Not all memory is in the copy: mappings that are shared, or have MADV_DONTFORK or MADV_WIPEONFORK. Private huge pages
 * of hugetlbfs are taken away from a copy if there are no free ones. And the kernel writes to AIO rings. All of this is
 * read while the tree is frozen.
 *
 * If memory becomes scarce, the kernel kills a twin first: then the dump fails, and the tree is not hurt.
 */
#include "dump/twin.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "compel.h"
#include "core.pb-c.h"
#include "dump/listed.h"
#include "files/kinds/io_uring.h"
#include "kernel/memory_room.h"
#include "kernel/place.h"
#include "kernel/proc.h"
#include "memory/saving.h"
#include "memory/stream.h"
#include "memory/twin_pages.h"
#include "syscalls.h"

/* Less is read faster than it is copied, and fits into buffers (reserve.c). */
#define WORTH_A_TWIN (32UL << 20)
/* What is read before the tree runs, of one process. */
#define MOST_READ_NOW (32UL << 20)
/* Reading a page takes this many times as long as copying its entry in the page table. */
#define READING_TO_FORKING   16
#define CAPABILITY_SYS_ADMIN 21

/* A pid namespace for the twins of all processes with the same rights. */
struct twin_space {
	uint32_t uid; /* of the owner of its user namespace */
	bool has_user;
	int user, pids; /* descriptors; -1 */
	pid_t first;
};

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
	struct twin_space *spaces;
	size_t space_count;
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
static bool has_room(const struct task *task, uint64_t bytes)
{
	uint64_t room = memory_room(task->proc);

	if (room >= bytes / 2)
		return true;
	log_info("process %d: no twin, because only %llu MiB of memory are free", task->here,
		 (unsigned long long)room >> 20);
	return false;
}

/*
 * After a parent snapshot only what was written since is read. It is known about (reserve.c) only of the process that has
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

bool twins_want(const struct dump *dump, const struct task *task)
{
	enum twin_use use = dump->request->twin;
	uint64_t copied, read;

	if (use == TWIN_NEVER || !dump_tree_runs_on(dump))
		return false;
	copied = count_copied(task);
	read = count_to_read(dump, task, copied);
	return use == TWIN_ALWAYS ||
	       (read >= WORTH_A_TWIN && read >= copied / READING_TO_FORKING && has_room(task, copied));
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

int twins_list(struct dump *dump, struct task *task)
{
	struct twin *twin = allocate(sizeof(*twin));
	struct page_buffers buffers;
	int result;

	if (!dump->memory.twins)
		dump->memory.twins = allocate(sizeof(*dump->memory.twins));
	*grow(&dump->memory.twins->items, &dump->memory.twins->count) = twin;
	twin->task = task;
	twin->pages = (struct twin_pages){ .room = -1, .pidfd = -1 };
	result = listed_open(&twin->listed, dump, task, is_saved_here) ?:
			 twin_pages_open(&twin->pages, STREAM_MEMORY);
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

/* ---- the pid namespaces ---- */

struct birth {
	int criu; /* a pidfd */
	unsigned long flags;
	pid_t first;
};

/* The first process of a pid namespace. It must not keep anything of criu open. */
static does_not_return void be_first(const struct birth *birth)
{
	struct pollfd criu = { .fd = birth->criu, .events = POLLIN };
	uint32_t word = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "criu-twins");
	if (poll(&criu, 1, 0) != 0)
		sys_exit_group(1);
	sys_close_range(0, ~0U, 0);
	for (;;)
		sys_futex(&word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

static int bear_first(void *argument)
{
	struct birth *birth = argument;
	long pid = sys_clone(birth->flags, NULL);

	if (!pid)
		be_first(birth);
	birth->first = pid;
	return pid < 0 ? fail(-pid, "cannot make a pid namespace") : 0;
}

/* Its parent is criu in any case. */
static int make_first(struct twin_space *space)
{
	autoclose int criu = syscall(SYS_pidfd_open, getpid(), 0);
	struct place place = PLACE_HERE;
	struct birth birth = { .criu = criu, .flags = CLONE_NEWPID };
	sigset_t all, before;
	int result;

	if (criu < 0)
		return fail(errno, "cannot watch criu");
	if (space->has_user)
		birth.flags |= CLONE_NEWUSER;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	if (space->has_user && space->uid != geteuid()) {
		birth.flags |= CLONE_PARENT;
		place.uid = space->uid;
		result = run_in(&place, bear_first, &birth);
	} else {
		result = bear_first(&birth);
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	space->first = birth.first;
	return result;
}

static int open_space(struct twin_space *space)
{
	int result = make_first(space);
	autoclose int proc = -1;

	if (result)
		return result;
	proc = proc_open(space->first);
	space->pids = proc < 0 ? -1 : openat(proc, "ns/pid", O_RDONLY | O_CLOEXEC);
	space->user = proc < 0 || !space->has_user ? -1 : openat(proc, "ns/user", O_RDONLY | O_CLOEXEC);
	if (space->pids < 0 || (space->has_user && space->user < 0))
		return fail(errno, "cannot open the namespaces of process %d", space->first);
	return 0;
}

/* The kernel ends all twins in it; it may take a while until their memory is free. */
static void close_space(struct twin_space *space)
{
	if (space->first > 0) {
		kill(space->first, SIGKILL);
		while (waitpid(space->first, NULL, __WALL) < 0 && errno == EINTR)
			;
	}
	if (space->user >= 0)
		close(space->user);
	if (space->pids >= 0)
		close(space->pids);
}

static int find_space(struct twins *twins, const struct proc_status *status, size_t *found)
{
	struct twin_space *space;
	struct twin_space wanted = {
		.uid = status->uid[1],
		.has_user = !(status->effective >> CAPABILITY_SYS_ADMIN & 1),
		.user = -1,
		.pids = -1,
	};
	int result;

	for (*found = 0; *found < twins->space_count; ++*found) {
		space = &twins->spaces[*found];
		if (space->has_user == wanted.has_user && (!space->has_user || space->uid == wanted.uid))
			return 0;
	}
	space = grow(&twins->spaces, &twins->space_count);
	*space = wanted;
	result = open_space(space);
	if (result) {
		close_space(space);
		twins->space_count--;
	}
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
		result = find_space(twins, &status, &twin->space);
	proc_status_free(&status);
	return result;
}

static void tell_why(const struct twin *twin, const char *reason)
{
	log_info("process %d: no twin: %s", twin->task->here, reason);
}

static void try_prepare(struct twins *twins, struct twin *twin)
{
	struct attempt attempt;

	attempt_begin(&attempt);
	twin->is_possible = !prepare(twins, twin);
	if (!twin->is_possible)
		tell_why(twin, failure_text());
	attempt_forget(&attempt);
}

/* The pid of a process of a pid namespace below criu's, as criu sees it; `inner`: as it is seen there. 0: it is not there. */
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
	result = twin_pages_begin(&twin->pages, twin->here) ?:
							      task_memory_open(&memory, twin->here, -1, proc);
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
		tell_why(twin, strerror(-(int)order->twin));
		return;
	}
	attempt_begin(&attempt);
	twin->here = find_child(&twins->spaces[twin->space], order->twin);
	if (twin->here && use(twin))
		twin->here = 0;
	if (twin->here)
		log_info("process %d has twin %d", twin->task->here, twin->here);
	else
		tell_why(twin, "it cannot be found");
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
		const struct twin_space *space = &twins->spaces[ordered[i]->space];

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

static bool is_dead(pid_t pid)
{
	autoclose int proc = proc_open(pid);
	struct proc_stat stat;

	return proc < 0 || attempted(proc_read_stat(proc, &stat)) || stat.state == 'Z' || stat.state == 'X';
}

static int save(struct dump *dump, struct twin *twin)
{
	const struct task *task = twin->task;
	int result = listed_save(dump, &twin->listed, twin->writer);

	result = page_writer_close(steal_pointer(&twin->writer), result);
	if (result && twin->here && is_dead(twin->here)) {
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
	for (size_t i = 0; i < twins->space_count; i++)
		close_space(&twins->spaces[i]);
	free(twins->items);
	free(twins->spaces);
	free(twins);
}
