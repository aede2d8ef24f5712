/*
 * packet.h - packet sockets (AF_PACKET): what the sources of this kind of file share. packet.c has the kind and the
 * dump, packet_make.c the restore, packet_ring.c both for rings.
 */
#ifndef CRIU_SOCKETS_PACKET_H
#define CRIU_SOCKETS_PACKET_H

#include "files/kind.h"
#include "model/vma.h"
#include "sockets/packet_facts.h"

struct packet_made {
	const struct file *file;
	int fd; /* -1: file->fd has it */
};

struct packet_sockets {
	/* dump: read when the first socket is described */
	struct packet_facts facts;
	bool has_facts;
	int facts_result;
	struct packet_ring_reader *reader; /* opened for the first ring; NULL: criu cannot read them */
	bool has_reader;
	/* restore: all sockets, in the order in which they are created */
	struct packet_made *made;
	size_t made_count;
	struct index made_of; /* a file, by its id */
	uint64_t ring_bytes;  /* of those that have been checked */
};

struct packet_sockets *packet_sockets_of(const struct snapshot *snapshot);
/* Errors are recorded only by the first call. */
int packet_facts_of(const struct snapshot *snapshot, const struct packet_facts **facts) must_check;

/*
 * Options of 4 bytes that can be read and set, in the order in which they are set. Those of rings cannot be changed
 * when there is a ring.
 */
struct packet_option {
	int option;
	const char *name;
	int has; /* offset of the field has_… in the message; -1: it is required */
	size_t value;
};
extern const struct packet_option packet_options[];
extern const size_t packet_option_count;

static inline uint32_t *packet_value_of(const struct packet_option *option, const PacketSockEntry *entry)
{
	return (uint32_t *)((char *)entry + option->value);
}

/* ---- packet_ring.c ---- */

/*
 * Dump: saves the position and the content of the ring for receiving, if there is one. `fd`: a borrowed descriptor. If
 * criu cannot know the position, the message has none.
 */
void packet_ring_save(const struct snapshot *snapshot, const struct file *file, int fd);
/* Is it a mapping of all its rings? No other is possible, but the process may have unmapped a part. */
bool packet_ring_is_mapped(const PacketSockEntry *entry, const struct vma *vma);
/* Dump. NULL, or what it is that cannot be saved. */
const char *packet_ring_why_not_mapped(const struct file *file, const struct vma *vma);
/* The packet socket with this inode; NULL: none has a descriptor. */
struct file *packet_find(const struct snapshot *snapshot, dev_t device, uint64_t inode);
/* Restore. NULL, or what is wrong with the message. */
const char *packet_ring_find_mistake(const PacketSockEntry *entry);
int packet_ring_check(const struct snapshot *snapshot, const struct file *file) must_check;
/* Does it have to receive frames of criu's own before it can be as it was? */
bool packet_ring_must_advance(const PacketSockEntry *entry);
/* Of a new socket with a new ring. If it must advance, the socket is bound then, and its filter lets nothing pass. */
int packet_ring_restore(const struct file *file, int fd) must_check;

/* ---- packet_make.c ---- */

/* Attaches a filter that drops all packets. */
int packet_let_nothing_pass(const struct file *file, int fd) must_check;

int packet_check(struct snapshot *snapshot, struct file *file) must_check;
int packet_open(struct snapshot *snapshot, struct file *file) must_check;
int packet_join(struct snapshot *snapshot) must_check;
void packet_close(struct snapshot *snapshot);
size_t packet_keeps(const struct snapshot *snapshot);

#endif
