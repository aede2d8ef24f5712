/*
 * huge.h - memory in huge pages of hugetlbfs (MAP_HUGETLB, MFD_HUGETLB): the size of the pages is a property of the
 * memory, and the host has a pool of each size. Every huge page that existed is restored, even if it held only zeros,
 * because a program that has touched its memory in advance relies on that.
 */
#ifndef CRIU_MEMORY_HUGE_H
#define CRIU_MEMORY_HUGE_H

#include <stdbool.h>
#include "compiler.h"
#include "memory/pages.h"
#include "memory/stack.h"
#include "model/vma.h"

/* MAP_HUGETLB and the size, as in mmap() and vma->flags; or with MFD_HUGETLB (memfd_create()). */
uint32_t huge_map_flags(uint64_t page_size);
uint32_t huge_memfd_flags(uint64_t page_size);
/* The page size in flags of either kind, which may leave it to the host. 0: invalid. */
uint64_t huge_page_size(uint32_t flags);

/*
 * The number of huge pages of this size that are neither used nor reserved. -ENOENT, not recorded: this host has no
 * pages of this size.
 */
int huge_pool_free(uint64_t page_size, uint64_t *count) must_check;

/* Dump. Writes pages of huge memory: of each huge page, the first page is written even if it is zero. */
int huge_write_pages(struct page_writer *writer, const struct page_runs *runs, uint64_t page_size,
		     page_source *source, void *from) must_check;
/*
 * Dump. Finds the huge pages of a file of hugetlbfs. SEEK_DATA does not help: it takes all of such a file for data. If
 * *is_exact is false, this kernel cannot tell either; then pages that do not exist are among them, and read as zeros.
 */
int huge_find_pages(int fd, uint64_t size, uint64_t page_size, struct page_runs *runs, bool *is_exact)
	must_check;

/* Restore. Puts the pages of a stack into a file of hugetlbfs, which write() cannot do. `name` is for errors. */
int huge_fill_file(int fd, uint64_t size, uint64_t page_size, const struct page_stack *stack,
		   const char *name) must_check;

/* ---- transparent ones, which only affect speed ---- */

#define HUGE_BLOCK (2UL << 20)

/*
 * May memory become huge pages that was not in huge pages? Not if the host wants none. If it leaves that to programs
 * (madvise), only if snapshots do not suffer: a soft-dirty bit is one for a whole huge page, but the tracker `written`
 * notes single pages.
 */
bool huge_is_allowed(void);
/* Turns a block that has some pages into a huge page; if the kernel refuses, only speed is lost. */
void huge_collapse(void *block);
/* The same for a block of shared memory, if at least half of its pages exist. */
void huge_collapse_shared(void *block);

#endif
