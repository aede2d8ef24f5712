/*
 * scan_entries.h - for scan.c: the second way to find pages, by reading /proc/PID/pagemap, and what the two ways share.
 */
#ifndef CRIU_MEMORY_SCAN_ENTRIES_H
#define CRIU_MEMORY_SCAN_ENTRIES_H

#include "memory/scan.h"

/* <linux/fs.h> of Linux 6.7 and later, which Debian 12 does not have */
struct scan_range {
	uint64_t start, end, categories;
};

/*
 * For more than 512 ranges the kernel fills the array in several steps, and when the last one reaches the end, it
 * leaves walk_end where an earlier one stopped (Linux 6.18: do_pagemap_scan() sets it only then).
 */
#define RANGES	512
#define ENTRIES 4096

struct scanner {
	int pagemap;
	int frames;	 /* /proc/kpageflags; -1: not permitted */
	bool has_ioctl;	 /* PAGEMAP_SCAN works */
	bool has_guards; /* … and shows guard regions */
	union {
		struct scan_range ranges[RANGES];
		uint64_t entries[ENTRIES];
	};
};

/* As scan_pages(). */
int scan_entries(struct scanner *scanner, const struct scan *scan, struct page_runs *changed,
		 struct page_runs *unchanged);

#endif
