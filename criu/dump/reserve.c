/*
 * reserve.c - allocates buffers, before the freeze, for the pages that will have to be saved.
 *
 * What was written since the parent snapshot is usually little, and could be read in a few milliseconds. But fresh
 * pages of the page cache cost more than the reading (2 ms for 1 MiB here, where a page of the machine is slow the
 * first time it is touched). So the process with the most such pages gets buffers for all of them, which are touched in
 * advance. Their content is written to the images when the processes run again. A helper thread is ready to read half
 * of the pages.
 *
 * Without a parent snapshot the root of the tree gets such buffers, if its memory is small and it will run on: 20 MiB
 * kept it frozen for 16 ms until they were in the page cache, and 60 ms when the disk was busy. One thread reads them:
 * on busy CPUs, criu would wait 50 ms for a second thread, which saves half of 7 ms.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "dump/dump.h"
#include "kernel/proc.h"

#define MOST_BUFFERED (256UL << 20)
#define MOST_WHOLE    (32UL << 20) /* of a process without a parent snapshot */
#define MOST_COUNTED \
	(64ULL << 30) /* bytes of mappings in which soft-dirty pages are counted: even empty ones take time */

static bool is_counted(const struct vma *vma)
{
	return vma->flags & MAP_PRIVATE && vma->protection & PROT_WRITE;
}

static uint64_t count_soft_dirty(struct scanner *scanner, int proc, uint64_t *budget)
{
	struct vmas vmas = { 0 };
	uint64_t pages = 0, size = 0;
	int result = proc_read_maps(proc, &vmas);

	for (size_t i = 0; i < vmas.count; i++)
		size += is_counted(&vmas.items[i]) ? vma_length(&vmas.items[i]) : 0;
	if (size > *budget)
		result = -E2BIG;
	else
		*budget -= size;
	for (size_t i = 0; !result && i < vmas.count; i++)
		if (is_counted(&vmas.items[i]))
			pages += scan_count_soft_dirty(scanner, vmas.items[i].start, vmas.items[i].end);
	vmas_free(&vmas);
	return pages;
}

static uint64_t count_written(const struct tracker *tracker, pid_t pid, uint64_t *budget)
{
	autoclose int proc = proc_open(pid);
	struct scanner *scanner = NULL;
	struct attempt attempt;
	uint64_t pages = 0;

	attempt_begin(&attempt);
	if (proc >= 0 && !scanner_open(&scanner, proc))
		pages = tracker == &tracker_soft_dirty ? count_soft_dirty(scanner, proc, budget) :
							 scan_count_written(scanner);
	attempt_forget(&attempt);
	scanner_close(scanner);
	return pages;
}

/* Pages that no file has. 0: too many. */
static uint64_t count_own(pid_t pid)
{
	autoclose int proc = proc_open(pid);
	autofree char *text = NULL;
	uint64_t resident, of_files;

	if (proc < 0 || read_record_at(proc, "statm", &text) < 0 ||
	    sscanf(text, "%*u %lu %lu", &resident, &of_files) != 2 || of_files > resident)
		return 0;
	return resident - of_files <= MOST_WHOLE / PAGE_SIZE ? resident - of_files : 0;
}

/* Counts the pages of the process with the most. The reserve becomes that of this process. */
static uint64_t count_most_written(struct dump *dump, const struct tracker *tracker)
{
	autofree pid_t *pids = NULL;
	size_t count = 0;
	uint64_t most = 0, budget = MOST_COUNTED;

	dump_list_tree(dump->request->root, &pids, &count);
	for (size_t i = 0; i < count; i++) {
		uint64_t pages = count_written(tracker, pids[i], &budget);

		if (pages > most) {
			most = pages;
			dump->memory.reserve.here = pids[i];
		}
	}
	return most;
}

static uint64_t count_pages(struct dump *dump)
{
	const struct tracker *tracker = dump->memory.increment.parent_tracker;

	if (tracker == &tracker_written || tracker == &tracker_soft_dirty)
		return count_most_written(dump, tracker);
	if (tracker || !dump_tree_runs_on(dump))
		return 0;
	dump->memory.reserve.here = dump->request->root;
	return count_own(dump->request->root);
}

/*
 * Only speed depends on this. The process continues to write, so it gets a quarter more; but at most an eighth of the
 * free memory.
 */
int dump_reserve_pages(void *context)
{
	struct dump *dump = context;
	struct page_reserve *reserve = &dump->memory.reserve;
	uint64_t pages = count_pages(dump);
	size_t size = min((pages + pages / 4) * PAGE_SIZE, MOST_BUFFERED);

	reserve->pages = pages;
	size = min(size, (size_t)sysconf(_SC_AVPHYS_PAGES) / 8 * PAGE_SIZE);
	if (attempted(stream_reserve_make(&reserve->buffers, size)))
		log_debug("no memory to buffer %zu KiB of process %d", size >> 10, reserve->here);
	if (reserve->buffers.memory && dump->memory.increment.parent_tracker)
		reserve->reader = helper_thread_start();
	return 0;
}

void dump_drop_reserve(void *context)
{
	struct dump *dump = context;
	struct page_reserve *reserve = &dump->memory.reserve;

	/* There are open writers only if the dump has failed; one may use the buffers. */
	ignore(held_writers_close(&dump->memory.held, -ECANCELED));
	helper_thread_end(steal_pointer(&reserve->reader));
	stream_reserve_free(&reserve->buffers);
}
