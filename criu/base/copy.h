/*
 * copy.h - copies ranges of files. The bytes do not pass through criu where the file system can share or copy them
 * itself. Holes stay holes: the target is a new file that already has its final size.
 *
 * Functions return 0 or -errno and record no failure, because the caller knows the names of the files.
 */
#ifndef CRIU_BASE_COPY_H
#define CRIU_BASE_COPY_H

#include <stdbool.h>
#include <stdint.h>
#include "compiler.h"

struct copier {
	bool cannot_share, cannot_delegate; /* learned from the first attempt that fails */
	uint64_t shared, copied;	    /* bytes so far */
};

/* Sets the size of a new file; all of it is a hole. */
int copier_size(int fd, uint64_t size) must_check;
int copier_copy(struct copier *copier, int from, uint64_t from_offset, int to, uint64_t to_offset,
		uint64_t size) must_check;

#endif
