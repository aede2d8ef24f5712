/*
 * watched.h - inodes that inotify and fanotify watch. The kernel tells their device, number and file handle, but no
 * path.
 */
#ifndef CRIU_FILES_WATCHED_H
#define CRIU_FILES_WATCHED_H

#include <stdbool.h>
#include <stdint.h>
#include "compiler.h"
#include "fh.pb-c.h"
#include "model/snapshot.h"

struct watched {
	uint32_t device; /* of the file system, as the kernel counts: major << 20 | minor */
	uint64_t inode;
	FhEntry *handle; /* owned by a message; bytes is 0: the kernel tells none */
};

/* "… ino:A sdev:B … fhandle-bytes:C fhandle-type:D f_handle:E" of fdinfo. Makes handle. 0 or -EINVAL, not recorded. */
int watched_parse(const char *text, struct watched *watched) must_check;

/* Does the path itself (not what a link leads to) lead to the inode? */
bool watched_is_at(struct snapshot *snapshot, const struct watched *watched, const char *path) must_check;

/* The same for any path, which may lead through a link. */
bool watched_is_behind(struct snapshot *snapshot, const struct watched *watched, const char *path) must_check;

/* ---- dump ---- */

/*
 * Sets handle->path, by the file handle, or where other files of the tree are. What is not found now is looked for by
 * watched_judge(). `words`: "watch 3" of `file`; owned from now on. Call it when all files are recognized.
 */
void watched_find(struct snapshot *snapshot, const struct file *file, const struct watched *watched,
		  char *words);
/* Does handle->path lead to it now? Sets it if so. */
bool watched_take_path(struct snapshot *snapshot, const struct watched *watched, const char *path) must_check;

/* A watch of which no path is known. */
struct missing {
	struct watched watched;
	const struct file *file;
	char *words;
	bool is_deleted; /* it has no path any more */
};
/*
 * watched_missing.c, when all files are described. Sets handle->file of those that a process of the tree has open, and
 * handle->path of those that watched_scan() finds. Refuses the others. Several kinds may call it.
 */
void watched_judge(struct snapshot *snapshot);
void watched_note_missing(struct snapshot *snapshot, const struct missing *missing);
/* --force-irmap, --irmap-scan-path: looks through directories for all of those that have no path yet, at once. */
void watched_scan(struct snapshot *snapshot, struct missing *items, size_t count);

/* A mount, by its number, or any that shows all of a file system; NULL: none that a path leads to. */
const char *watched_mount_point(struct snapshot *snapshot, int number, uint32_t *device) must_check;
const char *watched_system_mount_point(struct snapshot *snapshot, uint32_t device) must_check;

/* ---- restore ---- */

/* Why the message of an image is invalid, or NULL. */
const char *watched_why_invalid(const struct snapshot *snapshot, const FhEntry *handle);

/* Where an inode is: at a path, or, if that is NULL, behind a descriptor (O_PATH). */
struct watched_place {
	const char *path; /* of the message */
	int fd;		  /* -1: none; owned */
};
/*
 * When files are opened, until all are: a place by handle->file, the path or the handle. -ENOENT, not recorded: there is
 * no such inode. -errno, recorded: a failure.
 */
int watched_locate(struct snapshot *snapshot, const struct watched *watched, struct watched_place *place)
	must_check;
/* Before any file is opened: is there such an inode? 0 or -ENOENT, not recorded. */
int watched_check(struct snapshot *snapshot, const struct watched *watched) must_check;
/* A path for calls; `buffer` may hold it. Does it lead through a link that is to be followed? */
const char *watched_path(const struct watched_place *place, char buffer[32]);
/* How many descriptors the place may need. */
size_t watched_keeps(const FhEntry *handle);

#endif
