/*
 * huge.h - memory in huge pages. Of hugetlbfs (MAP_HUGETLB, MFD_HUGETLB): their size is part of what the memory is, and the host
 * keeps a pool of each size. A huge page that was there is there again, also if it held nothing but zeros: whoever has
 * touched his memory ahead relies on it.
 */
#ifndef CRIU_MEMORY_HUGE_H
#define CRIU_MEMORY_HUGE_H

#include <stdbool.h>
#include "compiler.h"
#include "memory/pages.h"
#include "memory/stack.h"
#include "model/vma.h"

/* MAP_HUGETLB and the size, as mmap() and vma->flags have it; with MFD_HUGETLB (memfd_create()) instead. */
uint32_t huge_map_flags(uint64_t page_size);
uint32_t huge_memfd_flags(uint64_t page_size);
/* The page size that flags of either kind name; they may leave it to the host. 0: no possible one. */
uint64_t huge_page_size(uint32_t flags);

/* Huge pages of this size that nobody has or has reserved. -ENOENT, not recorded: this host has no pages of this size. */
int huge_pool_free(uint64_t page_size, uint64_t *count) must_check;

/* Dump. Writes pages of huge memory: of each huge page, the first page is written even if it is zero. */
int huge_write_pages(struct page_writer *writer, const struct page_runs *runs, uint64_t page_size,
		     page_source *source, void *from) must_check;
/*
 * Dump. The huge pages that a file of hugetlbfs has. SEEK_DATA does not tell: to it, all of such a file is data. Not
 * *is_exact: nor does this kernel; then those that are not there are among them, and read as zeros.
 */
int huge_find_pages(int fd, uint64_t size, uint64_t page_size, struct page_runs *runs, bool *is_exact)
	must_check;

/* Restore. Puts the pages of a stack into a file of hugetlbfs, which write() cannot do. `name` is for errors. */
int huge_fill_file(int fd, uint64_t size, uint64_t page_size, const struct page_stack *stack,
		   const char *name) must_check;

/* ---- transparent ones, which are but faster ---- */

#define HUGE_BLOCK (2UL << 20)

/* Makes one of a block, of which something is there; where the kernel will not, nothing but speed is lost. */
void huge_collapse(void *block);
/* The same for a block of shared memory, if at least half of it is there. */
void huge_collapse_shared(void *block);

#endif
