/*
 * dedup.h - frees pages in the images of a chain that nobody needs any more: holes are punched, sizes and pagemaps stay.
 *
 * A directory that has lost pages says so before it loses the first one (inventory_entry.freed_for): what does not come by the
 * snapshot that needed no more of it is refused by page_chain_open(). A peer knows nothing of that, and reads zeros.
 */
#ifndef CRIU_MEMORY_DEDUP_H
#define CRIU_MEMORY_DEDUP_H

#include "memory/chain.h"

struct dedup_statistics {
	uint64_t pages; /* that were given up */
	uint64_t bytes; /* that the disk has got back; less, where they were holes or shared already */
	size_t layers;	/* that they were in */
};

/*
 * What the newest snapshot of the chain does not see of its parents. The newest must be complete. All that can be wrong is found
 * before anything is changed. 0 or -errno, recorded.
 */
int page_chain_dedup(struct page_chain *chain, struct dedup_statistics *statistics) must_check;
/* What the newest sees, of all: after it was restored. Nobody can restore from these directories again. */
int page_chain_consume(struct page_chain *chain, struct dedup_statistics *statistics) must_check;

#endif
