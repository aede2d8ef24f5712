/*
 * terminal_holder.c - restore: finds another process that uses a terminal number of the tree. See terminal.h.
 *
 * Looks at all descriptors of all processes, as far as it is permitted.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "files/kinds/terminal.h"

/* Other mounts of devpts have numbers of their own. */
struct wanted {
	uint32_t number;
	dev_t slaves, master;
};

static bool is_master_of(int proc, const char *fd, uint32_t number)
{
	autofree char *path = format_text("fdinfo/%s", fd), *text = NULL;
	const char *line = read_text_at(proc, path, &text) < 0 ? NULL : strstr(text, "tty-index:");

	return line && strtoul(line + strlen("tty-index:"), NULL, 10) == number;
}

static bool is_held_by(int proc, const struct wanted *wanted, const char *fd)
{
	autofree char *path = format_text("fd/%s", fd);
	struct stat found;

	if (fstatat(proc, path, &found, 0) < 0 || !S_ISCHR(found.st_mode))
		return false;
	if (found.st_rdev == makedev(PTS_MAJOR, wanted->number))
		return found.st_dev == wanted->slaves;
	return found.st_rdev == PTMX_DEVICE &&
	       (found.st_dev == wanted->slaves || found.st_dev == wanted->master) &&
	       is_master_of(proc, fd, wanted->number);
}

static bool holds(int proc, const struct wanted *wanted)
{
	int list = openat(proc, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *directory = list < 0 ? NULL : fdopendir(list);
	struct dirent *entry;
	bool found = false;

	if (!directory)
		return false;
	while (!found && (entry = readdir(directory)))
		found = isdigit((unsigned char)entry->d_name[0]) && is_held_by(proc, wanted, entry->d_name);
	closedir(directory);
	return found;
}

char *terminal_holder(uint32_t number)
{
	struct wanted wanted = { .number = number };
	autofree pid_t *pids = NULL;
	size_t count = 0;
	struct stat found;
	char *holder = NULL;

	if (stat("/dev/pts", &found) == 0)
		wanted.slaves = found.st_dev;
	if (stat("/dev/ptmx", &found) == 0)
		wanted.master = found.st_dev;
	if (proc_read_pids(&pids, &count))
		return NULL;
	for (size_t i = 0; i < count && !holder; i++) {
		autofree char *name = NULL;
		autoclose int proc = -1;

		if (pids[i] == getpid())
			continue;
		proc = proc_open(pids[i]);
		if (proc < 0 || !holds(proc, &wanted) || read_text_at(proc, "comm", &name) < 0)
			continue;
		name[strcspn(name, "\n")] = '\0';
		holder = format_text("process %d (%s)", pids[i], name);
	}
	return holder;
}
