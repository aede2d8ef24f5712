/*
 * packed.h - compressed pages images, pages-lz4-N.img: the bytes that pages-N.img would have, in blocks of
 * PACKED_BLOCK (the last one may be shorter). Each block is compressed by itself, so whoever reads one page unpacks one
 * block.
 *
 *	the blocks, one after the other    LZ4 block format; one that is as large as its content is not compressed
 *	struct packed_block of each
 *	struct packed_trailer
 *
 * Numbers are little-endian. Nothing precedes the first block, and nothing follows the trailer.
 */
#ifndef CRIU_MEMORY_PACKED_H
#define CRIU_MEMORY_PACKED_H

#include <stdint.h>
#include <sys/uio.h>
#include "base/throughput.h"
#include "compiler.h"

#define PACKED_BLOCK (64UL << 10)
#define PACKED_MAGIC 0x0a345a4c55495243ULL /* "CRIULZ4\n" */

struct packed_block {
	uint32_t size; /* bytes in the file */
	uint32_t hash; /* the lower half of XXH3 (64 bits) of these bytes */
};

struct packed_trailer {
	uint64_t magic;
	uint64_t size;	 /* bytes, of the content */
	uint64_t packed; /* bytes, of all blocks */
	uint64_t hash;	 /* XXH3 (64 bits) of all struct packed_block */
};

/* ---- writing ---- */

struct packer;

struct packer_statistics {
	struct throughput packing; /* bytes of content, … */
	uint64_t packed;	   /* … which became this many */
	struct throughput writing; /* into the page cache */
};

/*
 * For an empty file, whose descriptor stays the caller's. `adapts`: as long as the disk is faster than the compression,
 * blocks are stored as they are. To learn that, the packer waits at every 4 MiB of the file until all but the last
 * 16 MiB is on the disk, so at most about 20 MiB are on their way.
 */
struct packer *packer_open(int fd, bool adapts);
/* Adds `size` bytes. 0 or -errno, not recorded. */
int packer_write(struct packer *packer, const char *bytes, size_t size) must_check;
/*
 * Writes the rest, unless `result`, the result of everything so far, is an error, which is then returned. 0 or -errno,
 * not recorded. Adds to the statistics. NULL is fine.
 */
int packer_close(struct packer *packer, int result, struct packer_statistics *statistics) must_check;

/* ---- reading ---- */

struct unpacker;

/*
 * For a file of `file_size` bytes. `name` is for messages, and stays valid, as the descriptor does. Checks the trailer
 * and the sizes of the blocks. 0 or -errno, recorded.
 */
int unpacker_open(struct unpacker **unpacker, int fd, uint64_t file_size, const char *name) must_check;
void unpacker_close(struct unpacker *unpacker);		 /* NULL is fine */
uint64_t unpacker_size(const struct unpacker *unpacker); /* of the content */
/*
 * Reads content into several buffers, which are not changed. Threads may do so at the same time. 0 or -errno, recorded;
 * -ENODATA: there is less content.
 */
int unpacker_read(struct unpacker *unpacker, const struct iovec *places, int count, uint64_t offset)
	must_check;
/* Where in the file the blocks are that hold `size` bytes of content. */
void unpacker_place(const struct unpacker *unpacker, uint64_t offset, uint64_t size, uint64_t *start,
		    uint64_t *end);

#endif
