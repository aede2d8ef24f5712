/*
 * sock_queue.h - reads, in the kernel's memory, what is in the queues of unix sockets that nobody has a descriptor of:
 * connections that wait to be accepted. Changes nothing.
 */
#ifndef CRIU_KERNEL_SOCK_QUEUE_H
#define CRIU_KERNEL_SOCK_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include "compiler.h"

struct sock_packet {
	uint64_t address; /* of its struct sk_buff */
	uint32_t size;
	struct ucred sender; /* by ids as criu sees them */
	bool has_sender;     /* false: none, or criu cannot see the process */
	bool has_label;	     /* a security label (SO_PASSSEC) */
	uint64_t *files;     /* descriptors in flight: their struct file */
	size_t file_count;
};

#define SOCK_MARKS \
	4 /* what shows that it is still the same: the kernel's structs of it, its client, its first packet */

/* A connection that waits to be accepted. */
struct sock_waiting {
	uint32_t client; /* the inode of the other end; 0: it has been closed */
	unsigned char name[sizeof(struct sockaddr_storage)]; /* of the client, behind the family */
	size_t name_size;
	struct ucred maker; /* who has called connect(); pid 0: criu cannot see the process */
	gid_t *groups;
	size_t group_count;
	struct sock_packet *packets;
	size_t count;
	bool has_urgent; /* something was sent with MSG_OOB */
	uint64_t addresses[SOCK_MARKS];
};

struct sock_backlog {
	struct sock_waiting *items; /* in the order in which they are accepted */
	size_t count;
	uint64_t listener; /* its struct sock */
};

struct kernel_files;
struct sock_reader;

/*
 * 0 or -errno, recorded: it needs root's capabilities, and a kernel that it knows. It proves that it does by reading
 * the queue of a socket of its own, before it reads any other.
 */
int sock_reader_open(struct sock_reader **reader) must_check;
void sock_reader_close(struct sock_reader *reader);
const struct kernel_files *sock_reader_files(const struct sock_reader *reader);

/* `fd` is criu's own, of a listening socket. sock_backlog_free() frees everything, also after a failure. */
int sock_backlog_read(struct sock_reader *reader, int fd, struct sock_backlog *backlog) must_check;
/*
 * Do the first `count` of them still wait, in this order? Otherwise somebody outside of the processes has accepted some,
 * and what was read meanwhile may be anything: the kernel has freed it. More that wait behind them are no change.
 */
bool sock_backlog_is_same(const struct sock_reader *reader, const struct sock_backlog *backlog, size_t count)
	must_check;
void sock_backlog_free(struct sock_backlog *backlog);
/* All bytes of a packet. */
int sock_packet_read(struct sock_reader *reader, const struct sock_packet *packet, char *bytes) must_check;

#endif
