/*
 * packet_ring.c - see packet_ring.h.
 */
#include <errno.h>
#include <stdlib.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/btf.h"
#include "kernel/kernel_files.h"
#include "kernel/packet_ring.h"
#include "kernel/peek.h"

enum place { SOCKET_SOCK, RING_FRAME, RING_BLOCK, RING_FRAME_SIZE, RING_LAST_FRAME, RING_BLOCKS, PLACES };

static const struct kernel_member members[PLACES] = {
	[SOCKET_SOCK] = { "socket", "sk" },
	[RING_FRAME] = { "packet_sock", "rx_ring.head" },
	[RING_BLOCK] = { "packet_sock", "rx_ring.prb_bdqc.kactive_blk_num" },
	[RING_FRAME_SIZE] = { "packet_sock", "rx_ring.frame_size" },
	[RING_LAST_FRAME] = { "packet_sock", "rx_ring.frame_max" },
	[RING_BLOCKS] = { "packet_sock", "rx_ring.pg_vec_len" },
};

struct packet_ring_reader {
	struct peek peek;
	struct kernel_files files;
	uint32_t offsets[PLACES];
};

int packet_ring_reader_open(struct packet_ring_reader **reader)
{
	struct packet_ring_reader *made = allocate(sizeof(*made));
	struct btf *btf = NULL;
	int result = peek_open(&made->peek) ?: btf_load(&btf);

	result = result ?: btf_find_members(btf, members, PLACES, made->offsets, "packet sockets");
	result = result ?: kernel_files_open(&made->files, &made->peek, btf);
	btf_free(btf);
	if (result)
		packet_ring_reader_close(steal_pointer(&made));
	*reader = made;
	return result;
}

void packet_ring_reader_close(struct packet_ring_reader *reader)
{
	if (reader)
		peek_close(&reader->peek);
	free(reader);
}

static int read_at(const struct packet_ring_reader *reader, uint64_t struct_at, enum place place, void *value,
		   uint32_t size)
{
	int result = peek_read(&reader->peek, struct_at + reader->offsets[place], value, size);

	return result ? fail(-result, "cannot read the ring of a packet socket in the kernel's memory") : 0;
}

int packet_ring_position(const struct packet_ring_reader *reader, int fd,
			 const struct packet_ring_known *known, uint32_t *position)
{
	uint64_t file, socket, sock;
	uint32_t frame_size = 0, last_frame = 0, blocks = 0;
	uint16_t block = 0;
	int result = kernel_files_find(&reader->files, fd, &file, &socket) ?:
			     read_at(reader, socket, SOCKET_SOCK, &sock, sizeof(sock));

	result = result ?: read_at(reader, sock, RING_FRAME_SIZE, &frame_size, sizeof(frame_size));
	result = result ?: read_at(reader, sock, RING_LAST_FRAME, &last_frame, sizeof(last_frame));
	result = result ?: read_at(reader, sock, RING_BLOCKS, &blocks, sizeof(blocks));
	if (!result && (frame_size != known->frame_size || last_frame + 1 != known->frame_count ||
			blocks != known->block_count))
		return fail(EOPNOTSUPP, "criu does not know this kernel's packet sockets");
	result = result ?: read_at(reader, sock, RING_FRAME, position, sizeof(*position));
	result = result ?: read_at(reader, sock, RING_BLOCK, &block, sizeof(block));
	if (!result && known->has_blocks)
		*position = block;
	if (!result && *position >= (known->has_blocks ? known->block_count : known->frame_count))
		return fail(EBADMSG, "the ring of a packet socket has an impossible position");
	return result;
}
