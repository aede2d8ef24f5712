/*
 * listed.h - the memory of a task whose pages are listed while it is frozen, and read later: in a pre-dump, or from its
 * twin (twin.c).
 */
#ifndef CRIU_DUMP_LISTED_H
#define CRIU_DUMP_LISTED_H

#include "compiler.h"
#include "dump/dump.h"

struct listed_area {
	const struct vma *vma;
	bool is_scanned;
	struct page_runs changed, unchanged; /* as the scan has found them … */
	struct page_runs plan;		     /* … or, if there is a source, what is saved */
	page_source *source;		     /* NULL: delta.memory */
	void *from;
	void *bytes; /* of pages that have been read already; owned */
};

struct listed_memory {
	struct task_delta delta;
	struct listed_area *areas;
	size_t count;
};

/* Opens the delta, and finds all mappings that are `is_wanted`. To be freed in any case. */
int listed_open(struct listed_memory *listed, struct dump *dump, struct task *task,
		bool (*is_wanted)(const struct dump *dump, const struct vma *vma)) must_check;
/* Lists the pages of the area, or of all. What is not listed when it is saved is listed then. */
int listed_scan(const struct dump *dump, struct listed_memory *listed, struct listed_area *area) must_check;
int listed_scan_all(const struct dump *dump, struct listed_memory *listed) must_check;
/* Decides now what is saved of the area: later it gets a source. */
int listed_plan(struct listed_memory *listed, struct listed_area *area) must_check;
/* Writes all pages. */
int listed_save(const struct dump *dump, struct listed_memory *listed, struct page_writer *writer) must_check;
void listed_free(struct listed_memory *listed);

#endif
