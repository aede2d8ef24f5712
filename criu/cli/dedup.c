/*
 * dedup.c - `criu dedup -D DIR`: frees the pages in the parents of DIR that its snapshot replaces. memory/dedup.c does
 * the work.
 */
#include <errno.h>
#include <stdio.h>
#include "base/error.h"
#include "cli/commands.h"
#include "cli/directories.h"
#include "memory/dedup.h"

static void print_freed(const struct page_chain *chain, const struct dedup_statistics *statistics)
{
	if (page_chain_length(chain) == 1)
		printf("%s has no parent: there is nothing to free\n",
		       image_store_name(page_chain_store(chain, 0)));
	else
		printf("freed %llu pages in %zu of %zu parents: %llu KiB of disk\n",
		       (unsigned long long)statistics->pages, statistics->layers,
		       page_chain_length(chain) - 1, (unsigned long long)statistics->bytes >> 10);
}

int command_dedup(const struct options *options)
{
	struct dedup_statistics statistics;
	struct page_chain *chain = NULL;
	struct image_store *store;
	int result = image_store_open_directory(&store, images_path(options), false);

	if (result)
		return result;
	result = page_chain_open_locked(&chain, store, IMAGES_ARE_WRITTEN) ?:
			 page_chain_dedup(chain, &statistics);
	if (!result)
		print_freed(chain, &statistics);
	page_chain_close(chain);
	image_store_close(store);
	if (!result && fflush(stdout))
		return fail(errno, "cannot write to the standard output");
	return result;
}
