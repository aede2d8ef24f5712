/*
 * crowd.h - what crowd.c makes in crowd_files.c.
 */
#pragma once
#include <stdbool.h>

/* Opens about `count` descriptors, in files of the working directory. False: there is no such kind. */
bool crowd_make_files(const char *kind, long count);
