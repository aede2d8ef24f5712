/*
 * proc_files.h - files and directories of /proc about a process: kind regular saves and restores them.
 */
#ifndef CRIU_FILES_KINDS_PROC_FILES_H
#define CRIU_FILES_KINDS_PROC_FILES_H

#include <stdbool.h>
#include <sys/types.h>
#include "compiler.h"
#include "files/seen.h"
#include "model/snapshot.h"

/* Whom it is about. */
enum proc_subject {
	PROC_NOBODY, /* it is no such file, or about a living process outside of the tree, and so always there */
	PROC_PROCESS, /* of the tree: it is there again when the process is */
	PROC_THREAD,  /* of the tree, and not the first of its process */
	PROC_ENDED,   /* reading it fails with ESRCH */
};

/* Dump. */
enum proc_subject proc_file_seen(const struct snapshot *snapshot, const struct seen_file *seen) must_check;
/* Is it the path of a file about a process of the tree, which is not there before the process is? */
bool proc_path_is_of_tree(const struct snapshot *snapshot, const char *path) must_check;
/* Does a process that is made for it have such a file, too? */
bool proc_file_is_common(const char *path) must_check;
/*
 * Notes in the images that the process has ended. In the format of criu 4.2.1, that is said of a process, for all
 * files about it; so if its number is in use again, or only a thread has ended, the file says it itself.
 */
void proc_file_note_ended(struct snapshot *snapshot, struct file *file);

/* Restore. */
/* remap-fpath.img has been read: sets `ended` of all files that it is said of. */
void proc_files_find_ended(struct snapshot *snapshot);
enum proc_subject proc_file_subject(const struct snapshot *snapshot, const struct file *file) must_check;
/* Opens the file of a process that ends at once, if possible with the same pid. A descriptor or -errno, recorded. */
int proc_file_open_ended(const char *path, int flags) must_check;

#endif
