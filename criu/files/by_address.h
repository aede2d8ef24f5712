/*
 * by_address.h - dump: finds files by the addresses of the kernel's own structs.
 */
#ifndef CRIU_FILES_BY_ADDRESS_H
#define CRIU_FILES_BY_ADDRESS_H

#include "base/index.h"
#include "compiler.h"

struct kernel_files;
struct snapshot;

/*
 * All files of the snapshot that are known by a descriptor, by the address of their struct file; and eventfds by what
 * their driver keeps, too.
 */
int files_index_by_address(const struct snapshot *snapshot, const struct kernel_files *kernel,
			   struct index *index) must_check;

#endif
