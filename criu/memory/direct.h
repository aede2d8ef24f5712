/*
 * direct.h - writes a file past the page cache (O_DIRECT), several pieces at a time: the disk is busy all the time, no
 * byte is copied, and what was written is on the disk, but for a last sync of the file system's own data.
 */
#ifndef CRIU_MEMORY_DIRECT_H
#define CRIU_MEMORY_DIRECT_H

#include <stddef.h>
#include <stdint.h>
#include "compiler.h"

struct direct;

/* For the file of `fd`, with `slots` pieces on their way at once. NULL: not here, for the reason in the log. */
struct direct *direct_open(int fd, unsigned slots);
/*
 * Begins to write a piece: `bytes` and `size` are multiples of PAGE_SIZE. The slot must be free: it was never used, or
 * has been awaited. 0 or -errno, not recorded.
 */
int direct_begin(struct direct *direct, unsigned slot, const void *bytes, size_t size, uint64_t offset)
	must_check;
/* Waits until the slot is free. Returns 0, or -errno if its piece was not written; not recorded. */
int direct_await(struct direct *direct, unsigned slot) must_check;
/* Waits for all slots. The file gets this size, because room was allocated in advance. 0 or the first -errno. */
int direct_close(struct direct *direct, uint64_t size) must_check;

#endif
