/*
 * twin_pages.h - pages of a twin (dump/twin.c), which the twin itself copies into memory that it shares with criu. That
 * takes a third of the time that the kernel needs to read another process: 0.4 us a page, instead of 1.0 by
 * process_vm_readv() and 1.3 by /proc/PID/mem (Linux 6.18). But in a virtual machine whose host has to follow each page
 * table (shadow paging), the twin takes 6 us for each page that it touches, and /proc/PID/mem takes 0.8. So both are
 * tried.
 */
#ifndef CRIU_MEMORY_TWIN_PAGES_H
#define CRIU_MEMORY_TWIN_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include "base/throughput.h"
#include "compiler.h"
#include "memory/runs.h"

struct twin_pages {
	int room;   /* a memfd for the twin; -1 */
	char *base; /* where criu has mapped it; NULL: nowhere */
	size_t size;
	int pidfd;			    /* of the twin; -1: there is none yet */
	struct throughput by_twin, by_file; /* what each of the two ways has taken */
};

/* Is the twin the faster one, as far as that is known? */
bool twin_pages_is_faster(const struct twin_pages *pages);

/* Buffers of this size will be in it. 0 or -errno, recorded. To be closed in any case. */
int twin_pages_open(struct twin_pages *pages, size_t buffers) must_check;
char *twin_pages_buffers(const struct twin_pages *pages, size_t *size);
/* The twin exists, and has mapped the room. */
int twin_pages_begin(struct twin_pages *pages, pid_t twin) must_check;
/*
 * Has it copy the runs (TWIN_ROOM_RUNS at most), all of which its first thread may read. False: it cannot, because
 * `buffer` is not in the room, or the twin is dead.
 */
bool twin_pages_copy(struct twin_pages *pages, const struct page_run *runs, size_t count, char *buffer)
	must_check;
bool twin_pages_is_dead(const struct twin_pages *pages);
void twin_pages_close(struct twin_pages *pages);

#endif
