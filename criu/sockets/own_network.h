/*
 * own_network.h - is a socket in criu's own network namespace?
 */
#ifndef CRIU_SOCKETS_OWN_NETWORK_H
#define CRIU_SOCKETS_OWN_NETWORK_H

#include "compiler.h"

/* 1 or 0; -errno, recorded. */
int socket_is_in_own_network(int fd) must_check;

#endif
