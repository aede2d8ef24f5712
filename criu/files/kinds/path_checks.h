/*
 * path_checks.h - dump: whether a restore can open a file again by its path, and gets the same.
 */
#ifndef CRIU_FILES_KINDS_PATH_CHECKS_H
#define CRIU_FILES_KINDS_PATH_CHECKS_H

#include "compiler.h"
#include "files/seen.h"

/* Refuses a file in a mount that its path does not lead into; also if the file was deleted. */
int path_check_mount(const struct snapshot *snapshot, const struct seen_file *seen) must_check;
/*
 * For a file that its path leads to: refuses what cannot be opened with the same flags any more, and what has state
 * that neither the path nor the kernel shows.
 */
int path_check_opening(const struct snapshot *snapshot, const struct seen_file *seen) must_check;

#endif
