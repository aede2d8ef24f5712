/*
 * tcp_stream.h - a TCP connection: its state, its queues, and what both ends have agreed on.
 *
 * The kernel tells and accepts all that in repair mode (TCP_REPAIR, Linux 3.5; CAP_NET_ADMIN in the user namespace of
 * the network). No packet of the connection may reach the socket meanwhile, and none may leave it: network_lock.h.
 *
 * Sequence numbers are those of the kernel: a FIN that was sent or received has one, which follows the bytes.
 */
#ifndef CRIU_SOCKETS_TCP_STREAM_H
#define CRIU_SOCKETS_TCP_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include "compiler.h"
#include "sockets/ip_address.h"
#include "tcp-stream.pb-c.h"

struct tcp_stream {
	int state; /* TCP_ESTABLISHED, …: one of tcp_state_is_connected() */
	TcpStreamEntry entry;
	uint8_t *received; /* entry.inq_len bytes: not read yet */
	uint8_t *sent; /* entry.outq_len bytes: not acknowledged, or (the last entry.unsq_len) not sent yet */
};

/* Both ends know of the connection: its state is ESTABLISHED, or later, and not CLOSE. */
bool tcp_state_is_connected(int state);
/* A FIN was sent, or received. */
bool tcp_state_has_sent_end(int state);
bool tcp_state_has_received_end(int state);

/* The state; -errno, recorded. */
int tcp_state_of(int fd) must_check;

/*
 * Reads the connection of `fd`, which criu has borrowed, in repair mode, and ends that. Of one that has ended, it reads
 * only the state. The caller frees the stream, also
 * after a failure. It must not be interrupted by criu's death (place.outlives_criu): a socket that stays in repair mode
 * is of no use to its process.
 */
int tcp_stream_read(int fd, struct tcp_stream *stream) must_check;
void tcp_stream_free(struct tcp_stream *stream);

/* Repair mode: the socket then ends silently. Not for a listening socket. -errno, not recorded. */
int tcp_repair_begin(int fd) must_check;
/*
 * Ends it without a packet; or with one, to which the other end answers with what it has received. The kernel has
 * cleared SO_REUSEADDR.
 */
int tcp_repair_end(int fd, bool with_probe) must_check;

/* ---- restore ---- */

struct tcp_ends {
	union ip_address own, other;
};

/* Connects the socket `fd`, which is in repair mode and bound. -EADDRNOTAVAIL: there is such a connection already. */
int tcp_stream_connect(int fd, const struct tcp_stream *stream, const struct tcp_ends *ends) must_check;
/*
 * The rest; its buffers are large enough. When it returns, the socket is in the state of the stream and still in repair
 * mode; no packet has been sent to the other end.
 */
int tcp_stream_make(int fd, const struct tcp_stream *stream, const struct tcp_ends *ends) must_check;
/*
 * Ends repair mode, and sends what was not sent yet: bytes, and a FIN. Packets are still blocked; so the other end has to
 * be asked afterwards (tcp_repair_end() once more).
 */
int tcp_stream_finish(int fd, const struct tcp_stream *stream) must_check;

#endif
