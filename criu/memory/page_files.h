/*
 * page_files.h - the page sink (page_sink.h) that writes the images of a directory: pagemap-*.img tells which pages
 * there are, pages-*.img holds their bytes.
 */
#ifndef CRIU_MEMORY_PAGE_FILES_H
#define CRIU_MEMORY_PAGE_FILES_H

#include "compiler.h"
#include "memory/page_sink.h"
#include "memory/pages.h"
#include "memory/stream.h"

struct page_files {
	struct image_store *store;
	enum image_kind kind;		      /* of the pagemap image … */
	unsigned long id;		      /* … and its number: a pid, or a shared memory's id */
	uint32_t pages_id;		      /* pages-N.img, unique in the directory */
	const struct page_hashing *hashing;   /* NULL: no hashes are kept */
	const struct stream_reserve *reserve; /* NULL: a few buffers (stream.h) */
	uint64_t usual_size;		      /* bytes that are expected at most; 0: not known */
	char *memory;			      /* for buffers: see struct stream_file */
	size_t memory_size;
};

/* 0 or -errno, recorded. To be closed in any case. The store stays open until then. */
int page_files_open(struct page_sink **sink, const struct page_files *files,
		    struct stream_statistics *statistics) must_check;
/*
 * Opens a page writer with such a sink, which also writes the hashes. The statistics outlive the writer. 0 or -errno,
 * recorded. To be closed in any case.
 */
int page_files_write(struct page_writer **writer, const struct page_files *files,
		     struct page_statistics *statistics) must_check;

#endif
