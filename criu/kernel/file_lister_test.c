/*
 * file_lister_test.c - does criu understand this kernel's open files? It opens some, lists its own table as it lists
 * those of other processes, and compares that with what it has done and with /proc.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/file_lister.h"
#include "kernel/proc.h"

enum example { LOCKED, AGAIN, EVENTS, OWNED, OTHER_END, PATH, EXAMPLES };

struct examples {
	int fds[EXAMPLES];
	const struct listed_file *found[EXAMPLES];
};

static bool make_examples(struct examples *examples)
{
	int *fds = examples->fds, ends[2];

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0) {
		fds[OWNED] = ends[0];
		fds[OTHER_END] = ends[1];
	}
	fds[LOCKED] = memfd_create("listed", MFD_CLOEXEC);
	fds[AGAIN] = fcntl(fds[LOCKED], F_DUPFD, 100);
	fds[EVENTS] = eventfd(0, EFD_CLOEXEC);
	fds[PATH] = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; i < EXAMPLES; i++)
		if (fds[i] < 0)
			return false;
	return write(fds[LOCKED], "12345", 5) == 5 && flock(fds[LOCKED], LOCK_EX) == 0 &&
	       fcntl(fds[OWNED], F_SETOWN, getpid()) == 0;
}

static const struct listed_file *find(const struct listed_file *files, size_t count, int fd)
{
	for (size_t i = 0; i < count; i++)
		if (files[i].fd == fd)
			return &files[i];
	return NULL;
}

/* Has each what /proc shows, and no address that another file has? */
static int compare_with_proc(const struct examples *examples)
{
	autoclose int self = proc_open(getpid());

	for (size_t i = 0; i < EXAMPLES; i++) {
		const struct listed_file *found = examples->found[i];
		struct proc_fdinfo info;
		int result = proc_read_fdinfo(self, found->fd, &info);

		free(info.rest);
		if (result)
			return result;
		if (found->position != info.position || found->flags != info.flags ||
		    found->mount != info.mount || !found->file)
			return false;
		for (size_t k = 0; k < i; k++)
			if ((found->file == examples->found[k]->file) != (i == AGAIN && k == LOCKED))
				return false;
	}
	return true;
}

static bool are_told_apart(const struct examples *examples)
{
	const struct listed_file *const *found = examples->found;

	return found[LOCKED]->had_locks && !found[LOCKED]->had_owner && !found[LOCKED]->has_lines &&
	       found[EVENTS]->has_lines && !found[EVENTS]->had_owner && found[OWNED]->had_owner &&
	       !found[OWNED]->had_locks && !found[OWNED]->has_lines && !found[OTHER_END]->had_owner &&
	       !found[OTHER_END]->had_locks && !found[OTHER_END]->has_lines && !found[PATH]->had_owner;
}

int file_lister_test(const struct file_lister *lister)
{
	struct examples examples = { .fds = { -1, -1, -1, -1, -1, -1 } };
	autofree struct listed_file *files = NULL;
	size_t count = 0;
	int result = make_examples(&examples) ? file_lister_list(lister, gettid(), &files, &count) :
						fail(errno, "cannot prepare to list files");

	for (size_t i = 0; !result && i < EXAMPLES; i++) {
		examples.found[i] = find(files, count, examples.fds[i]);
		if (!examples.found[i])
			result = fail(EOPNOTSUPP, "the list of files lacks one of criu's own");
	}
	if (!result)
		result = compare_with_proc(&examples);
	for (size_t i = 0; i < EXAMPLES; i++)
		autoclose_clean(&examples.fds[i]);
	if (result < 0)
		return result;
	return result && are_told_apart(&examples) ?
		       0 :
		       fail(EOPNOTSUPP, "criu does not understand this kernel's open files");
}
