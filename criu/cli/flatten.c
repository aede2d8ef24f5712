/*
 * flatten.c - `criu flatten DIR [-o OUT]`: merges a chain of snapshots into one directory. memory/flatten.c does the
 * work.
 */
#include <errno.h>
#include <stdio.h>
#include "base/error.h"
#include "cli/commands.h"
#include "cli/directories.h"
#include "memory/flatten.h"

static void print_merged(const struct image_store *store, const struct flatten_statistics *statistics)
{
	if (statistics->layers == 1 && !statistics->pages)
		printf("%s has no parent: it is flat already\n", image_store_name(store));
	else
		printf("merged %zu snapshots: %llu pages, %llu KiB shared with the old images, %llu KiB copied\n",
		       statistics->layers, (unsigned long long)statistics->pages,
		       (unsigned long long)statistics->shared >> 10,
		       (unsigned long long)statistics->copied >> 10);
}

static int flatten(const struct options *options, struct image_store *store)
{
	struct flatten_statistics statistics;
	struct image_store *out;
	int result;

	if (!options->output_dir) {
		result = flatten_in_place(store, &statistics);
		if (!result)
			print_merged(store, &statistics);
		return result;
	}
	result = image_store_open_directory(&out, options->output_dir, true);
	if (result)
		return result;
	result = flatten_into(store, out, &statistics);
	if (!result)
		print_merged(out, &statistics);
	image_store_close(out);
	return result;
}

int command_flatten(const struct options *options)
{
	struct image_store *store;
	int result = image_store_open_directory(&store, named_path(options), false);

	if (result)
		return result;
	result = flatten(options, store);
	image_store_close(store);
	if (!result && fflush(stdout))
		return fail(errno, "cannot write to the standard output");
	return result;
}
