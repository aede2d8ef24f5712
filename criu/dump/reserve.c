/*
 * reserve.c - allocates buffers, before the freeze, for the pages that will have to be saved.
 *
 * What was written since the parent snapshot is usually little, and could be read in a few milliseconds. But fresh
 * pages of the page cache cost more than the reading (2 ms for 1 MiB here, where a page of the machine is slow the
 * first time it is touched). So the process with the most such pages gets buffers for all of them, which are touched in
 * advance. Their content is written to the images when the processes run again. A helper thread is ready to read half
 * of the pages.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "dump/dump.h"
#include "kernel/proc.h"

#define MOST_BUFFERED (256UL << 20)
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

/*
 * Only speed depends on this. The process continues to write, so it gets a quarter more; but at most an eighth of the
 * free memory.
 */
int dump_reserve_pages(void *context)
{
	struct dump *dump = context;
	struct page_reserve *reserve = &dump->memory.reserve;
	const struct tracker *tracker = dump->memory.increment.parent_tracker;
	autofree pid_t *pids = NULL;
	size_t count = 0, size;
	uint64_t most = 0, budget = MOST_COUNTED;

	if (tracker != &tracker_written && tracker != &tracker_soft_dirty)
		return 0;
	dump_list_tree(dump->request->root, &pids, &count);
	for (size_t i = 0; i < count; i++) {
		uint64_t pages = count_written(tracker, pids[i], &budget);

		if (pages > most) {
			most = pages;
			reserve->here = pids[i];
		}
	}
	size = min((most + most / 4) * PAGE_SIZE, MOST_BUFFERED);
	size = min(size, (size_t)sysconf(_SC_AVPHYS_PAGES) / 8 * PAGE_SIZE);
	if (attempted(stream_reserve_make(&reserve->buffers, size)))
		log_debug("no memory to buffer the %zu KiB that process %d has written", size >> 10,
			  reserve->here);
	if (reserve->buffers.memory)
		reserve->reader = helper_thread_start();
	return 0;
}

void dump_drop_reserve(void *context)
{
	struct dump *dump = context;
	struct page_reserve *reserve = &dump->memory.reserve;

	/* There are open writers only if the dump has failed; one may use the buffers. */
	ignore(dump_write_held(dump, -ECANCELED));
	helper_thread_end(steal_pointer(&reserve->reader));
	stream_reserve_free(&reserve->buffers);
}
