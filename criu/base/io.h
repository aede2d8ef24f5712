/*
 * io.h - whole reads and writes, and small files read in one go.
 *
 * All return -errno and record nothing: the caller knows the name of what it reads.
 */
#ifndef CRIU_BASE_IO_H
#define CRIU_BASE_IO_H

#include <stdint.h>
#include <sys/types.h>
#include "compiler.h"

/* All of it, or -errno; -ENODATA if the file ends before `size` bytes. EINTR and short transfers are handled. */
int read_all(int fd, void *buffer, size_t size) must_check;
int read_all_at(int fd, void *buffer, size_t size, off_t offset) must_check;
int write_all(int fd, const void *buffer, size_t size) must_check;
int write_all_at(int fd, const void *buffer, size_t size, off_t offset) must_check;

/* The whole file as a NUL-terminated text, for /proc: *text is allocated, the length is returned. */
ssize_t read_text_at(int directory, const char *path, char **text) must_check;
ssize_t read_text_from(int fd, char **text) must_check; /* from where it stands */
/* The same of a file of /proc that is one record (status, stat, fdinfo/N, …): one read less. */
ssize_t read_record_at(int directory, const char *path, char **text) must_check;
int write_text_at(int directory, const char *path, const char *text) must_check;
/* Where a symbolic link points: allocated in *target; its length is returned. */
ssize_t read_link_at(int directory, const char *path, char **target) must_check;

#endif
