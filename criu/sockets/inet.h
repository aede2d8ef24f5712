/*
 * inet.h - what the sources of sockets of IPv4 and IPv6 have in common.
 *
 *	inet.c          the kind of file: dump
 *	inet_check.c    restore: what the images hold, and whether it can be made here
 *	inet_make.c     restore: makes the sockets
 *	ip_options.c    options of IP, IPv6, TCP and UDP
 *	tcp_stream.c    a TCP connection, read and made in repair mode
 *	tcp_inject.c    segments that a restore gives to a TCP socket
 *	tcp_leftovers.c connections that the kernel has not forgotten yet
 *	network_guard.c if criu is killed when they begin to work again
 *	network_lock.c  packets of connections that are blocked meanwhile
 */
#ifndef CRIU_SOCKETS_INET_H
#define CRIU_SOCKETS_INET_H

#include <netinet/tcp.h>
#include "files/kind.h"
#include "sockets/ip_address.h"
#include "sockets/ip_options.h"
#include "sockets/network_guard.h"
#include "sockets/network_lock.h"
#include "sockets/options.h"
#include "sockets/tcp_stream.h"

struct inet_socket {
	struct file *file;
	InetSkEntry *entry;
	uint32_t waiting_count;	     /* dump: connections that wait to be accepted */
	union ip_address own, other; /* family AF_UNSPEC: it has none */
	struct tcp_stream stream;    /* if inet_is_stream() */
	int fd;			     /* restore: until open() takes it; -1: not made, or taken */
};

struct inet_sockets {
	struct inet_socket *items; /* restore: in the order of the files */
	size_t count;
	struct network_lock *lock;
	/* dump */
	struct socket_options_ahead options;
	struct ip_usual_options usual;
	size_t held_count; /* of items whose connections have been read */
	/* restore */
	struct index by_file;
	bool is_made, has_forgotten;
	pid_t guard; /* 0: none */
	struct guarded_stream *guarded;
	size_t guarded_count;
};

struct inet_sockets *inet_sockets_of(const struct snapshot *snapshot);

static inline bool inet_is_tcp(const InetSkEntry *entry)
{
	return entry->type == SOCK_STREAM && entry->proto == IPPROTO_TCP;
}
/* Is it a connection that is kept? Then there is a tcp-stream-N.img. */
static inline bool inet_is_stream(const InetSkEntry *entry)
{
	return inet_is_tcp(entry) && tcp_state_is_connected(entry->state);
}

/* "10.0.0.1:80 - 10.0.0.2:4711"; to be freed. */
char *inet_in_words(const struct inet_socket *socket);

/* Blocks the packets of all connections that are not blocked yet, if the policy wants it. */
int inet_lock(struct snapshot *snapshot) must_check;

/* --tcp-close: it comes back as if the other end had reset it. */
void inet_close_stream(InetSkEntry *entry);

/* ---- inet_check.c ---- */

int inet_load(struct snapshot *snapshot) must_check;
int inet_check(struct snapshot *snapshot, struct file *file) must_check;

/* ---- inet_make.c ---- */

int inet_open(struct snapshot *snapshot, struct file *file) must_check;
int inet_join(struct snapshot *snapshot) must_check;
int inet_prepare_release(struct snapshot *snapshot) must_check;
void inet_release(struct snapshot *snapshot);
void inet_close(struct snapshot *snapshot);
size_t inet_keeps(const struct snapshot *snapshot);

#endif
