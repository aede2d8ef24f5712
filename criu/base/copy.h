/*
 * copy.h - copies ranges of files, without moving the bytes where the file system can share or copy them itself. Holes stay holes:
 * what is written to is new, and has its size already.
 *
 * Returns 0 or -errno and records nothing: the caller knows the names.
 */
#ifndef CRIU_BASE_COPY_H
#define CRIU_BASE_COPY_H

#include <stdbool.h>
#include <stdint.h>
#include "compiler.h"

struct copier {
	bool cannot_share, cannot_delegate; /* found out by trying */
	uint64_t shared, copied;	    /* bytes so far */
};

/* A new file gets its size at once: all of it is a hole. */
int copier_size(int fd, uint64_t size) must_check;
int copier_copy(struct copier *copier, int from, uint64_t from_offset, int to, uint64_t to_offset,
		uint64_t size) must_check;

#endif
