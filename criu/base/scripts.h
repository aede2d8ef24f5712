/*
 * scripts.h - action scripts: programs of the user that are run at fixed points of a journey.
 *
 * A script finds in its environment what is going on: CRTOOLS_SCRIPT_ACTION (pre-dump, post-dump, pre-restore, post-restore,
 * pre-resume, post-resume), CRTOOLS_IMAGE_DIR (a path of the images directory) and CRTOOLS_INIT_PID (the root of the tree, once it
 * is known). Its working directory is the work directory; it has standard input, output and error, and no other descriptor.
 */
#ifndef CRIU_BASE_SCRIPTS_H
#define CRIU_BASE_SCRIPTS_H

#include <stddef.h>
#include <sys/resource.h>
#include <sys/types.h>
#include "compiler.h"

struct scripts {
	const char **paths;
	size_t count;
	int images, work;	   /* directories */
	struct rlimit descriptors; /* the limit that they get: base/descriptors.h */
};

/* Runs all of them, in order, until one does not exit with 0: that is a failure, recorded. `root` 0: not known yet. */
int scripts_run(const struct scripts *scripts, const char *action, pid_t root) must_check;

#endif
