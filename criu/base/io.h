/*
 * io.h - reads and writes that transfer everything, and small files read in one go.
 *
 * All return -errno and record no failure, because the caller knows the name of the file.
 */
#ifndef CRIU_BASE_IO_H
#define CRIU_BASE_IO_H

#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "compiler.h"

/*
 * Transfers all `size` bytes or returns -errno; -ENODATA if the file ends before. EINTR and short transfers are
 * handled.
 */
int read_all(int fd, void *buffer, size_t size) must_check;
int read_all_at(int fd, void *buffer, size_t size, off_t offset) must_check;
int write_all(int fd, const void *buffer, size_t size) must_check;
int write_all_at(int fd, const void *buffer, size_t size, off_t offset) must_check;
/* The same, into or from several buffers; the vectors are changed. */
int read_vectors_at(int fd, struct iovec *vectors, int count, off_t offset) must_check;
int write_vectors_at(int fd, struct iovec *vectors, int count, off_t offset) must_check;

/* Reads a whole file, for /proc. *text is allocated and NUL-terminated; the length is returned. */
ssize_t read_text_at(int directory, const char *path, char **text) must_check;
ssize_t read_text_from(int fd, char **text) must_check; /* from its current offset */
/* The same for a file of /proc that is one record (status, stat, fdinfo/N, …). It saves one read. */
ssize_t read_record_at(int directory, const char *path, char **text) must_check;
ssize_t read_record_from(int fd, char **text) must_check; /* from its current offset: 0 */
int write_text_at(int directory, const char *path, const char *text) must_check;
/* The target of a symbolic link, allocated in *target; its length is returned. */
ssize_t read_link_at(int directory, const char *path, char **target) must_check;

#endif
