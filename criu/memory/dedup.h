/*
 * dedup.h - frees pages in the images of a chain that are no longer needed: punches holes; sizes and pagemaps do not
 * change.
 *
 * A directory that loses pages is marked before it loses the first one (inventory_entry.freed_for). page_chain_open()
 * refuses a chain that reaches it without passing the snapshot for which the pages were freed. Another criu does not
 * know the mark, and reads zeros.
 */
#ifndef CRIU_MEMORY_DEDUP_H
#define CRIU_MEMORY_DEDUP_H

#include "memory/chain.h"

struct dedup_statistics {
	uint64_t pages; /* pages that were freed */
	uint64_t bytes; /* disk space that became free; less, if they were holes or shared already */
	size_t layers;	/* the number of layers they were in */
};

/*
 * Frees what the newest snapshot of the chain does not see in its parents. The newest must be complete. All errors are
 * found before anything is changed. 0 or -errno, recorded.
 */
int page_chain_dedup(struct page_chain *chain, struct dedup_statistics *statistics) must_check;
/* Frees what the newest sees, in all layers, after it was restored. These directories cannot be restored again. */
int page_chain_consume(struct page_chain *chain, struct dedup_statistics *statistics) must_check;

#endif
