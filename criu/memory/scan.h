/*
 * scan.h - finds the pages of a mapping that have content of the task's own, and those among them that the kernel has
 * not seen written.
 */
#ifndef CRIU_MEMORY_SCAN_H
#define CRIU_MEMORY_SCAN_H

#include "compiler.h"
#include "memory/runs.h"
#include "model/vma.h"

struct scanner; /* for one task */

/* Does this kernel have PAGEMAP_SCAN (Linux 6.7), and with it the tracker `written`? */
bool scan_has_ioctl(void);
int scanner_open(struct scanner **scanner, int proc) must_check;
void scanner_close(struct scanner *scanner);

/* The tracking information about pages to ask the kernel for. */
enum page_note {
	NOTE_NOTHING,	 /* nothing is asked: every page counts as changed */
	NOTE_SOFT_DIRTY, /* soft-dirty bits, cleared through clear_refs */
	NOTE_WRITTEN,	 /* userfaultfd's asynchronous write protection (Linux 6.7): see written.c */
};

/*
 * The page frames that a task had at some addresses, several in each 2 MiB. mremap() moves whole page tables of 4 KiB
 * pages, and does not mark them soft-dirty (seen on Linux 6.1, 6.12 and 7.2): a clean page may be another clean page
 * than before. If one of the frames is still in its place, and clean, no table was moved.
 */
struct frames {
	struct frame {
		uint64_t address, place;
	} * items; /* sorted */
	size_t count;
};

struct scan {
	uint64_t start, end;
	bool is_file; /* a private mapping of a file: pages that still belong to the file are not the task's */
	enum page_note note;
	const struct frames *known; /* for soft-dirty: the frames when tracking began */
	struct frames *noted;	    /* the frames now, for the next snapshot; NULL: not needed */
};

/*
 * Adds the ranges that the task has written (present or swapped, not the zero page; in a file mapping: not the file's
 * own pages) to *changed, or to *unchanged if the tracking information tells for certain that they have not been
 * written since it began. `offset` of the runs has no meaning. 0 or -errno, recorded.
 */
int scan_pages(struct scanner *scanner, const struct scan *scan, struct page_runs *changed,
	       struct page_runs *unchanged) must_check;

/* Is all of it in mappings with asynchronous write protection? 1: yes; -errno, recorded. Checks mappings, not pages. */
int scan_is_protectable(struct scanner *scanner, uint64_t start, uint64_t end) must_check;
/*
 * Write-protects the pages of [start, end), anonymous memory, so that writes are noticed from now on (Linux 6.7). If
 * the mapping is new to criu, pages that look protected are protected again: before Linux 6.12.11, mremap() leaves that
 * mark although it ends the protection.
 */
int scan_protect(struct scanner *scanner, uint64_t start, uint64_t end, bool is_new) must_check;

/* The number of pages known as written (NOTE_WRITTEN); 0 if that is not known. The process may be running. */
uint64_t scan_count_written(struct scanner *scanner);
/*
 * The number of soft-dirty pages in [start, end), in private mappings (NOTE_SOFT_DIRTY): takes 27 ms for 2 GiB, present
 * or not.
 */
uint64_t scan_count_soft_dirty(struct scanner *scanner, uint64_t start, uint64_t end);
/* Is the page there, and its soft-dirty bit clear? */
bool scan_is_clean(struct scanner *scanner, uint64_t address);

/*
 * Finds the guard regions (madvise(MADV_GUARD_INSTALL), Linux 6.13) of [start, end). Kernels before 6.15 do not show
 * them: none.
 */
int scan_guards(struct scanner *scanner, uint64_t start, uint64_t end, struct page_runs *runs) must_check;

#endif
