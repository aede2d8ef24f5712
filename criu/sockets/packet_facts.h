/*
 * packet_facts.h - what the kernel tells of all packet sockets of criu's network namespace (packet_diag, Linux 3.7;
 * CONFIG_PACKET_DIAG), by their inodes.
 */
#ifndef CRIU_SOCKETS_PACKET_FACTS_H
#define CRIU_SOCKETS_PACKET_FACTS_H

#include <linux/packet_diag.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/index.h"
#include "compiler.h"

enum packet_direction {
	RECEIVING,
	SENDING,
};

struct packet_fact {
	uint32_t inode;
	uint32_t order; /* the kernel lists sockets in the order in which they were created */
	struct packet_diag_info info;
	bool has_fanout;
	uint16_t group; /* of PACKET_FANOUT */
	bool has_ring[2];
	struct packet_diag_ring rings[2]; /* by direction */
	struct packet_diag_mclist *members;
	size_t member_count;
};

struct packet_facts {
	struct packet_fact **items;
	size_t count;
	struct index by_inode;
};

/* 0 or -errno, recorded. -ENOENT: the kernel has no packet_diag. */
int packet_facts_read(struct packet_facts *facts) must_check;
void packet_facts_free(struct packet_facts *facts);
const struct packet_fact *packet_fact_find(const struct packet_facts *facts, uint32_t inode); /* NULL: none */
/* How many sockets are in this fanout group. */
size_t packet_facts_in_group(const struct packet_facts *facts, uint16_t group);

#endif
