/*
 * grown.h - restore: files that are longer or shorter than at the dump.
 */
#ifndef CRIU_FILES_KINDS_GROWN_H
#define CRIU_FILES_KINDS_GROWN_H

#include <sys/stat.h>
#include "compiler.h"
#include "model/snapshot.h"

/* The state of regular files for a restore: those that will lose what was added. */
struct grown {
	struct file **items;
	size_t count;
};

/* Before any process exists. `file` is a regular file, `found` what its path leads to now. Changes nothing. */
int grown_check(struct grown *grown, enum grown_files policy, struct file *file, const struct stat *found)
	must_check;
/* When nothing can fail any more: cuts all of them back. They are open. */
void grown_cut(const struct grown *grown);
void grown_free(struct grown *grown);

#endif
