/*
 * kernel_files.h - the kernel's structs behind descriptors of criu: two descriptors with the same struct file are one
 * open file.
 */
#ifndef CRIU_KERNEL_KERNEL_FILES_H
#define CRIU_KERNEL_KERNEL_FILES_H

#include <stdint.h>
#include "compiler.h"

struct btf;
struct peek;

struct kernel_files {
	const struct peek *peek;
	uint32_t offsets[4];
	uint64_t table; /* criu's own: struct files_struct */
};

/* `peek` must stay. 0 or -errno, recorded. */
int kernel_files_open(struct kernel_files *files, const struct peek *peek, const struct btf *btf) must_check;
/* The struct file of a descriptor of criu, and what its driver keeps there (private_data). */
int kernel_files_find(const struct kernel_files *files, int fd, uint64_t *file, uint64_t *data) must_check;

#endif
