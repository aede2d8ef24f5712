/*
 * passing_name.h - gives an inode a name for a moment.
 *
 * /proc/PID/fd shows the name by which a file was opened, with " (deleted)" behind it, also when that name is gone. So
 * a file that had no name any more, and is made again, gets its old name, is opened, and loses the name at once.
 *
 * An existing file is never replaced: if the name is in use, another one is taken, which begins like it. Directories
 * that are missing on the way are made, and removed again. If criu is killed in the few microseconds between, the name
 * stays: an empty file that only its owner, criu's user, can open.
 */
#ifndef CRIU_FILES_PASSING_NAME_H
#define CRIU_FILES_PASSING_NAME_H

#include <stdint.h>
#include "compiler.h"

/* What a name in use gets: ".criu-" and eight digits. passing_name_strip() removes it. */
#define PASSING_MARK   ".criu-"
#define PASSING_DIGITS 8

/*
 * Makes the inode under `name` in the directory. 0, or -1 with errno; EEXIST: the name is in use.
 */
typedef int passing_maker(int directory, const char *name, const void *argument);

/* An O_PATH descriptor of the new inode, which has no name. -errno, not recorded. */
int passing_name(const char *path, passing_maker *make, const void *argument) must_check;
/* The nearest directory above `path` that exists, open with O_PATH. -errno, not recorded. */
int passing_name_place(const char *path) must_check;
/* Can criu make a name there? 0 or -errno, not recorded. Changes nothing. */
int passing_name_check(const char *path) must_check;
/* Removes the mark that an earlier restore has added. */
void passing_name_strip(char *path);

#endif
