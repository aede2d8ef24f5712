/*
 * pages.h - writes pages: from a source (the memory of a task, a file) into a sink (page_sink.h: images of a
 * directory). Images are read through stack.h.
 */
#ifndef CRIU_MEMORY_PAGES_H
#define CRIU_MEMORY_PAGES_H

#include "compiler.h"
#include "base/helper_thread.h"
#include "base/throughput.h"
#include "image/image.h"
#include "memory/runs.h"
#include "memory/stream.h"

/* Flags of a pagemap entry, and of the page server's commands. */
#define PAGES_IN_PARENT 1
#define PAGES_LAZY	2 /* may be restored on demand: anonymous memory of one task */
#define PAGES_PRESENT	4

struct page_writer; /* for one task, or one shared memory */
struct page_sink;
struct hash_writer; /* hashes.h */
struct twin_pages;  /* twin_pages.h */

struct page_statistics {
	uint64_t scanned, written, zeros; /* pages */
	uint64_t unchanged;		  /* … since the parent, which has them */
	uint64_t expected;	/* at most this many will be scanned, for the progress line; 0: unknown */
	struct throughput read; /* from the sources */
	struct stream_statistics streams; /* when they are closed */
};

/* The hashes of written pages are saved, for comparison with the next snapshot: hashes.h. */
struct page_hashing {
	uint64_t seed;
	uint64_t snapshot; /* id of the snapshot that is being made */
};

/* The writer takes over both. `hashes` NULL: no hashes are saved. */
struct page_writer *page_writer_open(struct page_sink *sink, struct hash_writer *hashes,
				     struct page_statistics *statistics);

/*
 * The source of pages: fills `buffer` with the pages of `runs[0…count)`, one after the other. 0 or -errno, recorded. If
 * pages have vanished meanwhile, it may shorten a run; the space of the run in the buffer stays the same.
 */
typedef int page_source(void *from, struct page_run *runs, size_t count, char *buffer) must_check;

/*
 * Writes the pages of the runs of layer 0; those of other layers are left to the parent. Pages of zeros are left out if
 * `skips_zeros`.
 */
int page_writer_add(struct page_writer *writer, const struct page_runs *runs, unsigned flags,
		    bool skips_zeros, page_source *source, void *from) must_check;
/*
 * Closes the sink. `result` is the result of everything so far: after an error nothing more is written or reported, and
 * the error is returned. NULL is fine.
 */
int page_writer_close(struct page_writer *writer, int result) must_check;

/* A source: the memory of a task. `from` is a struct task_memory *. */
struct task_memory {
	pid_t here;		      /* model/pids.h */
	struct helper_thread *helper; /* reads the second half of a large part; not owned; NULL: none */
	int pidfd;
	int mem; /* /proc/PID/mem, for memory that process_vm_readv() cannot or should not read; -1 */
	bool has_relatives; /* the next pages are shared with other processes since a fork */
	bool is_running;    /* pages may vanish, and the task with them */
	struct twin_pages
		*twin; /* it is a twin: all of its pages are shared with another process; NULL: it is none */
	bool is_unreadable; /* its first thread must not read the next pages */
};
int task_memory_open(struct task_memory *memory, pid_t here, int pidfd, int proc)
	must_check; /* 0 or -errno, recorded */
void task_memory_close(struct task_memory *memory);
page_source pages_of_task;

#endif
