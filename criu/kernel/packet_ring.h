/*
 * packet_ring.h - reads, in the kernel's memory, where in a ring of a packet socket the kernel will write next. No call
 * tells that. Changes nothing.
 */
#ifndef CRIU_KERNEL_PACKET_RING_H
#define CRIU_KERNEL_PACKET_RING_H

#include <stdbool.h>
#include <stdint.h>
#include "compiler.h"

struct packet_ring_reader;

/* 0 or -errno, recorded: it needs root's capabilities, and a kernel with packet sockets that it knows. */
int packet_ring_reader_open(struct packet_ring_reader **reader) must_check;
void packet_ring_reader_close(struct packet_ring_reader *reader); /* NULL is fine */

/* What is known of a ring for receiving, by which criu sees that it reads the right memory. */
struct packet_ring_known {
	uint32_t block_count, frame_size, frame_count;
	bool has_blocks; /* TPACKET_V3: the position is that of a block, and not of a frame */
};

/* `fd` is criu's own. 0 or -errno, recorded. */
int packet_ring_position(const struct packet_ring_reader *reader, int fd,
			 const struct packet_ring_known *known, uint32_t *position) must_check;

#endif
