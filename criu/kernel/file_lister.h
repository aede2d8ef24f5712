/*
 * file_lister.h - the descriptors of a process in one read, with what the kernel knows of their files.
 *
 * Where /proc needs several calls for each descriptor, 10,000 of them take 4 ms this way.
 */
#ifndef CRIU_KERNEL_FILE_LISTER_H
#define CRIU_KERNEL_FILE_LISTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "compiler.h"

struct file_lister;

struct listed_file {
	int fd;
	uint64_t file; /* the address of its struct file: equal for the same open file, as long as that is open */
	int64_t position;
	unsigned flags; /* O_*; with O_CLOEXEC if the descriptor closes on exec */
	int mount;
	bool had_locks; /* its inode has, or once had, a lock or a lease */
	bool had_owner; /* F_SETOWN or F_SETSIG */
	bool has_lines; /* its fdinfo has lines that only such files have */
};

/*
 * Needs Linux 6.1, and CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN, here and not in a user namespace. It is tested with
 * descriptors of criu's own. 0 or -errno, recorded.
 */
int file_lister_open(struct file_lister **lister) must_check;
void file_lister_close(struct file_lister *lister); /* NULL is fine */

/*
 * Lists the table of a thread; the files are sorted by number, and to be freed. What runs may change meanwhile.
 * -errno, recorded.
 */
int file_lister_list(const struct file_lister *lister, pid_t thread, struct listed_file **files,
		     size_t *count) must_check;

/* Does it tell the truth about descriptors that criu makes for that? 0 or -errno, recorded. */
int file_lister_test(const struct file_lister *lister) must_check;

#endif
