/*
 * untrack.c - `criu untrack [DIR]`: ends the tracking that a snapshot began with --track-mem, when no other snapshot
 * will follow.
 */
#include <errno.h>
#include <stdio.h>
#include "base/error.h"
#include "cli/commands.h"
#include "cli/directories.h"
#include "memory/increment.h"

int command_untrack(const struct options *options)
{
	const char *directory = named_path(options);
	struct image_store *store;
	bool had_keeper;
	int result;

	result = image_store_open_directory(&store, directory, false);
	if (result)
		return result;
	result = image_store_lock(store, IMAGES_ARE_WRITTEN) ?: increment_end(store, &had_keeper);
	if (!result)
		printf("tracking has ended: the next snapshot after %s will compare all memory%s\n",
		       directory, had_keeper ? "; its process criu-keeper has ended" : "");
	else if (result == -ENOENT)
		result = fail(
			0,
			"%s tracks nothing: it was made without --track-mem, or a later snapshot tracks the memory",
			directory);
	image_store_close(store);
	return result;
}
