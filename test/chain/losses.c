/*
 * losses.c - damages a tracker or a chain between two snapshots.
 *
 * The next snapshot may be larger because of that, but never wrong.
 */
#include <dirent.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "driver.h"

/*
 * Steps in which a dump fails: before, during and after its work on the tracker, also when the processes already run.
 * The last step is not among them, because it cannot be undone.
 */
static const char *const failing_steps[] = {
	"look ahead",		"begin the images",	    "read ahead",
	"freeze the processes", "look at the processes",    "save the memory",
	"save the files",	"let the processes run on", "keep track of the memory",
	"complete the images",
};

#define FAILING_STEPS (sizeof(failing_steps) / sizeof(failing_steps[0]))

/* Calls `visit` for each name that matches. Returns how often it returned true. */
static int each(const char *directory, const char *pattern,
		bool (*visit)(const char *directory, const char *name))
{
	DIR *open_directory = opendir(directory);
	struct dirent *entry;
	int count = 0;

	while (open_directory && (entry = readdir(open_directory)))
		if (!fnmatch(pattern, entry->d_name, 0))
			count += visit(directory, entry->d_name);
	if (open_directory)
		closedir(open_directory);
	return count;
}

static bool remove_file(const char *directory, const char *name)
{
	char path[400];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	return !unlink(path);
}

static bool kill_keeper(const char *directory, const char *name)
{
	char path[300], text[20] = "";
	int fd;

	snprintf(path, sizeof(path), "%s/%s/comm", directory, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(fd);
	return !strncmp(text, "criu-keeper", 11) && !kill(atoi(name), SIGKILL);
}

static bool remove_from(const struct run *run, const char *last, const char *pattern)
{
	char directory[160];

	snprintf(directory, sizeof(directory), "%s/%s", run->directory, last);
	return each(directory, pattern, remove_file);
}

static bool fail_a_dump(struct run *run, uint64_t *random, const char *last)
{
	command_dump_that_fails(run, "lost", last, failing_steps[random_below(random, FAILING_STEPS)]);
	return true;
}

const char *loss_inflict(struct run *run, uint64_t *random, const char *last)
{
	switch (random_below(random, 6)) {
	case 0: /* /proc shows only processes of this namespace */
		return each("/proc", "[1-9]*", kill_keeper) ? "the keeper killed" : NULL;
	case 1:
		return remove_from(run, last, "hashes-*.img") ? "the hashes deleted" : NULL;
	case 2:
		return remove_from(run, last, "tracking*.img") ? "the tracking image deleted" : NULL;
	case 3:
		return !run->peer_dumps && fail_a_dump(run, random, last) ? "a dump that failed" : NULL;
	case 4:
		if (!run->can_dedup)
			return NULL;
		command_on(run, "dedup", last);
		return "dedup";
	default:
		if (!run->can_flatten)
			return NULL;
		command_on(run, "flatten", last);
		return "flatten";
	}
}
