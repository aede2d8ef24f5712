/*
 * pages.h - page images: pagemap-*.img (which pages) and pages-*.img (their bytes), written. They are read through stack.h.
 */
#ifndef CRIU_MEMORY_PAGES_H
#define CRIU_MEMORY_PAGES_H

#include "image/image.h"
#include "memory/runs.h"

/* Flags of a pagemap entry, and of the page server's commands. */
#define PAGES_IN_PARENT 1
#define PAGES_LAZY	2 /* may be restored on demand: anonymous memory of one task */
#define PAGES_PRESENT	4

struct page_writer; /* a pagemap image and its pages image */

struct page_statistics {
	uint64_t scanned, written, zeros; /* pages */
	uint64_t expected;		  /* at most so many will be scanned, for who watches; 0: unknown */
};

/* `kind` and `id` name the pagemap image; `pages_id` the pages image, unique in the directory. */
int page_writer_open(struct page_writer **writer, struct image_store *store, enum image_kind kind,
		     unsigned long id, uint32_t pages_id, struct page_statistics *statistics);

/*
 * Where pages come from: fills `buffer` with the pages of `runs[0…count)`, one behind the other. 0 or -errno, recorded.
 */
typedef int page_source(void *from, const struct page_run *runs, size_t count, char *buffer);

/* Writes the pages of all runs. Pages of zeros are left out if `skips_zeros`. */
int page_writer_add(struct page_writer *writer, const struct page_runs *runs, unsigned flags,
		    bool skips_zeros, page_source *source, void *from);
/* Closes the images; also after an error. NULL is fine. */
int page_writer_close(struct page_writer *writer);

/* Sources: the memory of a frozen task (`from`: struct task_memory *), a file (`from`: its descriptor, as int *). */
struct task_memory {
	pid_t pid;
	int mem; /* /proc/PID/mem, for what process_vm_readv() may not or should not read; -1 until it is needed */
	bool has_relatives; /* what is to be read next is shared with others since a fork */
};
page_source pages_of_task, pages_of_file;

#endif
