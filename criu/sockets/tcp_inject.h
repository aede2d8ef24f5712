/*
 * tcp_inject.h - gives a TCP socket a segment, as if the other end of its connection had sent it.
 *
 * A restore needs that for what repair mode cannot set: that the other end has sent its FIN, or has acknowledged ours.
 */
#ifndef CRIU_SOCKETS_TCP_INJECT_H
#define CRIU_SOCKETS_TCP_INJECT_H

#include <stdbool.h>
#include <stdint.h>
#include "compiler.h"
#include "sockets/ip_address.h"

struct tcp_segment {
	union ip_address from, to; /* of one family; `to` is an address of this machine */
	uint32_t number, acknowledged;
	uint16_t window;
	bool is_last; /* FIN */
};

/*
 * From the network namespace that the caller is in. The segment has the mark NETWORK_LOCK_MARK, so the network lock
 * lets it pass. It arrives before this returns, unless the machine is very busy. -errno, recorded.
 */
int tcp_inject(const struct tcp_segment *segment) must_check;

#endif
