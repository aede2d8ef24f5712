/*
 * queue_packets.h - restore: the packets of sk-queues.img, between the sources that load and send them.
 */
#ifndef CRIU_SOCKETS_QUEUE_PACKETS_H
#define CRIU_SOCKETS_QUEUE_PACKETS_H

#include <stdint.h>
#include "model/snapshot.h"
#include "sk-packet.pb-c.h"

struct queued_packet {
	SkPacketEntry *entry;
	uint64_t at; /* where its bytes are in the image */
};

struct socket_queue {
	const struct file *file; /* the receiver, or the listener of it */
	struct queued_packet *items;
	size_t count;
};

/* Reads bytes of a packet, from `offset` on, into a buffer. */
int queued_packet_read(const struct snapshot *snapshot, const struct queued_packet *packet, uint32_t offset,
		       void *buffer, size_t size) must_check;

#endif
