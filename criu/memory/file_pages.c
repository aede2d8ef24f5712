/*
 * file_pages.c - the parent snapshot's copy of a task's own pages in private mappings of files, for comparison.
 *
 * The tracker `written` does not note writes to private mappings of files (written.c). The task's own pages in these
 * are few (the data of programs and libraries), and nearly always unchanged. So they are compared with the parent's by
 * their hashes, which are read before the freeze. Where there are too many for that to be worth it, they are saved.
 */
#include <errno.h>
#include <stdlib.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/proc.h"
#include "memory/content.h"
#include "memory/pagemap.h"

/* Pages. Comparing 16 MiB while a process is frozen takes some 5 ms: as long as saving them. */
#define MOST_OF_TASK 4096

/* The process still runs: mappings that it creates later are not compared, and so are saved. */
static void choose_mappings(struct page_runs *chosen, const struct page_runs *theirs, const struct vmas *vmas)
{
	uint64_t total = 0;

	for (size_t i = 0; i < vmas->count; i++) {
		const struct vma *vma = &vmas->items[i];
		uint64_t pages;

		if (!vma->inode || vma->flags & MAP_SHARED)
			continue;
		pages = page_runs_within(theirs, vma->start, vma->end);
		if (!pages || pages > FILE_PAGES_MOST || total + pages > MOST_OF_TASK)
			continue;
		total += pages;
		page_runs_add_range(chosen, vma->start, vma->end);
	}
}

int file_pages_open(struct content *content, struct page_chain *chain, pid_t pid, uint64_t seed)
{
	struct page_runs theirs = { 0 }, chosen = { 0 };
	autoclose int proc = proc_open(pid);
	struct vmas vmas = { 0 };
	int result = 0;

	if (proc < 0)
		return -ENOENT;
	if (attempted(proc_read_maps(proc, &vmas)))
		result = -ENOENT; /* it has ended */
	result = result ?: pagemap_read_coverage(&theirs, page_chain_store(chain, 0), pid);
	if (!result)
		choose_mappings(&chosen, &theirs, &vmas);
	if (!result && !chosen.count)
		result = -ENOENT;
	result = result ?: content_open(content, chain, IMAGE_PAGEMAP, pid, seed, &chosen);
	vmas_free(&vmas);
	page_runs_free(&theirs);
	page_runs_free(&chosen);
	return result;
}
