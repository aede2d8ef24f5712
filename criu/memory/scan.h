/*
 * scan.h - which pages of a mapping hold something of the task's own, and which of those the kernel has not seen written.
 */
#ifndef CRIU_MEMORY_SCAN_H
#define CRIU_MEMORY_SCAN_H

#include "compiler.h"
#include "memory/runs.h"
#include "model/vma.h"

struct scanner; /* for one task */

int scanner_open(struct scanner **scanner, int proc) must_check;
void scanner_close(struct scanner *scanner);

/* What the kernel has noted about pages, to be asked for. */
enum page_note {
	NOTE_NOTHING,	 /* is asked: every page counts as changed */
	NOTE_SOFT_DIRTY, /* soft-dirty bits, cleared through clear_refs */
	NOTE_WRITTEN,	 /* userfaultfd's asynchronous write protection (Linux 6.7): see written.c */
};

/*
 * Which page frames a task had at some addresses, some in each 2 MiB. mremap() moves whole page tables of 4 KiB pages, and
 * does not mark them soft-dirty (seen on Linux 6.1, 6.12 and 7.2): what is clean may be somebody else's clean page. Where
 * one of the frames is still in its place, and clean, no table was moved.
 */
struct frames {
	struct frame {
		uint64_t address, place;
	} * items; /* sorted */
	size_t count;
};

struct scan {
	uint64_t start, end;
	bool is_file; /* a private mapping of a file: pages that are still the file's are not the task's */
	enum page_note note;
	const struct frames *known; /* for soft-dirty: when the note was begun */
	struct frames *noted;	    /* of now, for the next; NULL: not wanted */
};

/*
 * Adds the ranges that were written by the task (present or swapped, not the zero page; in a file mapping: not the file's own
 * pages) to *changed, or, if the note says for certain that they were not written since it was begun, to *unchanged. `offset` of
 * the runs means nothing. 0 or -errno, recorded.
 */
int scan_pages(struct scanner *scanner, const struct scan *scan, struct page_runs *changed,
	       struct page_runs *unchanged) must_check;

/* Is all of it in mappings with asynchronous write protection? 1: yes; -errno, recorded. Asked of mappings, not of pages. */
int scan_is_protectable(struct scanner *scanner, uint64_t start, uint64_t end) must_check;
/*
 * From now on (Linux 6.7) the pages of [start, end), anonymous memory, are write-protected, and so noted when they are written. If the
 * mapping is new to us, pages that look protected are protected, too: before Linux 6.12.11, mremap() leaves that mark where it ends
 * the protection.
 */
int scan_protect(struct scanner *scanner, uint64_t start, uint64_t end, bool is_new) must_check;

/* How many pages are noted as written (NOTE_WRITTEN); 0 if that cannot be told. The process may be running. */
uint64_t scan_count_written(struct scanner *scanner);
/* Of [start, end), in private mappings (NOTE_SOFT_DIRTY): it takes 27 ms for 2 GiB, present or not. */
uint64_t scan_count_soft_dirty(struct scanner *scanner, uint64_t start, uint64_t end);
/* Is the page there, and its soft-dirty bit clear? */
bool scan_is_clean(struct scanner *scanner, uint64_t address);

/* The guard regions (madvise(MADV_GUARD_INSTALL), Linux 6.13) of [start, end). Kernels before 6.15 do not tell: none. */
int scan_guards(struct scanner *scanner, uint64_t start, uint64_t end, struct page_runs *runs) must_check;

#endif
