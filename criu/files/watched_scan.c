/*
 * watched_scan.c - dump: looks through directories for watched inodes whose path is not known (--force-irmap,
 * --irmap-scan-path).
 *
 * Directories are read with getdents64(2), whose entries have the number of the inode: no file is looked at unless its
 * number is wanted. All inodes are looked for in one pass, which ends when all are found. The walk stays in the file
 * system in which it begins.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/index.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/watched.h"

#define DEEPEST 64 /* directories below each other, each of which takes a descriptor */

/* Where to look without --irmap-scan-path: what programs usually watch. */
static const char *const usual[] = { "/etc", "/run", "/var", "/home", "/root", "/srv", "/tmp", "/usr/share" };

struct scan {
	struct snapshot *snapshot;
	struct missing *items;
	size_t count, missing;
	struct index by_inode; /* chained by `next` */
	size_t *next;	       /* 1 + the next one with the same inode; 0: none */
	dev_t device;
	size_t seen;
};

static void offer(struct scan *scan, const char *path, uint64_t inode)
{
	struct missing *first = index_find(&scan->by_inode, inode);
	size_t at = first ? first - scan->items + 1 : 0;

	for (; at; at = scan->next[at - 1]) {
		struct missing *item = &scan->items[at - 1];

		if (item->watched.handle->path || !watched_take_path(scan->snapshot, &item->watched, path))
			continue;
		scan->missing--;
		log_info("inode %llu is %s", (unsigned long long)item->watched.inode, path);
	}
}

static void walk(struct scan *scan, int parent, const char *name, const char *path, int depth)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *directory = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	struct stat found;

	if (!directory) {
		if (fd >= 0)
			close(fd);
		return;
	}
	if (fstat(fd, &found) < 0 || (depth && found.st_dev != scan->device)) {
		closedir(directory);
		return;
	}
	scan->device = found.st_dev;
	while (scan->missing && (entry = readdir(directory))) {
		autofree char *inner = NULL;
		bool is_directory;

		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		scan->seen++;
		is_directory = entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN;
		if (!is_directory && !index_find(&scan->by_inode, entry->d_ino))
			continue;
		inner = format_text("%s/%s", path[1] ? path : "", entry->d_name);
		offer(scan, inner, entry->d_ino);
		if (is_directory && depth < DEEPEST)
			walk(scan, fd, entry->d_name, inner, depth + 1);
	}
	closedir(directory);
}

static void scan_from(struct scan *scan, const char *path)
{
	struct stat found;

	if (!scan->missing || stat(path, &found) < 0)
		return;
	offer(scan, path, found.st_ino);
	walk(scan, AT_FDCWD, path, path, 0);
}

void watched_scan(struct snapshot *snapshot, struct missing *items, size_t count)
{
	const struct texts *paths = &snapshot->policy.irmap_paths;
	struct scan scan = { .snapshot = snapshot, .items = items, .count = count };
	autofree size_t *next = allocate_array(count + 1, sizeof(*next));

	scan.next = next;
	for (size_t i = 0; i < count; i++) {
		struct missing *same = index_find(&scan.by_inode, items[i].watched.inode);

		if (items[i].watched.handle->path)
			continue;
		scan.missing++;
		next[i] = same ? same - items + 1 : 0;
		index_set(&scan.by_inode, items[i].watched.inode, &items[i]);
	}
	for (size_t i = 0; i < paths->count; i++)
		scan_from(&scan, paths->items[i]);
	for (size_t i = 0; snapshot->policy.forces_irmap && i < array_size(usual); i++)
		scan_from(&scan, usual[i]);
	if (scan.seen)
		log_info("looked at %zu files for watched inodes, %zu were not found", scan.seen,
			 scan.missing);
	index_free(&scan.by_inode);
}
