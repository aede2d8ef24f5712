/*
 * page_sink.h - where a page writer (pages.h) puts the pages that it has chosen. In production these are the images of
 * a directory (page_files.h); unit tests have a sink in memory.
 *
 * The writer works in rounds. In each round it asks for a buffer, fills it with pages, tells with add() which pages
 * these are, and ends the round with advance(). So a sink sees every byte once, in its own memory, and need not copy
 * anything.
 */
#ifndef CRIU_MEMORY_PAGE_SINK_H
#define CRIU_MEMORY_PAGE_SINK_H

#include <stddef.h>
#include "compiler.h"
#include "memory/runs.h"

struct page_sink;

/*
 * All are called by the thread that owns the writer. An error is 0 or -errno, recorded; after one, only close() is
 * called.
 */
struct page_sink_ops {
	/*
	 * Returns a buffer for the next pages: page-aligned, *room bytes, at least a page. It may wait. NULL: an error,
	 * recorded.
	 */
	char *(*buffer)(struct page_sink *sink, size_t *room);
	/*
	 * Adds the next pages of the process, in ascending order of addresses; `flags` are PAGES_*. The bytes of
	 * PAGES_PRESENT pages are in the buffer, one page after the other in the order of these calls. PAGES_IN_PARENT
	 * pages have no bytes.
	 */
	int (*add)(struct page_sink *sink, uint64_t start, uint64_t count, unsigned flags) must_check;
	/*
	 * The bytes of all pages added in this round are in the buffer: `size` bytes, which may be 0. The buffer
	 * belongs to the sink again.
	 */
	int (*advance)(struct page_sink *sink, size_t size) must_check;
	/*
	 * Always called once, last; it frees the sink. `result` is the result of everything so far: after an error the
	 * sink drops what it has, reports nothing more, and returns that error.
	 */
	int (*close)(struct page_sink *sink, int result) must_check;
};

/* The first member of every sink. */
struct page_sink {
	const struct page_sink_ops *ops;
};

#endif
