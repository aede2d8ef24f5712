/*
 * scan.h - which pages of a mapping hold something of the task's own.
 */
#ifndef CRIU_MEMORY_SCAN_H
#define CRIU_MEMORY_SCAN_H

#include "memory/runs.h"
#include "model/vma.h"

struct scanner; /* for one task */

int scanner_open(struct scanner **scanner, int proc);
void scanner_close(struct scanner *scanner);

/*
 * Adds the ranges of [start, end) that were written by the task (present or swapped, not the zero page; in a file mapping: not
 * the file's own pages) to *runs; `offset` of the runs means nothing. 0 or -errno, recorded.
 */
int scan_pages(struct scanner *scanner, uint64_t start, uint64_t end, bool is_file, struct page_runs *runs);

/* The guard regions (madvise(MADV_GUARD_INSTALL), Linux 6.13) of [start, end). Kernels before 6.15 do not tell: none. */
int scan_guards(struct scanner *scanner, uint64_t start, uint64_t end, struct page_runs *runs);

#endif
