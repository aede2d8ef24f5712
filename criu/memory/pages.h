/*
 * pages.h - writes pages: from a source (the memory of a task, a file) into a sink (page_sink.h: images of a directory). Images are read
 * through stack.h.
 */
#ifndef CRIU_MEMORY_PAGES_H
#define CRIU_MEMORY_PAGES_H

#include "compiler.h"
#include "base/helper_thread.h"
#include "image/image.h"
#include "memory/runs.h"

/* Flags of a pagemap entry, and of the page server's commands. */
#define PAGES_IN_PARENT 1
#define PAGES_LAZY	2 /* may be restored on demand: anonymous memory of one task */
#define PAGES_PRESENT	4

struct page_writer; /* for one task, or one shared memory */
struct page_sink;
struct hash_writer; /* hashes.h */

struct page_statistics {
	uint64_t scanned, written, zeros; /* pages */
	uint64_t unchanged;		  /* … since the parent, which has them */
	uint64_t expected;		  /* at most so many will be scanned, for who watches; 0: unknown */
};

/* Hashes of what is written are kept, for the next snapshot to compare with: hashes.h. */
struct page_hashing {
	uint64_t seed;
	uint64_t snapshot; /* the id of the one that is being made */
};

/* Both become the writer's. `hashes` NULL: none are kept. */
struct page_writer *page_writer_open(struct page_sink *sink, struct hash_writer *hashes,
				     struct page_statistics *statistics);

/*
 * Where pages come from: fills `buffer` with the pages of `runs[0…count)`, one behind the other. 0 or -errno, recorded. Where
 * pages have vanished meanwhile, it may make a run shorter; its place in the buffer stays as long as it was.
 */
typedef int page_source(void *from, struct page_run *runs, size_t count, char *buffer) must_check;

/*
 * Writes the pages of the runs of layer 0; those of others are left to the parent. Pages of zeros are left out if `skips_zeros`.
 */
int page_writer_add(struct page_writer *writer, const struct page_runs *runs, unsigned flags,
		    bool skips_zeros, page_source *source, void *from) must_check;
/*
 * Closes the sink. `result` is what has come of everything so far: after an error no more is written, nothing else told, and it is
 * returned. NULL is fine.
 */
int page_writer_close(struct page_writer *writer, int result) must_check;

/* A source: the memory of a task. `from` is a struct task_memory *. */
struct task_memory {
	pid_t pid;
	struct helper_thread *helper; /* reads the second half of a large part; not owned; NULL: nobody does */
	int pidfd;
	int mem;	    /* /proc/PID/mem, for what process_vm_readv() may not or should not read; -1 */
	bool has_relatives; /* what is to be read next is shared with others since a fork */
	bool is_running;    /* pages may vanish, and the task with them */
};
int task_memory_open(struct task_memory *memory, pid_t pid, int pidfd, int proc)
	must_check; /* 0 or -errno, recorded */
void task_memory_close(struct task_memory *memory);
page_source pages_of_task;

#endif
