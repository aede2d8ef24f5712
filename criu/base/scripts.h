/*
 * scripts.h - action scripts: the user's programs that criu runs at the moments of a journey (moments.h).
 *
 * The environment of a script tells what is going on: CRTOOLS_SCRIPT_ACTION (the name of the moment), CRTOOLS_IMAGE_DIR
 * (a path of the images directory) and CRTOOLS_INIT_PID (the root of the tree, once it is known). Its working directory
 * is the work directory. It has standard input, output and error, and no other descriptor.
 */
#ifndef CRIU_BASE_SCRIPTS_H
#define CRIU_BASE_SCRIPTS_H

#include <sys/resource.h>
#include "base/moments.h"
#include "base/texts.h"
#include "compiler.h"

struct scripts {
	struct texts paths;
	int images, work;	   /* directories */
	struct rlimit descriptors; /* the limit of open files for the scripts: base/descriptors.h */
};

/*
 * A receiver of moments; `scripts` is a struct scripts. It runs the scripts in order until one does not exit with 0,
 * which stops the journey.
 */
int scripts_receive(void *scripts, const struct news *news) must_check;

#endif
