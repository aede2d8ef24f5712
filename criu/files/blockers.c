/*
 * blockers.c - see blockers.h.
 *
 * The kernel lets nobody open a file that is marked for permission events before the process that has marked it agrees.
 * criu opens files of the tree, and its own images, while that process is frozen, and the kernel does not tell whether
 * a mark of a mount or a directory covers one of them. So no such mark is accepted. Who looks at a file of a FUSE file
 * system waits for its server in the same way. This look comes before the freeze, when the process still answers.
 *
 * A thread may have a table of descriptors of its own (unshare(CLONE_FILES)). That is refused, too, but only later.
 */
#include <errno.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "criu-plugin.h"
#include "files/blockers.h"
#include "files/seen.h"
#include "kernel/proc.h"
#include "model/external.h"
#include "plugins/plugins.h"

#define FUSE_DEVICE makedev(10, 229)
#define DEVICES	    "/dev/"

bool files_link_may_block(const char *link)
{
	return !strcmp(link, FANOTIFY_LINK) || !strncmp(link, DEVICES, strlen(DEVICES));
}

static bool has_permission_marks(const char *fdinfo)
{
	static const char word[] = " mask:";
	const char *at = fdinfo;
	unsigned mask;

	while ((at = strstr(at, word))) {
		at += strlen(word);
		if (sscanf(at, "%x", &mask) == 1 && mask & PERMISSION_EVENTS)
			return true;
	}
	return false;
}

static bool is_deciding(int proc, int fd)
{
	struct proc_fdinfo info;
	bool result;

	if (attempted(proc_read_fdinfo(proc, fd, &info)))
		return false;
	result = has_permission_marks(info.rest);
	free(info.rest);
	return result;
}

static bool is_fuse(int proc, const char *place)
{
	struct stat found;

	return fstatat(proc, place, &found, 0) == 0 && S_ISCHR(found.st_mode) && found.st_rdev == FUSE_DEVICE;
}

/* `proc` is of a process or of one of its threads. It runs: what it closes meanwhile does not count. */
static int look_at_descriptor(const struct snapshot *snapshot, int proc, pid_t pid, int fd)
{
	struct proc_stat stat = { .comm = "?" };
	autofree char *place = format_text("fd/%d", fd), *link = NULL;
	const char *why = NULL;

	if (read_link_at(proc, place, &link) <= 0)
		return 0;
	if (!strcmp(link, FANOTIFY_LINK) && is_deciding(proc, fd))
		why = "(fanotify) " WHY_NO_PERMISSION_EVENTS;
	/* Otherwise the user or a plugin may know what to do with it. */
	else if (!plugins_have(CR_PLUGIN_HOOK__DUMP_EXT_FILE) && !externals_any(snapshot->externals) &&
		 is_fuse(proc, place))
		why = "is of a FUSE file system, which would block criu while the process is frozen: unmount "
		      "it first";
	if (!why)
		return 0;
	attempted(proc_read_stat(proc, &stat));
	return refuse("process %d (%s): descriptor %d %s", pid, stat.comm, fd, why);
}

static int look_at_table(const struct snapshot *snapshot, int proc, pid_t pid)
{
	autoclose int links = openat(proc, "fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	autofree int *fds = NULL;
	size_t count = 0;
	int result = 0;

	if (links < 0 || attempted(proc_read_descriptors(proc, &fds, &count)))
		return 0;
	for (size_t i = 0; i < count; i++) {
		char name[16], link[sizeof(FANOTIFY_LINK)];
		ssize_t length;

		snprintf(name, sizeof(name), "%d", fds[i]);
		length = readlinkat(links, name, link, sizeof(link) - 1);
		link[max(length, 0)] = '\0';
		if (files_link_may_block(link))
			result = look_at_descriptor(snapshot, proc, pid, fds[i]) ?: result;
	}
	return result;
}

static int look_at_table_ahead(const struct snapshot *snapshot, const struct table_ahead *table, int proc)
{
	int result = 0;

	for (size_t i = 0; i < table->count; i++)
		if (table->items[i].may_block)
			result = look_at_descriptor(snapshot, proc, table->pid, table->items[i].fd) ?: result;
	return result;
}

/* Those that have a table of their own. */
static int look_at_threads(const struct snapshot *snapshot, int proc, pid_t pid)
{
	autofree pid_t *threads = NULL;
	size_t count = 0;
	int result = 0;

	if (attempted(proc_read_threads(proc, &threads, &count)))
		return 0;
	for (size_t i = 0; i < count; i++) {
		autofree char *place = NULL;
		autoclose int thread = -1;

		if (threads[i] == pid || !syscall(SYS_kcmp, pid, threads[i], KCMP_FILES, 0, 0))
			continue;
		place = format_text("task/%d", threads[i]);
		thread = openat(proc, place, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (thread >= 0)
			result = look_at_table(snapshot, thread, pid) ?: result;
	}
	return result;
}

static int look_at_process(const struct snapshot *snapshot, pid_t pid)
{
	const struct table_ahead *table = files_ahead(snapshot, pid);
	autoclose int proc = proc_open(pid);
	int result;

	if (proc < 0)
		return 0;
	result = table ? look_at_table_ahead(snapshot, table, proc) : look_at_table(snapshot, proc, pid);
	return look_at_threads(snapshot, proc, pid) ?: result;
}

int files_refuse_blockers(const struct snapshot *snapshot, const pid_t *pids, size_t count)
{
	int result = 0;

	for (size_t i = 0; i < count; i++)
		result = look_at_process(snapshot, pids[i]) ?: result;
	return result;
}
