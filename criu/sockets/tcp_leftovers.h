/*
 * tcp_leftovers.h - what the kernel keeps of TCP connections that no process has any more: for a minute (TIME_WAIT), or
 * until the other end answers. It can be in the way of a restore: of a listener with the same address, or of the same
 * connection.
 */
#ifndef CRIU_SOCKETS_TCP_LEFTOVERS_H
#define CRIU_SOCKETS_TCP_LEFTOVERS_H

#include <stddef.h>
#include "compiler.h"
#include "sockets/network_lock.h"

/*
 * Makes the kernel forget (SOCK_DESTROY, Linux 4.5, CONFIG_INET_DIAG_DESTROY) the leftovers of these connections; and
 * those with the port of an address in `bound`, which have nothing more to send. -errno, recorded.
 */
int tcp_forget_leftovers(const struct network_connection *connections, size_t connection_count,
			 const union ip_address *bound, size_t bound_count) must_check;

#endif
