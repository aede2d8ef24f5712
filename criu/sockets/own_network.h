/*
 * own_network.h - dump: what all kinds of sockets ask first: the family, and whether it is in criu's own network namespace.
 */
#ifndef CRIU_SOCKETS_OWN_NETWORK_H
#define CRIU_SOCKETS_OWN_NETWORK_H

#include "compiler.h"
#include "files/seen.h"

/* AF_UNIX, …; -1: it is no socket, or cannot be asked. */
int socket_family(const struct seen_file *seen);
/* 1 or 0; -errno, recorded. */
int socket_is_in_own_network(int fd) must_check;

#endif
