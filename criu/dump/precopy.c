/*
 * precopy.c - copies memory while the processes run (--pre-rounds), so that a dump freezes them only for what was written
 * since.
 *
 * A round is a pre-dump into a subdirectory of the images; the dump then has the last round as its parent. When the dump
 * is complete, all are merged into its directory, which had been a chain of its own parts until then:
 *
 *	DIR/.precopy-1      all memory
 *	DIR/.precopy-2      what was written meanwhile; less with each round
 *	DIR                 the dump: the rest; then flatten_in_place()
 *
 * More rounds are no use when little was written, or no less than in the round before.
 *
 * Between two rounds a keeper (keeper.h) notes what is written. It ends if criu dies.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "dump/dump.h"
#include "image/image.h"
#include "memory/tracker.h"

#define NAME_PREFIX ".precopy-"
#define MOST_ROUNDS 30
#define AUTO_ROUNDS 8
#define LITTLE	    1024 /* pages: they are read in a few milliseconds */

struct rounds {
	const struct request *request;
	unsigned count; /* that were made */
	uint64_t pages; /* of the last one */
	int keeping;	/* see struct round; -1 */
};

static char *round_name(unsigned number)
{
	return format_text(NAME_PREFIX "%u", number);
}

/* Everything in it; there are no directories. */
static void remove_directory(int parent, const char *name)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;

	while (directory && (entry = readdir(directory)))
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			unlinkat(fd, entry->d_name, 0);
	if (directory)
		closedir(directory);
	else if (fd >= 0)
		close(fd);
	if (unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		log_warning("cannot remove %s: %s", name, strerror(errno));
}

/* Also those that a criu that was killed has left. */
static void remove_rounds(const struct request *request)
{
	int parent = image_store_directory(request->images);

	for (unsigned number = 1; number <= MOST_ROUNDS; number++) {
		autofree char *name = round_name(number);

		if (!faccessat(parent, name, F_OK, AT_SYMLINK_NOFOLLOW))
			remove_directory(parent, name);
	}
}

static int open_round(const struct request *request, const char *name, struct image_store **images,
		      int *directory)
{
	int parent = image_store_directory(request->images);

	if (mkdirat(parent, name, 0700) < 0)
		return fail(errno, "cannot create %s/%s", image_store_name(request->images), name);
	*directory = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (*directory < 0)
		return fail(errno, "cannot open %s/%s", image_store_name(request->images), name);
	return image_store_open_fd(images, *directory, true) ?: image_store_lock(*images, IMAGES_ARE_WRITTEN);
}

static void keep(struct rounds *rounds, int keeping)
{
	if (rounds->keeping >= 0)
		close(rounds->keeping);
	rounds->keeping = keeping;
}

/* Only memory concerns it. */
static int make_round(struct rounds *rounds)
{
	autofree char *name = round_name(rounds->count + 1), *last = round_name(rounds->count);
	autofree char *previous = format_text("../%s", last);
	struct request request = *rounds->request;
	struct round round = { .keeping = -1 };
	uint64_t began = monotonic_time();
	int directory = -1, result;

	request.images = NULL;
	request.previous = rounds->count ? previous : NULL;
	request.previous_directory = -1;
	request.tracker = request.tracker ?: "";
	request.moments = (struct moments){ 0 };
	request.externals = NULL;
	request.auto_dedup = false;
	request.max_chain = 0;
	result = open_round(rounds->request, name, &request.images, &directory) ?:
										  dump_open_previous(&request);
	request.work_directory = directory;
	result = result ?: pre_dump_round(&request, &round);
	image_store_close(request.images);
	if (directory >= 0)
		close(directory);
	if (request.previous_directory >= 0)
		close(request.previous_directory);
	if (result)
		return fail_in(result, "round %u, while the processes run", rounds->count + 1);
	keep(rounds, round.keeping);
	rounds->count++;
	rounds->pages = round.pages;
	log_info("round %u: copied %llu pages in %llu ms", rounds->count, (unsigned long long)round.pages,
		 (unsigned long long)(monotonic_time() - began) / 1000000);
	return 0;
}

static bool is_enough(const struct rounds *rounds, uint64_t before)
{
	unsigned wanted = rounds->request->pre_rounds;

	if (wanted != PRE_ROUNDS_AUTO)
		return rounds->count >= wanted;
	if (rounds->count < 2)
		return rounds->pages <= LITTLE && rounds->count;
	return rounds->count >= AUTO_ROUNDS || rounds->pages <= LITTLE || rounds->pages > before / 4 * 3;
}

static int make_rounds(struct rounds *rounds)
{
	uint64_t before = 0;
	int result = 0;

	while (!result && rounds->count < MOST_ROUNDS && !is_enough(rounds, before)) {
		before = rounds->pages;
		result = make_round(rounds);
	}
	return result;
}

/* A tracker that compares all memory while the processes are frozen saves nothing. */
static bool is_tracked(const struct request *request)
{
	const struct tracker *tracker = request->tracker && *request->tracker ?
						tracker_find_name(request->tracker) :
						tracker_best();

	if (tracker && tracker != &tracker_content)
		return true;
	log_warning(
		"--pre-rounds: nothing here tells which pages are written, so no memory is copied before the freeze");
	return false;
}

static int dump_the_rest(struct rounds *rounds)
{
	autofree char *last = round_name(rounds->count);
	struct request request = *rounds->request;
	int result;

	request.previous = last;
	request.max_chain = 1;
	result = dump_open_previous(&request) ?: dump_once(&request);
	if (request.previous_directory >= 0)
		close(request.previous_directory);
	return result;
}

/* If the parts could not be merged (there was a warning), the dump still needs its rounds. */
static bool needs_rounds(const struct request *request)
{
	return !faccessat(image_store_directory(request->images), "parent", F_OK, AT_SYMLINK_NOFOLLOW);
}

int dump_after_rounds(const struct request *request)
{
	struct rounds rounds = { .request = request, .keeping = -1 };
	int result;

	if (!is_tracked(request))
		return dump_once(request);
	remove_rounds(request);
	result = make_rounds(&rounds) ?: dump_the_rest(&rounds);
	keep(&rounds, -1);
	if (result || !needs_rounds(request))
		remove_rounds(request);
	return result;
}
